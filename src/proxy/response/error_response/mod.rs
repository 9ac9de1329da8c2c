//! Error pages: what the proxy responds when no server does, in the format that the client asks for.

use http::{HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::message::{Fields, OwnResponse};
use crate::persistence::Outcome;

use self::body::Contents;
use self::format::Format;

mod body;
mod format;
mod sentence;

/// What an error page is about.
#[derive(Debug)]
pub(crate) struct ErrorPage<'a> {
    pub(crate) status: StatusCode,
    /// What the request means to its session.
    pub(crate) outcome: Option<Outcome>,
    /// Why the request is refused: the label of a `Refusal`.
    pub(crate) reason: Option<&'static str>,
    pub(crate) request_id: Option<&'a str>,
    /// Seconds for `Retry-After`; 0 = as is usual for the status.
    pub(crate) retry_after: u16,
    /// Set-Cookie values that delete the client's token.
    pub(crate) clear_cookies: SmallVec<[HeaderValue; 2]>,
}

/// The error page for a request with these fields.
pub(crate) fn error_response(request: Fields<'_>, page: ErrorPage<'_>) -> OwnResponse {
    let ErrorPage { status, outcome, reason, request_id, retry_after, clear_cookies } = page;
    let format = Format::accepted(request);
    let body = format.write(&Contents { status, sentence: sentence::sentence(status, outcome, reason), request_id });
    let mut fields = SmallVec::new();
    fields.push((header::CONTENT_TYPE, format.content_type()));
    fields.push((header::CONTENT_LENGTH, HeaderValue::from(body.len())));
    fields.push((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    // Text stays text, whatever request id a trusted proxy sends.
    fields.push((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
    if retry_after > 0 {
        fields.push((header::RETRY_AFTER, HeaderValue::from(retry_after)));
    } else if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.push((header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")));
    }
    fields.extend(clear_cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
    OwnResponse { status, fields, body }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn respond(status: u16, reason: Option<&'static str>, clear_cookie: Option<&'static str>) -> OwnResponse {
        let page = ErrorPage {
            status: StatusCode::from_u16(status).unwrap(),
            outcome: None,
            reason,
            request_id: Some("id-1"),
            retry_after: 0,
            clear_cookies: clear_cookie.map(HeaderValue::from_static).into_iter().collect(),
        };
        error_response(Fields::Parsed(&[]), page)
    }

    fn field(response: &OwnResponse, name: &str) -> Option<String> {
        let found = response.fields.iter().find(|(field, _)| field.as_str() == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_error_page_says_what_happened_and_is_not_cached() {
        let response = respond(404, Some("no_route"), None);
        assert_eq!(response.status, StatusCode::NOT_FOUND);
        assert_eq!(response.body, "404 Not Found\nNo route matches this request.\nRequest id: id-1\n");
        assert_eq!(field(&response, "content-type").unwrap(), "text/plain; charset=utf-8");
        assert_eq!(field(&response, "cache-control").unwrap(), "no-store");
        assert_eq!(field(&response, "set-cookie"), None);
    }

    #[test]
    fn some_statuses_come_with_a_field_of_their_own() {
        assert!(field(&respond(405, Some("method"), None), "allow").is_some());
        assert!(field(&respond(503, None, None), "retry-after").is_some());
        let cleared = respond(400, Some("forged_token"), Some("SESSIONID=; Max-Age=0"));
        assert_eq!(field(&cleared, "set-cookie").unwrap(), "SESSIONID=; Max-Age=0");
    }

    proptest! {
        #[test]
        fn the_length_is_that_of_the_body(status in 400u16..600, accept in "[a-z/+*, ;=.]{0,30}") {
            let fields = [httparse::Header { name: "Accept", value: accept.as_bytes() }];
            let page = ErrorPage {
                status: StatusCode::from_u16(status).unwrap(),
                outcome: None,
                reason: None,
                request_id: None,
                retry_after: 0,
                clear_cookies: SmallVec::new(),
            };
            let response = error_response(Fields::Parsed(&fields), page);
            prop_assert_eq!(field(&response, "content-length").unwrap(), response.body.len().to_string());
            prop_assert!(!response.body.is_empty());
        }
    }
}
