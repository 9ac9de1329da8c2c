//! One pass over the header fields of a request.
//!
//! A lookup in a header map hashes the name, and a dozen lookups were a good part of what a request cost. So the fields are
//! read once, and the scan keeps what validation and routing ask for.

use http::{HeaderName, header};

use crate::message::Fields;
use crate::proxy::connection::authentication::authenticates_connection;
use crate::proxy::connection::request_body::BodyFraming;
use crate::proxy::context::ReservedNames;
use crate::proxy::request::certificate_headers::{CLIENT_CERT, X_CLIENT_CERT};
use crate::proxy::request::client_addr::{X_FORWARDED, X_REAL_IP};
use crate::telemetry::trace::context::{TRACEPARENT, TRACESTATE};

/// What one pass over the fields found.
#[derive(Debug, Default)]
pub(crate) struct HeaderScan<'a> {
    /// `Host`.
    pub(crate) host: SingleField<'a>,
    /// `Content-Length`.
    pub(crate) length: SingleField<'a>,
    /// `Transfer-Encoding`.
    pub(crate) encoding: SingleField<'a>,
    /// `traceparent`.
    pub(crate) traceparent: SingleField<'a>,
    /// The credentials authenticate the connection.
    pub(crate) authenticates_connection: bool,
    /// Whether reserved fields may be present.
    pub(crate) reserved: ReservedNames,
}

/// A field that a valid request has at most once.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SingleField<'a> {
    /// The value of the first one.
    pub(crate) value: Option<&'a [u8]>,
    /// The field is present more than once.
    pub(crate) repeated: bool,
}

impl<'a> SingleField<'a> {
    fn add(&mut self, value: &'a [u8]) {
        self.repeated = self.value.is_some();
        self.value = self.value.or(Some(value));
    }
}

impl<'a> HeaderScan<'a> {
    /// Reads all fields, once.
    pub(crate) fn of(fields: Fields<'a>) -> Self {
        let mut scan = Self::default();
        match fields {
            Fields::Map(map) => map.iter().for_each(|(name, value)| scan.add(name, value.as_bytes())),
            Fields::Parsed(fields) => fields.iter().for_each(|field| scan.add_text(field.name, field.value)),
        }
        scan
    }

    /// How a valid request frames its body; `None` when it has none.
    pub(crate) fn body_framing(&self) -> Option<BodyFraming> {
        if self.encoding.value.is_some() {
            return Some(BodyFraming::Chunked);
        }
        let length = std::str::from_utf8(self.length.value?).ok()?.parse().ok()?;
        Some(BodyFraming::Length(length))
    }

    fn add(&mut self, name: &HeaderName, value: &'a [u8]) {
        match *name {
            header::HOST => self.host.add(value),
            header::CONTENT_LENGTH => self.length.add(value),
            header::TRANSFER_ENCODING => self.encoding.add(value),
            header::AUTHORIZATION | header::PROXY_AUTHORIZATION => {
                self.authenticates_connection |= authenticates_connection(value);
            }
            header::CONNECTION => self.reserved.nominated |= may_nominate(value),
            // What nearly every request has, and is never reserved.
            header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::CACHE_CONTROL
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::ORIGIN
            | header::REFERER
            | header::USER_AGENT => {}
            _ => self.add_other(name.as_str(), value),
        }
    }

    /// The same for a name as the sender wrote it.
    fn add_text(&mut self, name: &str, value: &'a [u8]) {
        let is = |known: HeaderName| name.eq_ignore_ascii_case(known.as_str());
        match name.len() {
            4 if is(header::HOST) => self.host.add(value),
            14 if is(header::CONTENT_LENGTH) => self.length.add(value),
            17 if is(header::TRANSFER_ENCODING) => self.encoding.add(value),
            10 if is(header::CONNECTION) => self.reserved.nominated |= may_nominate(value),
            13 if is(header::AUTHORIZATION) => self.authenticates_connection |= authenticates_connection(value),
            19 if is(header::PROXY_AUTHORIZATION) => self.authenticates_connection |= authenticates_connection(value),
            _ => self.add_other(name, value),
        }
    }

    fn add_other(&mut self, name: &str, value: &'a [u8]) {
        match name.as_bytes() {
            [b't' | b'T', ..] if name.eq_ignore_ascii_case(TRACEPARENT) => self.traceparent.add(value),
            [b't' | b'T', ..] if name.eq_ignore_ascii_case(TRACESTATE) => self.reserved.tracestate = true,
            _ => note_reserved(&mut self.reserved, name),
        }
    }
}

