//! Fuzz subject: addresses, queries and bodies of the admin API.

use http::{HeaderMap, HeaderValue, Method, header};

use super::api;
use super::request::AdminRequest;
use crate::fuzz::choice;

/// Every address, query and body is read or refused with a status of the client's fault; nothing of it is lost.
pub fn admin(data: &[u8]) {
    let (method, rest) = choice(data);
    let method = [Method::GET, Method::POST, Method::PATCH, Method::DELETE][usize::from(method) % 4].clone();
    let mut lines = rest.splitn(2, |byte| *byte == b'\n');
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let request = AdminRequest {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        host: "localhost:9900".to_owned(),
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
        body: lines.next().unwrap_or_default().to_vec(),
    };
    match request.segments() {
        Ok(segments) => {
            assert_eq!(segments.len(), path.trim_start_matches('/').split('/').count(), "a segment is lost or split");
            let segments: Vec<_> = segments.iter().map(String::as_str).collect();
            api::fuzz::resource(&request, &segments);
        }
        Err(problem) => assert_eq!(problem.status, 400),
    }
    api::fuzz::parts(&request);
}
