//! The request head that a server gets: edits to the copy that Pingora makes for each attempt.

use http::{HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::{Error, Result};

use crate::message::{RequestEdits, RequestView, WrittenName};
use crate::persistence::issue::ask_readable;
use crate::pool::health::host_of;
use crate::pool::server::Server;
use crate::pool::tls_failure::NO_HTTP2;
use crate::proxy::context::RequestContext;
use crate::proxy::head;
use crate::proxy::hook::{self, HookFuture};
use crate::proxy::request::strip_token::strip_token;
use crate::routing::RequestHeaders;

/// `Host`.
static HOST: WrittenName = WrittenName::new("Host", "host");

/// The hook.
pub(crate) fn run<'hook>(
    request: &'hook mut RequestHeader,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<()>> {
    // Pingora falls back to HTTP/1.1 where the server does not agree to HTTP/2.
    if ctx.attempts.must_speak_h2 && request.version != Version::HTTP_2 {
        let error = Error::explain(NO_HTTP2, "the server does not agree to HTTP/2");
        return hook::done(Err(error.into_up()));
    }
    match change(request, ctx, false) {
        Some(changed) => hook::done(changed),
        None => Box::pin(fetch_and_change(request, ctx)),
    }
}

/// Session data that another proxy keeps has to be fetched before it is injected.
async fn fetch_and_change(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    Box::pin(sessions.fetch_handoff(&scope, state)).await;
    change(request, ctx, true).unwrap_or(Ok(()))
}

/// `None`: session data has to be fetched first.
fn change(request: &mut RequestHeader, ctx: &mut RequestContext, fetched: bool) -> Option<Result<()>> {
    if let Some(progress) = &ctx.body_progress {
        progress.await_piece();
    }
    let mut edits = RequestEdits::default();
    if !collect(head::view(request), ctx, fetched, &mut edits) {
        return None;
    }
    Some(head::apply_to_request(&mut edits, request, false))
}

/// Collects what is changed for the current attempt. False: session data has to be fetched first.
pub(crate) fn collect<'a>(
    request: RequestView<'_>,
    ctx: &'a mut RequestContext,
    fetched: bool,
    edits: &mut RequestEdits<'a>,
) -> bool {
    let host = if ctx.host_missing { ctx.server().and_then(host) } else { None };
    let (sessions, scope, state) = ctx.sessions(request);
    if !fetched && !sessions.has_handoff(&scope, state) {
        return false;
    }
    strip_token(&request, state.persistence(&scope), edits);
    ask_readable(&scope, state, edits);
    sessions.inject_handoff(&request, &scope, state, edits);
    if let Some(host) = host {
        edits.set(&HOST, host);
    }
    // Last, so that operators can override what the proxy sets.
    if let Some(route) = scope.route {
        apply_route_changes(&route.request_headers, edits);
    }
    true
}

/// The server's address: HTTP/1.1 needs a Host, and a request of HTTP/1.0 need not have one.
fn host(server: &Server) -> Option<HeaderValue> {
    HeaderValue::try_from(host_of(&server.address)).ok()
}

fn apply_route_changes<'a>(changes: &'a RequestHeaders, edits: &mut RequestEdits<'a>) {
    for name in &changes.remove {
        edits.remove(name.clone());
    }
    for (name, value) in &changes.set {
        edits.set(name, value.clone());
    }
}