/// Whether a value of Connection may name a field that the proxy sets: all of those have a hyphen.
fn may_nominate(value: &[u8]) -> bool {
    !value.eq_ignore_ascii_case(b"keep-alive") && value.contains(&b'-')
}

/// Takes more names for reserved than are: which ones exactly is decided only when one may be present.
fn note_reserved(reserved: &mut ReservedNames, name: &str) {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    match name.as_bytes() {
        [b'h' | b'H', ..] => reserved.always |= begins("homing-"),
        [b'c' | b'C', ..] => reserved.always |= begins(CLIENT_CERT),
        [b'f' | b'F', ..] => reserved.always |= name.eq_ignore_ascii_case(header::FORWARDED.as_str()),
        [b'x' | b'X', ..] => {
            reserved.always |= begins(X_CLIENT_CERT);
            reserved.unless_trusted |= begins(X_FORWARDED) || name.eq_ignore_ascii_case(X_REAL_IP);
        }
        _ => {}
    }
    // Applications that read headers as CGI does cannot tell `_` from `-`.
    reserved.always |= name.as_bytes().contains(&b'_');
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn reserved(names: &[&'static str]) -> (bool, bool) {
        let headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        let ReservedNames { always, unless_trusted, .. } = HeaderScan::of(Fields::Map(&headers)).reserved;
        (always, unless_trusted)
    }

    #[test]
    fn ordinary_names_are_not_reserved() {
        assert_eq!(reserved(&["host", "accept", "x-requested-with", "from", "cookie", "if-match"]), (false, false));
    }

    #[test]
    fn names_that_servers_accept_from_the_proxy_only_are_reserved() {
        for name in [
            "homing-session-moved",
            "homing-session-data",
            "forwarded",
            "x_forwarded_for",
            "x_real_ip",
            "client-cert",
            "client-cert-chain",
            "client_cert",
            "x-client-cert-subject",
            "x-client-cert-fingerprint",
        ] {
            assert_eq!(reserved(&["accept", name]), (true, false), "{name}");
        }
        for name in ["x-forwarded-for", "x-forwarded-anything", "x-real-ip"] {
            assert_eq!(reserved(&[name, "accept"]), (false, true), "{name}");
        }
    }

    #[test]
    fn a_repeated_field_is_noticed() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("a"));
        assert!(!HeaderScan::of(Fields::Map(&headers)).host.repeated);
        headers.append(header::HOST, HeaderValue::from_static("b"));
        let scan = HeaderScan::of(Fields::Map(&headers));
        assert!(scan.host.repeated);
        assert_eq!(scan.host.value, Some(b"a".as_slice()));
    }

    proptest! {
        #[test]
        fn a_header_map_and_a_parsed_head_scan_alike(
            names in prop::collection::vec(
                prop::sample::select(vec![
                    "Host", "HOST", "content-length", "Content-Length", "Transfer-Encoding", "Accept", "Cookie",
                    "traceparent", "TraceParent", "TraceState", "Client-Cert", "X-CLIENT-Cert-Subject", "Client", "Trailer", "X-Forwarded-For", "x-real-IP", "Forwarded", "Authorization", "Connection", "Homing-Session-Data", "X_Real_Ip", "From", "X-Other",
                ]),
                0..8,
            ),
        ) {
            let values: Vec<String> = (0..names.len()).map(|number| format!("NTLM {number}")).collect();
            let mut map = HeaderMap::new();
            let mut parsed = Vec::new();
            for (name, value) in names.iter().zip(&values) {
                map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
                parsed.push(httparse::Header { name, value: value.as_bytes() });
            }
            let (map, parsed) = (HeaderScan::of(Fields::Map(&map)), HeaderScan::of(Fields::Parsed(&parsed)));
            prop_assert_eq!(map.reserved, parsed.reserved);
            prop_assert_eq!(map.authenticates_connection, parsed.authenticates_connection);
            let credentials = names.iter().any(|name| name.eq_ignore_ascii_case("authorization"));
            prop_assert_eq!(map.authenticates_connection, credentials);
            for (one, other) in [(map.host, parsed.host), (map.traceparent, parsed.traceparent), (map.length, parsed.length), (map.encoding, parsed.encoding)] {
                prop_assert_eq!((one.value, one.repeated), (other.value, other.repeated));
            }
        }
    }
}
