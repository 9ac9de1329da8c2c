//! The body of a page whose links are rewritten, piece by piece.

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};

use crate::persistence::issue::PageRewriteError;
use crate::proxy::context::RequestContext;

/// The next piece of a body on its way to the client.
pub(crate) fn pass(body: &mut Option<Bytes>, end: bool, ctx: &mut RequestContext) -> Result<()> {
    let Some(page) = ctx.page.as_mut().map(parking_lot::Mutex::get_mut) else { return Ok(()) };
    let mut out = match body.take() {
        Some(piece) => page.write(&piece).map_err(translate)?,
        None => Vec::new(),
    };
    if end && let Some(page) = ctx.page.take() {
        out.extend(page.into_inner().end().map_err(translate)?);
    }
    if !out.is_empty() || end {
        *body = Some(Bytes::from(out));
    }
    Ok(())
}

#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's errors")]
fn translate(error: PageRewriteError) -> Box<Error> {
    match error {
        PageRewriteError::Damaged(error) => {
            Error::because(ErrorType::ReadError, "a compressed page that cannot be read", error).into_up()
        }
        PageRewriteError::Rewriter(error) => {
            Error::because(ErrorType::InternalError, "a page whose links cannot be rewritten", error).into_in()
        }
    }
}
