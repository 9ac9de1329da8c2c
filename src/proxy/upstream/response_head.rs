//! A server has responded: now, and not before, a session that moved belongs to it, and the ids that it issues are learned.

use std::time::Instant;

use http::StatusCode;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session as Exchange;

use crate::pool::ServerIndex;
use crate::pool::live_state::OpenStream;
use crate::proxy::context::RequestContext;
use crate::proxy::hook::{self, HookFuture};
use crate::proxy::{head, header_case};

use super::dedicated;
use super::normalize::normalize;

/// The hook. Runs for every 1xx too; the first final head (or a switch of protocols) counts.
pub(crate) fn run<'hook>(
    exchange: &'hook Exchange,
    response: &'hook mut ResponseHeader,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<()>> {
    match normalize(response, ctx.upgrade) {
        Ok(between_servers) => ctx.attempts.between_servers = between_servers,
        Err(error) => return hook::now(Err(error)),
    }
    if header_case::is_lowered(ctx)
        && let Err(error) = header_case::lower_response(response)
    {
        return hook::now(Err(error));
    }
    if ctx.attempts.responded.is_some() || !head::response_view(response).is_final() {
        return hook::done(Ok(()));
    }
    note_response(response.status, ctx);
    if let Some(progress) = &ctx.body_progress {
        // Both directions of a stream may be open for hours.
        progress.await_nothing();
    }
    let ends = dedicated::note_response(exchange, response, ctx);
    let Some(server) = ctx.attempts.server else { return hook::done(Ok(())) };
    let request = exchange.req_header();
    if ends {
        return Box::pin(end_and_commit(request, response, server, ctx));
    }
    if ctx.session.has_nothing_to_commit(ctx.persistence()) {
        return hook::done(Ok(()));
    }
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    if sessions.try_commit(&head::response_view(response), server, &scope, state) {
        return hook::done(Ok(()));
    }
    Box::pin(commit(request, response, server, ctx))
}

/// The connection is ended before Pingora can pool it.
async fn end_and_commit(
    request: &RequestHeader,
    response: &ResponseHeader,
    server: ServerIndex,
    ctx: &mut RequestContext,
) -> Result<()> {
    dedicated::end_bodyless(ctx).await?;
    commit(request, response, server, ctx).await
}

fn note_response(status: StatusCode, ctx: &mut RequestContext) {
    let now = Instant::now();
    let waited = ctx.note_response(now);
    let Some(server) = ctx.server() else { return };
    let took = ctx
        .attempts
        .started
        .map(|started| if started == ctx.started { waited } else { now.saturating_duration_since(started) });
    server.live.metrics.response(status.as_u16(), took);
    if server.live.connected()
        && let Some(runtime) = ctx.pool_runtime()
    {
        let (pool, server) = (&runtime.pool.name, &server.name);
        tracing::info!(%pool, %server, "server accepts connections again");
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let stream = OpenStream::begin(&server.live);
        ctx.attempts.stream = Some(stream);
    }
}

/// The shared store must be written first.
async fn commit(
    request: &RequestHeader,
    response: &ResponseHeader,
    server: ServerIndex,
    ctx: &mut RequestContext,
) -> Result<()> {
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    sessions.commit(&head::response_view(response), server, &scope, state).await;
    Ok(())
}
