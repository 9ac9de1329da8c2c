//! Header names in lower case.
//!
//! The case of a header name means nothing (RFC 9110, section 5.1), and HTTP/2 and HTTP/3 have lower case only. Pingora
//! keeps how HTTP/1 peers wrote each name in a second map, so a header costs twice whenever it is cloned, added, removed or
//! written. Unless a pool asks for it (`connection.preserve_header_case`), that map is dropped before Pingora clones it.

use std::borrow::Cow;

use crate::message::WrittenName;
use crate::proxy::context::RequestContext;
use http::{HeaderValue, request, response};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

/// Whether the names of the request, and of its response, are forwarded in lower case. Upgrades are left as they are: not
/// every WebSocket client reads the names of the response regardless of case.
pub(crate) fn is_lowered(ctx: &RequestContext) -> bool {
    !ctx.upgrade && ctx.pool_runtime().is_some_and(|plan| !plan.preserve_header_case)
}

/// Drops how the names of a request were written, and sets fields of it.
pub(crate) fn lower_request<'a>(
    request: &mut RequestHeader,
    fields: impl Iterator<Item = (&'a WrittenName, HeaderValue)>,
) -> Result<()> {
    if !is_in_parts(request) {
        return set(request, fields);
    }
    with_parts(request, fields);
    Ok(())
}

/// Drops how the names of a response were written.
pub(crate) fn lower_response(response: &mut ResponseHeader) -> Result<()> {
    if response.has_case() { with_response_parts(response, |_| {}) } else { Ok(()) }
}

/// Changes the parts of a response, and drops how its names were written.
pub(crate) fn with_response_parts(
    response: &mut ResponseHeader,
    change: impl FnOnce(&mut response::Parts),
) -> Result<()> {
    // A reason phrase other than the usual one is not in the parts.
    let usual = response.status.canonical_reason();
    let phrase = response.get_reason_phrase().filter(|phrase| Some(*phrase) != usual).map(str::to_owned);
    let (nothing, ()) = http::Response::new(()).into_parts();
    let mut parts = response::Parts::from(std::mem::replace(response, ResponseHeader::from(nothing)));
    change(&mut parts);
    *response = ResponseHeader::from(parts);
    match phrase {
        Some(phrase) => response.set_reason_phrase(Some(&phrase)),
        None => Ok(()),
    }
}

/// Sets fields of a request.
pub(crate) fn set<'a>(
    request: &mut RequestHeader,
    fields: impl Iterator<Item = (&'a WrittenName, HeaderValue)>,
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

/// Whether the parts have all of the request: Pingora keeps a target that is not a path outside of them.
fn is_in_parts(request: &RequestHeader) -> bool {
    request.uri.path_and_query().is_some_and(|target| target.as_str().as_bytes() == request.raw_path())
}

/// Pingora's own methods would parse each name from text.
fn with_parts<'a>(request: &mut RequestHeader, fields: impl Iterator<Item = (&'a WrittenName, HeaderValue)>) {
    let (nothing, ()) = http::Request::new(()).into_parts();
    let mut parts = request::Parts::from(std::mem::replace(request, RequestHeader::from(nothing)));
    for (name, value) in fields {
        parts.headers.insert(name.name.clone(), value);
    }
    *request = RequestHeader::from(parts);
}
