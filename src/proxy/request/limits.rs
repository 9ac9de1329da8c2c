//! The limits of request bodies: their size, and the time that they may take.

use std::time::Duration;

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};

use crate::telemetry::metrics::Rejection;

use crate::proxy::context::{Refusal, RequestContext};

/// How long the rest of a body that is not used is read.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts a piece of the body. Each attempt sends the body from its first byte, and resets the count.
pub(crate) fn check_body(body: Option<&Bytes>, end: bool, ctx: &mut RequestContext) -> Result<()> {
    if let Some(progress) = &ctx.body_progress {
        if end || ctx.attempts.responded.is_some() { progress.await_nothing() } else { progress.await_piece() }
    }
    let Some(body) = body else { return Ok(()) };
    ctx.body_bytes += body.len() as u64;
    if ctx.max_body.is_none_or(|limit| ctx.body_bytes <= limit) {
        return Ok(());
    }
    ctx.app().metrics.rejected.inc(Rejection::BodyTooLarge as usize);
    ctx.refusal = Some(Refusal::new(413, Rejection::BodyTooLarge.label()));
    Error::e_explain(ErrorType::HTTPStatus(413), "request body larger than max_body_size")
}
