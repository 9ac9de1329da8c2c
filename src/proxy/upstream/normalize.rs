//! A server's response head in the form that clients get: what is about the server's connection stays here, and the length of
//! the body is said once and in one way.
//!
//! One walk over the fields says whether there is anything to do.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::ErrorType::InvalidHTTPHeader;
use pingora::http::ResponseHeader;
use pingora::{Error, Result};
use smallvec::SmallVec;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What the walk over the fields found.
#[derive(Debug, Default, Clone, Copy)]
struct ResponseScan {
    /// `Connection` names fields, or options that are none of the usual.
    nominates: bool,
    connection: bool,
    keep_alive: bool,
    proxy_connection: bool,
    upgrade: bool,
    lengths: u8,
    /// A length is a list of lengths.
    listed: bool,
    encodings: u8,
    /// A transfer coding other than chunked.
    unknown_encoding: bool,
    /// Fields between servers and the proxy.
    between_servers: bool,
}

impl ResponseScan {
    fn of(response: &ResponseHeader) -> Self {
        let mut scan = Self::default();
        for (name, value) in &response.headers {
            scan.note(name, value.as_bytes());
        }
        scan
    }

    fn note(&mut self, name: &HeaderName, value: &[u8]) {
        match *name {
            header::CONTENT_LENGTH => {
                self.lengths = self.lengths.saturating_add(1);
                self.listed |= value.is_empty() || !value.iter().all(u8::is_ascii_digit);
            }
            header::CONNECTION => {
                self.connection = true;
                self.nominates |= nominates(value);
            }
            header::TRANSFER_ENCODING => {
                self.encodings = self.encodings.saturating_add(1);
                self.unknown_encoding |= !value.eq_ignore_ascii_case(b"chunked");
            }
            header::UPGRADE => self.upgrade = true,
            // What nearly every response has, and is told apart without a look at its letters.
            header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_TYPE
            | header::DATE
            | header::ETAG
            | header::EXPIRES
            | header::LAST_MODIFIED
            | header::LOCATION
            | header::SERVER
            | header::SET_COOKIE
            | header::VARY => {}
            _ => self.note_other(name.as_str()),
        }
    }

    fn note_other(&mut self, name: &str) {
        match name.as_bytes() {
            [b'h', ..] => self.between_servers |= name.starts_with("homing-"),
            [b'k', ..] => self.keep_alive |= name == KEEP_ALIVE.as_str(),
            [b'p', ..] => self.proxy_connection |= name == PROXY_CONNECTION.as_str(),
            _ => {}
        }
    }
}

/// Whether a value of Connection has more than one of the usual options.
fn nominates(value: &[u8]) -> bool {
    !(value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close"))
}

/// Normalizes a head, of a 1xx too. True when it has fields between servers and the proxy. `upgrade`: the client has asked
/// for another protocol.
pub(super) fn normalize(response: &mut ResponseHeader, upgrade: bool) -> Result<bool> {
    let scan = ResponseScan::of(response);
    let status = response.status;
    if status == StatusCode::SWITCHING_PROTOCOLS && !upgrade {
        return invalid("switches to a protocol that was not asked for");
    }
    if scan.unknown_encoding || scan.encodings > 1 {
        return invalid("unknown transfer coding");
    }
    if scan.connection || scan.keep_alive || scan.proxy_connection || scan.upgrade {
        strip_connection(response, scan);
    }
    let without_body = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if without_body && (scan.lengths > 0 || scan.encodings > 0) {
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
    } else if scan.lengths > 1 || scan.listed {
        unify_length(response)?;
    }
    Ok(scan.between_servers)
}

/// Pingora sets Connection by itself, in the last head of a response.
fn strip_connection(response: &mut ResponseHeader, scan: ResponseScan) {
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if scan.nominates {
        for name in nominated(response) {
            response.remove_header(&name);
        }
    }
    if scan.connection && !switches && (scan.nominates || response.status.is_informational()) {
        response.remove_header(&header::CONNECTION);
    }
    if scan.keep_alive {
        response.remove_header(&KEEP_ALIVE);
    }
    if scan.proxy_connection {
        response.remove_header(&PROXY_CONNECTION);
    }
    if scan.upgrade && !switches {
        response.remove_header(&header::UPGRADE);
    }
}

/// The fields that Connection names, without those that frame the message and those that are handled by themselves.
fn nominated(response: &ResponseHeader) -> SmallVec<[HeaderName; 4]> {
    let values = response.headers.get_all(header::CONNECTION).into_iter();
    let options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let names = options.filter_map(|option| HeaderName::from_bytes(option).ok());
    let kept = [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    names.filter(|name| !kept.contains(name)).collect()
}

/// Pingora has refused lengths that differ; those that are equal become one.
fn unify_length(response: &mut ResponseHeader) -> Result<()> {
    let mut length = None;
    for value in response.headers.get_all(header::CONTENT_LENGTH) {
        for element in value.as_bytes().split(|byte| *byte == b',') {
            let digits = element.trim_ascii();
            // A sign would be parsed too.
            let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
            let number = text.and_then(|text| text.parse::<u64>().ok());
            match number {
                Some(number) if length.is_none_or(|before| before == number) => length = Some(number),
                _ => return invalid("ambiguous length"),
            }
        }
    }
    match length {
        Some(length) => response.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length)),
        None => Ok(()),
    }
}

