//! Responses of the admin listener.

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::dashboard::{Asset, CONTENT_SECURITY_POLICY};
use super::problem::Problem;

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

pub(super) fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    of(status, TEXT, body.as_bytes().to_vec())
}

pub(super) fn metrics(body: Vec<u8>) -> Response<Vec<u8>> {
    of(StatusCode::OK, PROMETHEUS, body)
}

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    of(status, JSON, body)
}

pub(super) fn no_content() -> Response<Vec<u8>> {
    let mut response = of(StatusCode::NO_CONTENT, JSON, Vec::new());
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    response
}

pub(super) fn asset(asset: &Asset) -> Response<Vec<u8>> {
    let mut response = of(StatusCode::OK, asset.content_type, asset.text.as_bytes().to_vec());
    let fields = [
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

pub(super) fn problem(problem: &Problem) -> Response<Vec<u8>> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = of(status, PROBLEM, serde_json::to_vec(problem).unwrap_or_default());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"homing\""));
    }
    if let Some(allow) = problem.allow {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// The head of a stream of server-sent events.
pub(super) fn event_stream() -> Response<Vec<u8>> {
    let mut response = of(StatusCode::OK, "text/event-stream", Vec::new());
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

fn of(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
