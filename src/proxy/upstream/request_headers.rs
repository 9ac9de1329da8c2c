//! What this server gets to see: on the copy that Pingora makes for each attempt.

use std::sync::Arc;

use pingora::Result;
use pingora::http::RequestHeader;

use crate::message::RequestEdits;
use crate::persistence::issue::ask_readable;
use crate::proxy::context::RequestContext;
use crate::proxy::head;
use crate::proxy::hook::{self, Hook};
use crate::proxy::request::strip_token::strip_token;
use crate::routing::RequestHeaders;

/// The hook.
pub(crate) fn run<'hook>(request: &'hook mut RequestHeader, ctx: &'hook mut RequestContext) -> Hook<'hook, Result<()>> {
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    if sessions.has_handoff(&scope, state) {
        return hook::done(change(request, ctx));
    }
    Box::pin(fetch_and_change(request, ctx))
}

/// Another proxy has what is to be injected.
async fn fetch_and_change(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    Box::pin(sessions.fetch_handoff(&scope, state)).await;
    change(request, ctx)
}

fn change(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    // Held for the edits, which name headers of the configuration.
    let (runtime, route) = (Arc::clone(&ctx.runtime), ctx.route);
    let view = head::view(request);
    let (sessions, scope, state) = ctx.sessions(view);
    let mut edits = RequestEdits::default();
    strip_token(&view, state.persistence(&scope), &mut edits);
    ask_readable(&scope, state, &mut edits);
    sessions.inject_handoff(&view, &scope, state, &mut edits);
    // Last of all, so that an operator can overrule what the proxy says.
    if let Some(route) = runtime.router.plan(route) {
        change_as_route_says(&route.request_headers, &mut edits);
    }
    head::apply_to_request(edits, request, false)
}

fn change_as_route_says<'a>(changes: &'a RequestHeaders, edits: &mut RequestEdits<'a>) {
    for name in &changes.remove {
        edits.remove(name.clone());
    }
    for (name, value) in &changes.set {
        edits.set(name, value.clone());
    }
}
