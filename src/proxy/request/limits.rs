//! The body on its way up: counted, and cut off when it is too large.

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};

use crate::telemetry::metrics::Rejection;

use crate::proxy::context::{Refusal, RequestContext};

/// The hook. A retry begins with the body's first byte again, and so does the count.
pub(crate) fn run(body: Option<&Bytes>, ctx: &mut RequestContext) -> Result<()> {
    let Some(body) = body else { return Ok(()) };
    ctx.body_bytes += body.len() as u64;
    if ctx.max_body.is_none_or(|most| ctx.body_bytes <= most) {
        return Ok(());
    }
    ctx.app().metrics.rejected.inc(Rejection::BodyTooLarge as usize);
    ctx.refusal = Some(Refusal::new(413, Rejection::BodyTooLarge.label()));
    Error::e_explain(ErrorType::HTTPStatus(413), "body larger than max_body_size")
}
