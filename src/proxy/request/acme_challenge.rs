//! Requests of certificate authorities: `/.well-known/acme-challenge/TOKEN` (RFC 8555, section 8.3).

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use smallvec::SmallVec;

use crate::app::runtime::Runtime;
use crate::message::{OwnResponse, RequestView};

const PREFIX: &str = "/.well-known/acme-challenge/";
/// Longer than any authority's.
const MAX_TOKEN: usize = 256;

/// The token of a request that may be for a challenge; such requests take the full path. `None` where no certificate is ordered
/// by this challenge, and on listeners with TLS.
pub(crate) fn token<'a>(runtime: &Runtime, listener: usize, request: &RequestView<'a>) -> Option<&'a str> {
    if !runtime.answers_challenges || runtime.config.listeners.get(listener)?.tls.is_some() {
        return None;
    }
    of_target(request)
}

fn of_target<'a>(request: &RequestView<'a>) -> Option<&'a str> {
    let token = request.path().strip_prefix(PREFIX)?;
    let is_token = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let is_read = matches!(*request.method, Method::GET | Method::HEAD);
    (is_token && is_read && (1..=MAX_TOKEN).contains(&token.len())).then_some(token)
}

/// The response: the key authorization. `None`: it cannot be one.
pub(crate) fn response(authorization: String) -> Option<OwnResponse> {
    let length = HeaderValue::from_str(&authorization.len().to_string()).ok()?;
    let mut fields = SmallVec::new();
    fields.push((header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
    fields.push((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    fields.push((header::CONTENT_LENGTH, length));
    Some(OwnResponse { status: StatusCode::OK, fields, body: Bytes::from(authorization) })
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::message::Fields;

    #[test]
    fn only_a_request_that_reads_a_token_is_for_a_challenge() {
        let token = |method: &Method, target: &str| {
            let view = RequestView::http1(method, target.as_bytes(), Version::HTTP_11, Fields::Parsed(&[]));
            of_target(&view).map(str::to_owned)
        };
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(token(&method, "/.well-known/acme-challenge/aZ0-_?x=1").as_deref(), Some("aZ0-_"));
        }
        let long = format!("/.well-known/acme-challenge/{}", "a".repeat(257));
        for target in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/a/b",
            "/.well-known/acme-challenge/..",
            "/.well-known/acme-challenge/%41",
            "/x/.well-known/acme-challenge/a",
            "/.Well-known/acme-challenge/a",
            &long,
        ] {
            assert_eq!(token(&Method::GET, target), None, "{target}");
        }
        assert_eq!(token(&Method::POST, "/.well-known/acme-challenge/a"), None);
    }
}
