//! Header names in lower case.
//!
//! The case of a header's name means nothing (RFC 9110, section 5.1), and HTTP/2 and HTTP/3 have lower case only. Pingora keeps
//! how HTTP/1 wrote each name in a second map, so that a header costs twice whenever it is cloned, added, removed or
//! written. Unless a pool asks for it (`connection.preserve_header_case`), that map is let go before Pingora clones it.

use std::borrow::Cow;

use crate::message::WrittenName;
use crate::proxy::context::RequestContext;
use http::{HeaderValue, request, response};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

/// `Cookie`.
pub(crate) static COOKIE: WrittenName = WrittenName::new("Cookie", "cookie");

/// Whether the request's names, and those of its answer, go on in lower case. Handshakes of other protocols are left as they
/// are: not every client of WebSocket reads its answer as HTTP.
pub(crate) fn is_lowered(ctx: &RequestContext) -> bool {
    !ctx.upgrade && ctx.pool_runtime().is_some_and(|plan| !plan.preserve_header_case)
}

/// Lets go of how a request's names were written, and sets fields of it.
pub(crate) fn lower_request<'a>(
    request: &mut RequestHeader,
    fields: impl IntoIterator<Item = (&'a WrittenName, HeaderValue)>,
) -> Result<()> {
    if !is_in_parts(request) {
        return set(request, fields);
    }
    with_parts(request, fields);
    Ok(())
}

/// Lets go of how an answer's names were written.
pub(crate) fn lower_answer(answer: &mut ResponseHeader) -> Result<()> {
    if !answer.has_case() {
        return Ok(());
    }
    // A phrase of the server's own is kept beside the parts.
    let usual = answer.status.canonical_reason();
    let phrase = answer.get_reason_phrase().filter(|phrase| Some(*phrase) != usual).map(str::to_owned);
    let (nothing, ()) = http::Response::new(()).into_parts();
    let parts = response::Parts::from(std::mem::replace(answer, ResponseHeader::from(nothing)));
    *answer = ResponseHeader::from(parts);
    match phrase {
        Some(phrase) => answer.set_reason_phrase(Some(&phrase)),
        None => Ok(()),
    }
}

/// Sets fields of a request.
pub(crate) fn set<'a>(
    request: &mut RequestHeader,
    fields: impl IntoIterator<Item = (&'a WrittenName, HeaderValue)>,
) -> Result<()> {
    if request.has_case() || !is_in_parts(request) {
        for (name, value) in fields {
            match name.written {
                Cow::Borrowed(written) => request.insert_header(written, value)?,
                Cow::Owned(ref written) => request.insert_header(written.clone(), value)?,
            }
        }
        return Ok(());
    }
    with_parts(request, fields);
    Ok(())
}

/// A target that is not a path is kept beside the parts, and stays only where it is.
fn is_in_parts(request: &RequestHeader) -> bool {
    request.uri.path_and_query().is_some_and(|target| target.as_str().as_bytes() == request.raw_path())
}

/// Pingora's own way makes each name anew, from text.
fn with_parts<'a>(request: &mut RequestHeader, fields: impl IntoIterator<Item = (&'a WrittenName, HeaderValue)>) {
    let (nothing, ()) = http::Request::new(()).into_parts();
    let mut parts = request::Parts::from(std::mem::replace(request, RequestHeader::from(nothing)));
    for (name, value) in fields {
        parts.headers.insert(name.name.clone(), value);
    }
    *request = RequestHeader::from(parts);
}
