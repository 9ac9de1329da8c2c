//! A server has responded: now, and not before, a session that moved belongs to it, and the ids that it issues are learned.

use std::time::Instant;

use http::{StatusCode, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session as Exchange;

use crate::message::{ResponseEdits, ResponseView};
use crate::pool::ServerIndex;
use crate::pool::live_state::OpenStream;
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::context::RequestContext;
use crate::proxy::hook::{self, HookFuture};
use crate::proxy::{head, header_case};

use super::dedicated;
use super::normalize::normalized;

/// The hook. Runs for every 1xx too; the first final head (or a switch of protocols) counts.
pub(crate) fn run<'hook>(
    exchange: &'hook Exchange,
    response: &'hook mut ResponseHeader,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<()>> {
    if let Err(error) = normalize(response, ctx) {
        return hook::now(Err(error));
    }
    if header_case::is_lowered(ctx)
        && let Err(error) = header_case::lower_response(response)
    {
        return hook::now(Err(error));
    }
    if ctx.attempts.responded.is_some() || !head::response_view(response).is_final() {
        return hook::done(Ok(()));
    }
    note_response(&head::response_view(response), ctx);
    if let Some(progress) = &ctx.body_progress {
        // Both directions of a stream may be open for hours.
        progress.await_nothing();
    }
    let authentication = DeadlineStream::authentication_of(exchange);
    let request = exchange.req_header();
    let view = head::response_view(response);
    let ends = dedicated::note_response(authentication, &request.method, &view, response.version, ctx);
    let Some(server) = ctx.attempts.server else { return hook::done(Ok(())) };
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

/// Brings a head into the form that clients get.
fn normalize(response: &mut ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    let mut edits = ResponseEdits::default();
    ctx.attempts.between_servers = normalized(&head::response_view(response), ctx.upgrade, &mut edits)?;
    if edits.is_empty() { Ok(()) } else { head::apply_to_response(&mut edits, response) }
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

/// A server has responded to the current attempt.
pub(crate) fn note_response(response: &ResponseView<'_>, ctx: &mut RequestContext) {
    let status = response.status;
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
    if status == StatusCode::SWITCHING_PROTOCOLS || is_event_stream(response) {
        let stream = OpenStream::begin(&server.live);
        ctx.attempts.stream = Some(stream);
        ctx.runtime = ctx.runtime.of_stream(ctx.session.pools());
    }
    if let Some(pool) = ctx.session.pool.and_then(|pool| ctx.runtime.pools.get(pool))
        && pool.pool.circuit_breaker.is_some()
        && let Some((server, in_flight)) = ctx.attempts.server.zip(ctx.attempts.in_flight.as_mut())
    {
        pool.pool.note_status(server, in_flight, status.as_u16(), now);
    }
}

/// A response that stays open (Server-Sent Events).
fn is_event_stream(response: &ResponseView<'_>) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let fields = response.fields;
    !fields.contains(&header::CONTENT_LENGTH)
        && fields
            .get(&header::CONTENT_TYPE)
            .and_then(|value| value.get(..EVENT_STREAM.len()))
            .is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
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
