//! Bytes of bodies: counted, and limited in requests, as is the time that they may take.

use std::time::Duration;

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};

use crate::telemetry::metrics::{Direction, Rejection};

use crate::proxy::context::{Refusal, RequestContext};

/// How long the rest of a body that is not used is read.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Counts bytes of the body that go to a server.
pub(crate) fn count_request_bytes(count: usize, ctx: &mut RequestContext) {
    ctx.body_bytes += count as u64;
    // What an earlier attempt has sent is not counted twice.
    if let Some(fresh) = ctx.body_bytes.checked_sub(ctx.body_bytes_counted) {
        ctx.body_bytes_counted = ctx.body_bytes;
        if let Some(pool) = ctx.pool_runtime() {
            pool.metrics.bytes.add(Direction::In, fresh);
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
