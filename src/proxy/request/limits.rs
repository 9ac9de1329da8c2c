//! What a request may be: its head by length and number of fields, its body by bytes and time, and how often its client asks
//! and begins sessions.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Version, header};
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session as Exchange;

use crate::limits::ListenerLimits;
use crate::message::{Fields, RequestView};
use crate::persistence::{NewSession, RequestSession, Scope};
use crate::telemetry::metrics::{Direction, Limit, Rejection};

use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::context::{BodyProgress, Refusal, RequestContext};
use crate::proxy::response::status;

/// How long the rest of a body that is not used is read.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks the length of the target and the number of fields.
pub(crate) fn check_head(request: &RequestView<'_>, limits: &ListenerLimits) -> std::result::Result<(), Rejection> {
    let Some((limit, rejection)) = exceeded(request, limits) else { return Ok(()) };
    limits.limited.inc(limit);
    Err(rejection)
}

/// The limit that a head exceeds, if any. Counts nothing.
pub(crate) fn exceeded(request: &RequestView<'_>, limits: &ListenerLimits) -> Option<(Limit, Rejection)> {
    if request.target().len() > limits.config.max_uri_length.bytes() {
        return Some((Limit::MaxUriLength, Rejection::MaxUriLength));
    }
    let most = usize::try_from(limits.config.max_headers).unwrap_or(usize::MAX);
    let has_too_many = request.fields.count() > most && count_fields(request.version, request.fields) > most;
    has_too_many.then_some((Limit::MaxHeaders, Rejection::MaxHeaders))
}

/// Clients of HTTP/2 may send each cookie in a field of its own (RFC 9113, section 8.2.3), and browsers do.
fn count_fields(version: Version, fields: Fields<'_>) -> usize {
    let cookies = if version == Version::HTTP_2 { fields.all(&header::COOKIE).count() } else { 0 };
    fields.count() - cookies.saturating_sub(1)
}

/// Counts the session that a request begins, if it does. False: it would be one too many.
pub(crate) fn admit_session(
    limits: &ListenerLimits,
    began: Instant,
    scope: &Scope<'_, '_>,
    state: &mut RequestSession,
) -> bool {
    match state.new_session(scope) {
        NewSession::No => true,
        NewSession::Certain => limits.admit_session(scope.client, began),
        NewSession::Possible => {
            state.counts_when_created = true;
            limits.may_begin_session(scope.client, began)
        }
    }
}

/// Counts the session that a response has begun, when the request alone did not show it.
pub(crate) fn note_session(ctx: &mut RequestContext) {
    if !ctx.session.counts_when_created || ctx.session.created.is_none() {
        return;
    }
    ctx.session.counts_when_created = false;
    if let Some(limits) = ctx.limits() {
        limits.note_session(ctx.client.address, Instant::now());
    }
}

/// Counts a piece of the body. Each attempt sends the body from its first byte, and resets the count.
pub(crate) fn check_body(body: Option<&Bytes>, end: bool, ctx: &mut RequestContext) -> Result<()> {
    if let Some(progress) = &ctx.body_progress {
        if end || ctx.attempts.responded.is_some() { progress.await_nothing() } else { progress.await_piece() }
    }
    let Some(body) = body else { return Ok(()) };
    count_request_bytes(body.len(), ctx);
    if ctx.max_body.is_none_or(|limit| ctx.body_bytes <= limit) {
        return Ok(());
    }
    ctx.app().metrics.rejected.inc(Rejection::BodyTooLarge as usize);
    ctx.refusal = Some(Refusal::new(413, Rejection::BodyTooLarge.label()));
    Error::e_explain(ErrorType::HTTPStatus(413), "request body larger than max_body_size")
}

/// The least rate of the request's body holds from now on. `expects_continue`: the client waits with its body for a 100.
pub(crate) fn begin_body(exchange: &Exchange, limits: &ListenerLimits, fields: Fields<'_>, ctx_limited: &mut bool) {
    let Some(rate) = limits.config.min_body_rate else { return };
    if let Some(connection) = DeadlineStream::of(exchange) {
        connection.limit_body_rate(rate, fields.contains(&header::EXPECT));
        *ctx_limited = true;
    }
}

/// The response begins: both directions of a stream may be open for hours.
pub(crate) fn lift_body_rate(exchange: &Exchange, ctx: &mut RequestContext) {
    if std::mem::take(&mut ctx.body_rate_limited)
        && let Some(connection) = DeadlineStream::of(exchange)
    {
        connection.lift_body_rate();
    }
}

/// Whether a request has failed since its body arrived too slowly.
pub(crate) fn is_body_slow(error: &Error, ctx: &RequestContext) -> bool {
    ctx.body_progress.as_ref().is_some_and(BodyProgress::is_slow) || status::is_body_slow(error)
}

/// Refuses a request whose body arrived too slowly.
pub(crate) fn note_slow_body(ctx: &mut RequestContext) {
    if let Some(limits) = ctx.limits() {
        limits.limited.inc(Limit::MinBodyRate);
    }
    refuse_body(Rejection::MinBodyRate, ctx);
}

/// Refuses a request whose body stopped.
pub(crate) fn note_body_timeout(ctx: &mut RequestContext) {
    refuse_body(Rejection::BodyTimeout, ctx);
}

fn refuse_body(rejection: Rejection, ctx: &mut RequestContext) {
    ctx.app().metrics.rejected.inc(rejection as usize);
    tracing::debug!(client = ctx.client.address.map(display), reason = rejection.label(), "request rejected");
    ctx.refusal = Some(Refusal::new(status::of_rejection(rejection), rejection.label()));
}

/// Counts bytes of the body that go to a server.
pub(crate) fn count_request_bytes(count: usize, ctx: &mut RequestContext) {
    ctx.body_bytes += count as u64;
    // What an earlier attempt has sent is not counted twice.
    if let Some(fresh) = ctx.body_bytes.checked_sub(ctx.body_bytes_counted) {
        ctx.body_bytes_counted = ctx.body_bytes;
        if let Some(pool) = ctx.pool_runtime() {
            pool.metrics.bytes.add(Direction::In, fresh);
        }
        if let Some(progress) = &ctx.body_progress {
            progress.receive(fresh);
        }
    }
}

/// Counts a piece of a response's body.
pub(crate) fn count_response(body: Option<&Bytes>, ctx: &RequestContext) {
    if let Some(body) = body {
        count_response_bytes(body.len(), ctx);
    }
}

/// The same by its length.
pub(crate) fn count_response_bytes(count: usize, ctx: &RequestContext) {
    if let Some(pool) = ctx.pool_runtime() {
        pool.metrics.bytes.add(Direction::Out, count as u64);
    }
}