fn invalid<T>(what: &'static str) -> Result<T> {
    let mut error = Error::explain(InvalidHTTPHeader, what);
    error.as_up();
    Err(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        response
    }

    fn normalized(status: u16, fields: &[(&'static str, &str)]) -> Option<Vec<String>> {
        let mut response = head(status, fields);
        normalize(&mut response, status == 101).ok()?;
        let mut lines: Vec<_> =
            response.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        Some(lines)
    }

    #[test]
    fn what_is_about_the_servers_connection_stays_here() {
        let fields = [
            ("Connection", "keep-alive, X-Internal"),
            ("Connection", "x-other"),
            ("X-Internal", "1"),
            ("X-Other", "1"),
            ("X-Own", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Upgrade", "h2c"),
            ("Content-Length", "3"),
        ];
        assert_eq!(normalized(200, &fields).unwrap(), ["content-length: 3", "x-own: 1"]);
        let switch = [("Connection", "Upgrade, X-Internal"), ("Upgrade", "websocket"), ("X-Internal", "1")];
        assert_eq!(normalized(101, &switch).unwrap(), ["connection: Upgrade, X-Internal", "upgrade: websocket"]);
        assert_eq!(normalized(103, &[("Connection", "close"), ("Link", "<a>")]).unwrap(), ["link: <a>"]);
    }

    #[test]
    fn framing_cannot_be_named_away() {
        let fields = [("Connection", "close, Content-Length"), ("Content-Length", "3")];
        assert_eq!(normalized(200, &fields).unwrap(), ["content-length: 3"]);
    }

    #[test]
    fn a_length_is_said_once_or_the_response_is_refused() {
        for fields in [&[("Content-Length", "5"), ("Content-Length", "5")] as &[_], &[("Content-Length", "5, 5")]] {
            assert_eq!(normalized(200, fields).unwrap(), ["content-length: 5"], "{fields:?}");
        }
        for value in ["5, 6", "5,", "+5", "", "5 5"] {
            assert_eq!(normalized(200, &[("Content-Length", value)]), None, "{value}");
        }
        assert_eq!(normalized(200, &[("Content-Length", "5"), ("Content-Length", "6")]), None);
    }

    #[test]
    fn only_chunked_is_a_transfer_coding() {
        assert_eq!(normalized(200, &[("Transfer-Encoding", "Chunked")]).unwrap(), ["transfer-encoding: Chunked"]);
        for value in ["gzip, chunked", "chunked, chunked", "identity", "xchunked", ""] {
            assert_eq!(normalized(200, &[("Transfer-Encoding", value)]), None, "{value}");
        }
        assert_eq!(normalized(200, &[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]), None);
    }

    #[test]
    fn a_response_without_body_has_no_length() {
        for status in [100, 103, 204, 304] {
            for field in [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] {
                assert!(normalized(status, &[field]).unwrap().is_empty(), "{status} {field:?}");
            }
        }
    }

    #[test]
    fn an_upgrade_needs_a_request_for_it() {
        assert!(normalize(&mut head(101, &[]), false).is_err());
        assert!(normalize(&mut head(101, &[]), true).is_ok());
    }

    proptest! {
        #[test]
        fn an_ordinary_response_is_not_changed(
            names in prop::collection::vec(
                prop::sample::select(vec!["Server", "Set-Cookie", "Pragma", "Host-Id", "Kind", "X-One", "ETag"]), 0..8,
            ),
            length in 0u64..1000,
        ) {
            let length = length.to_string();
            let mut fields: Vec<_> = names.iter().map(|name| (*name, "1")).collect();
            fields.push(("Content-Length", &length));
            let before = head(200, &fields);
            let mut after = before.clone();
            prop_assert!(!normalize(&mut after, false).unwrap());
            prop_assert_eq!(&before.headers, &after.headers);
        }

        #[test]
        fn fields_between_servers_are_noticed(name in prop::sample::select(vec!["Homing-Session-Data", "homing-x"])) {
            prop_assert!(normalize(&mut head(200, &[(name, "1")]), false).unwrap());
        }
    }
}
