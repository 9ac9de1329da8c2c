//! The adapter between Pingora's heads and plain data: views of them, and edits carried out on them.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{Uri, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::message::{CookieEdit, Fields, RequestEdits, RequestView, ResponseEdits, ResponseView};

use super::header_case;

/// A request head of Pingora, to read.
pub(crate) fn view(request: &RequestHeader) -> RequestView<'_> {
    RequestView {
        method: &request.method,
        target: request.raw_path(),
        path: request.uri.path(),
        query: request.uri.query(),
        authority: request.uri.authority().map(http::uri::Authority::as_str),
        version: request.version,
        fields: Fields::Map(&request.headers),
    }
}

/// A response head of Pingora, to read.
pub(crate) fn response_view(response: &ResponseHeader) -> ResponseView<'_> {
    ResponseView { status: response.status, fields: Fields::Map(&response.headers) }
}

/// Carries out edits on a request. `lower`: names go on in lower case.
pub(crate) fn apply_to_request(edits: RequestEdits<'_>, request: &mut RequestHeader, lower: bool) -> Result<()> {
    let RequestEdits { target, remove, cookie, set } = edits;
    if let Some(target) = &target {
        set_target(request, target)?;
    }
    for name in &remove {
        request.remove_header(name);
    }
    let cookie = match cookie {
        CookieEdit::Keep => None,
        CookieEdit::Remove => {
            request.remove_header(&header::COOKIE);
            None
        }
        CookieEdit::Set(value) => Some((&header_case::COOKIE, value)),
    };
    if lower {
        header_case::lower_request(request, cookie.into_iter().chain(set))
    } else if cookie.is_some() || !set.is_empty() {
        header_case::set(request, cookie.into_iter().chain(set))
    } else {
        Ok(())
    }
}

/// Carries out edits on a response.
pub(crate) fn apply_to_response(edits: ResponseEdits<'_>, response: &mut ResponseHeader) -> Result<()> {
    let ResponseEdits { remove, set, append } = edits;
    for name in &remove {
        response.remove_header(name);
    }
    for (name, value) in set {
        match name.written {
            Cow::Borrowed(written) => response.insert_header(written, value)?,
            Cow::Owned(ref written) => response.insert_header(written.clone(), value)?,
        }
    }
    for (name, value) in append {
        match name.written {
            Cow::Borrowed(written) => response.append_header(written, value)?,
            Cow::Owned(ref written) => response.append_header(written.clone(), value)?,
        };
    }
    Ok(())
}

/// HTTP/2 has the authority in the target, and that stays.
fn set_target(request: &mut RequestHeader, target: &str) -> Result<()> {
    if request.uri.authority().is_none() {
        return request.set_raw_path(target.as_bytes());
    }
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        request.set_uri(uri);
    }
    Ok(())
}
