//! The request head that a server gets: edits to the copy that Pingora makes for each attempt.

use std::sync::Arc;

use pingora::Result;
use pingora::http::RequestHeader;

use crate::message::RequestEdits;
use crate::persistence::issue::ask_readable;
use crate::proxy::context::RequestContext;
use crate::proxy::head;
use crate::proxy::hook::{self, HookFuture};
use crate::proxy::request::strip_token::strip_token;
use crate::routing::RequestHeaders;

/// The hook.
pub(crate) fn run<'hook>(
    request: &'hook mut RequestHeader,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<()>> {
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    if sessions.has_handoff(&scope, state) {
        return hook::done(change(request, ctx));
    }
    Box::pin(fetch_and_change(request, ctx))
}

/// Session data that another proxy keeps has to be fetched before it is injected.
async fn fetch_and_change(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    Box::pin(sessions.fetch_handoff(&scope, state)).await;
    change(request, ctx)
}

fn change(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    // Keeps the names of configured headers alive, which the edits borrow.
    let (runtime, route) = (Arc::clone(&ctx.runtime), ctx.route);
    let view = head::view(request);
    let (sessions, scope, state) = ctx.sessions(view);
    let mut edits = RequestEdits::default();
    strip_token(&view, state.persistence(&scope), &mut edits);
    ask_readable(&scope, state, &mut edits);
    sessions.inject_handoff(&view, &scope, state, &mut edits);
    // Last, so that operators can override what the proxy sets.
    if let Some(route) = runtime.router.route(route) {
        apply_route_changes(&route.request_headers, &mut edits);
    }
    head::apply_to_request(edits, request, false)
}

fn apply_route_changes<'a>(changes: &'a RequestHeaders, edits: &mut RequestEdits<'a>) {
    for name in &changes.remove {
        edits.remove(name.clone());
    }
    for (name, value) in &changes.set {
        edits.set(name, value.clone());
    }
}
