//! A server's response head in the form that clients get: what is about the server's connection stays here, and the length of
//! the body is said once and in one way.
//!
//! One walk over the fields says whether there is anything to do.

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::ErrorType::InvalidHTTPHeader;
use pingora::{Error, Result};
use smallvec::SmallVec;

use crate::message::{Fields, ResponseEdits, ResponseView, WrittenName};

static CONTENT_LENGTH: WrittenName = WrittenName::new("Content-Length", "content-length");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Numbers of so many digits are numbers of 64 bits.
const SURE_DIGITS: usize = 19;
/// Of fields between servers and the proxy.
const HOMING: &str = "homing-";

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
    /// A length is a list of lengths, or may be too large for a number.
    listed: bool,
    encodings: u8,
    /// A transfer coding other than chunked.
    unknown_encoding: bool,
    /// Fields between servers and the proxy.
    between_servers: bool,
}

impl ResponseScan {
    fn of(fields: Fields<'_>) -> Self {
        let mut scan = Self::default();
        match fields {
            Fields::Map(map) => map.iter().for_each(|(name, value)| scan.note(name, value.as_bytes())),
            Fields::Parsed(fields) => fields.iter().for_each(|field| scan.note_text(field.name, field.value)),
        }
        scan
    }

    /// The same for a name as the sender wrote it.
    fn note_text(&mut self, name: &str, value: &[u8]) {
        let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str());
        match name.len() {
            7 if is(&header::UPGRADE) => self.upgrade = true,
            10 if is(&header::CONNECTION) => self.note(&header::CONNECTION, value),
            10 => self.keep_alive |= is(&KEEP_ALIVE),
            14 if is(&header::CONTENT_LENGTH) => self.note(&header::CONTENT_LENGTH, value),
            16 if is(&PROXY_CONNECTION) => self.proxy_connection = true,
            17 if is(&header::TRANSFER_ENCODING) => self.note(&header::TRANSFER_ENCODING, value),
            _ => {}
        }
        let begins = name.get(..HOMING.len()).is_some_and(|start| start.eq_ignore_ascii_case(HOMING));
        self.between_servers |= begins;
    }

    fn note(&mut self, name: &HeaderName, value: &[u8]) {
        match *name {
            header::CONTENT_LENGTH => {
                self.lengths = self.lengths.saturating_add(1);
                self.listed |= value.is_empty() || value.len() > SURE_DIGITS || !value.iter().all(u8::is_ascii_digit);
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
            [b'h', ..] => self.between_servers |= name.starts_with(HOMING),
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

/// What is to be done to a head, of a 1xx too. True when it has fields between servers and the proxy. `upgrade`: the client has
/// asked for another protocol.
pub(crate) fn normalized(response: &ResponseView<'_>, upgrade: bool, edits: &mut ResponseEdits<'_>) -> Result<bool> {
    let scan = ResponseScan::of(response.fields);
    let status = response.status;
    if status == StatusCode::SWITCHING_PROTOCOLS && !upgrade {
        return invalid("switches to a protocol that was not asked for");
    }
    if scan.unknown_encoding || scan.encodings > 1 {
        return invalid("unknown transfer coding");
    }
    if scan.connection || scan.keep_alive || scan.proxy_connection || scan.upgrade {
        strip_connection(response, scan, edits);
    }
    let length = if scan.lengths > 1 || scan.listed { unified_length(response.fields)? } else { None };
    let without_body = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if without_body && (scan.lengths > 0 || scan.encodings > 0) {
        edits.remove.extend([header::CONTENT_LENGTH, header::TRANSFER_ENCODING]);
    } else if let Some(length) = length {
        edits.set.push((&CONTENT_LENGTH, HeaderValue::from(length)));
    }
    Ok(scan.between_servers)
}

/// Connection is set in the last head of a response, whatever its server says.
fn strip_connection(response: &ResponseView<'_>, scan: ResponseScan, edits: &mut ResponseEdits<'_>) {
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if scan.nominates {
        edits.remove.extend(nominated(response.fields));
    }
    if scan.connection && !switches && (scan.nominates || response.status.is_informational()) {
        edits.remove.push(header::CONNECTION);
    }
    if scan.keep_alive {
        edits.remove.push(KEEP_ALIVE);
    }
    if scan.proxy_connection {
        edits.remove.push(PROXY_CONNECTION);
    }
    if scan.upgrade && !switches {
        edits.remove.push(header::UPGRADE);
    }
}

/// The fields that Connection names, without those that frame the message and those that are handled by themselves.
fn nominated(fields: Fields<'_>) -> SmallVec<[HeaderName; 4]> {
    let options = fields.all(&header::CONNECTION).flat_map(|value| value.split(|byte| *byte == b','));
    let names = options.filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok());
    let kept = [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    names.filter(|name| !kept.contains(name)).collect()
}

/// Lengths that are equal become one.
fn unified_length(fields: Fields<'_>) -> Result<Option<u64>> {
    let mut length = None;
    for value in fields.all(&header::CONTENT_LENGTH) {
        for element in value.split(|byte| *byte == b',') {
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
    Ok(length)
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
    use crate::proxy::head::{apply_to_response, response_view};
    use pingora::http::ResponseHeader;

    fn normalize(response: &mut ResponseHeader, upgrade: bool) -> Result<bool> {
        let mut edits = ResponseEdits::default();
        let between_servers = super::normalized(&response_view(response), upgrade, &mut edits)?;
        apply_to_response(&mut edits, response)?;
        Ok(between_servers)
    }

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
        for value in ["5, 6", "5,", "+5", "", "5 5", "99999999999999999999"] {
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
        fn a_header_map_and_a_parsed_head_are_treated_alike(
            fields in prop::collection::vec(
                prop::sample::select(vec![
                    ("Connection", "close"), ("CONNECTION", "keep-alive, X-A"), ("X-A", "1"), ("Keep-Alive", "timeout=5"),
                    ("Content-Length", "5"), ("content-length", "5, 5"), ("Transfer-Encoding", "chunked"),
                    ("Transfer-Encoding", "gzip"), ("Upgrade", "h2c"), ("Proxy-Connection", "close"), ("Server", "x"),
                    ("Homing-Session-Data", "1"), ("Set-Cookie", "a=1"), ("X-Sixteen-Letters", "1"), ("Keep-Alibi", "1"),
                ]),
                0..7,
            ),
            status in prop::sample::select(vec![200u16, 204, 304, 103, 101]),
        ) {
            let map = head(status, &fields);
            let parsed: Vec<_> =
                fields.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
            let parsed = ResponseView { status: map.status, fields: Fields::Parsed(&parsed) };
            let (mut one, mut other) = (ResponseEdits::default(), ResponseEdits::default());
            let results = (super::normalized(&response_view(&map), true, &mut one), super::normalized(&parsed, true, &mut other));
            prop_assert_eq!(results.0.is_ok(), results.1.is_ok());
            if let (Ok(between), Ok(same)) = results {
                prop_assert_eq!(between, same);
                one.remove.sort_by(|one, other| one.as_str().cmp(other.as_str()));
                other.remove.sort_by(|one, other| one.as_str().cmp(other.as_str()));
                prop_assert_eq!(one.remove, other.remove);
                prop_assert_eq!(one.set, other.set);
            }
        }

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
