//! Headers that describe the client and the request to servers: X-Forwarded headers and the request's id.
//!
//! Applied once, to the request itself, before Pingora copies it for each attempt: it was read with room for more fields, a
//! copy has none.

use http::{HeaderName, HeaderValue, header};

use crate::message::{FieldValue, RequestEdits, RequestView, WrittenName};
use crate::proxy::context::{Client, RequestId, ReservedNames, Traceparent};
use crate::proxy::request::certificate_headers::{CLIENT_CERT, X_CLIENT_CERT, forward_certificate};
use crate::proxy::request::client_addr::{
    self, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, X_FORWARDED, X_REAL_IP,
};
use crate::proxy::request::request_id::REQUEST_ID;
use crate::proxy::request::trace_context::{SENT_TRACEPARENT, TRACESTATE_NAME};

static SENT_FORWARDED_FOR: WrittenName = WrittenName::new("X-Forwarded-For", "x-forwarded-for");
static SENT_FORWARDED_PROTO: WrittenName = WrittenName::new("X-Forwarded-Proto", "x-forwarded-proto");
static SENT_FORWARDED_HOST: WrittenName = WrittenName::new("X-Forwarded-Host", "x-forwarded-host");
static SENT_CONNECTION: WrittenName = WrittenName::new("Connection", "connection");
static SENT_REQUEST_ID: WrittenName = WrittenName::new("X-Request-Id", "x-request-id");
/// Names that no client may send, since servers accept them from the proxy only. What Forwarded says is in the X-Forwarded
/// headers, so that servers get one form of it and not two that may disagree.
const NEVER_FROM_CLIENTS: [&str; 3] = ["homing-session-moved", "homing-session-data", "forwarded"];

/// What is decided of a request before it is sent.
#[derive(Clone, Copy)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) client: &'a Client,
    pub(crate) reserved: ReservedNames,
    pub(crate) request_id: Option<&'a RequestId>,
    pub(crate) traceparent: Option<&'a Traceparent>,
}

/// Removes what servers accept from trusted proxies only, and sets the proxy's own. `host`: what
/// [`host`](client_addr::host) found, kept as the adapter can.
pub(crate) fn forwarded_headers<'a>(
    request: &RequestView<'_>,
    facts: RequestFacts<'a>,
    host: impl FnOnce() -> Option<FieldValue<'a>>,
    edits: &mut RequestEdits<'a, FieldValue<'a>>,
) {
    let RequestFacts { client, reserved, request_id, traceparent } = facts;
    if reserved.always || (reserved.unless_trusted && !client.peer_trusted) {
        let names = request.fields.iter().filter(|(name, _)| is_reserved(name, client.peer_trusted));
        edits.remove.extend(names.filter_map(|(name, _)| HeaderName::from_bytes(name.as_bytes()).ok()));
    }
    if reserved.nominated {
        withdraw_nominations(request, edits);
    }
    forward_client(request, client, host, edits);
    if let Some(certificate) = &client.certificate {
        forward_certificate(certificate, edits);
    }
    if let Some(id) = request_id {
        edits.set.push((&SENT_REQUEST_ID, FieldValue::Kept(id.as_bytes())));
    }
    if let Some(traceparent) = traceparent {
        edits.set.push((&SENT_TRACEPARENT, FieldValue::Kept(traceparent)));
    }
    if reserved.tracestate {
        edits.remove.push(TRACESTATE_NAME);
    }
}

/// `trusted`: sent by a trusted proxy. But no proxy writes `X_Forwarded_For`, which an application could read in place of
/// the right one.
fn is_reserved(name: &str, trusted: bool) -> bool {
    let is = |other: &str| name.len() == other.len() && reads_as(name, other);
    let underscore = name.contains('_');
    NEVER_FROM_CLIENTS.into_iter().any(is)
        || [CLIENT_CERT, X_CLIENT_CERT].into_iter().any(|family| is_of_family(name, family))
        || ((reads_as(name, X_FORWARDED) || is(X_REAL_IP)) && (underscore || !trusted))
        || (is(REQUEST_ID.as_str()) && underscore)
}

fn is_of_family(name: &str, family: &str) -> bool {
    reads_as(name, family) && matches!(name.as_bytes().get(family.len()), None | Some(b'-' | b'_'))
}

/// A field that `Connection` names ends here (RFC 9110, section 7.6.1), and Pingora removes it from what servers get. No
/// client decides that over the fields that the proxy sets.
fn withdraw_nominations(request: &RequestView<'_>, edits: &mut RequestEdits<'_, FieldValue<'_>>) {
    let values = request.fields.all(&header::CONNECTION);
    let options = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let (ours, others): (Vec<_>, Vec<_>) = options
        .filter(|option| !option.is_empty())
        .partition(|option| std::str::from_utf8(option).is_ok_and(is_set_here));
    if ours.is_empty() {
        return;
    }
    match HeaderValue::from_bytes(&others.join(&b", "[..])) {
        Ok(value) if !others.is_empty() => edits.set.push((&SENT_CONNECTION, FieldValue::Own(value))),
        _ => edits.remove.push(header::CONNECTION),
    }
}

fn is_set_here(name: &str) -> bool {
    is_reserved(name, false) || name.eq_ignore_ascii_case(REQUEST_ID.as_str())
}

/// Whether a name begins with `prefix` (in lower case) for CGI, WSGI and Rack, which cannot tell `-` from `_`.
fn reads_as(name: &str, prefix: &str) -> bool {
    let same = |(one, other): (u8, u8)| one.to_ascii_lowercase() == other || (one == b'_' && other == b'-');
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(same)
}

/// The client's address, scheme and host.
fn forward_client<'a>(
    request: &RequestView<'_>,
    client: &'a Client,
    host: impl FnOnce() -> Option<FieldValue<'a>>,
    edits: &mut RequestEdits<'a, FieldValue<'a>>,
) {
    let fields = request.fields;
    match client_addr::forwarded_for(client, fields) {
        Some(value) => edits.set.push((&SENT_FORWARDED_FOR, value)),
        None => edits.remove.push(FORWARDED_FOR),
    }
    if !(client.peer_trusted && fields.contains(&FORWARDED_PROTO)) {
        let proto: &[u8] = if client.secure { b"https" } else { b"http" };
        edits.set.push((&SENT_FORWARDED_PROTO, FieldValue::Kept(proto)));
    }
    if !(client.peer_trusted && fields.contains(&FORWARDED_HOST)) {
        match host() {
            Some(host) => edits.set.push((&SENT_FORWARDED_HOST, host)),
            None => edits.remove.push(FORWARDED_HOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use http::{Method, Version};
    use proptest::prelude::*;

    use super::*;
    use crate::message::Fields;
    use crate::proxy::context::ClientCertificate;
    use crate::proxy::request::header_scan::HeaderScan;

    const NAMES: [&str; 20] = [
        "X-Forwarded-For",
        "X_Forwarded_For",
        "x-forwarded-proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Real-IP",
        "x_real_ip",
        "Forwarded",
        "Homing-Session-Moved",
        "homing-session-data",
        "Client-Cert",
        "CLIENT_CERT",
        "client-cert-chain",
        "X-Client-Cert-Subject",
        "X_Client_Cert_Subject",
        "x-client-cert-fingerprint",
        "X-Request-Id",
        "X_Request_Id",
        "Host",
        "Accept",
    ];

    fn client(peer_trusted: bool, secure: bool) -> Client {
        let peer: Option<IpAddr> = Some("192.0.2.7".parse().unwrap());
        Client { peer, address: peer, peer_trusted, secure, ..Client::default() }
    }

    /// The fields that a server gets, in lower case and sorted.
    fn sent(client: &Client, fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let parsed: Vec<_> =
            fields.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        let view = RequestView::http1(&Method::GET, b"/", Version::HTTP_11, Fields::Parsed(&parsed));
        let id = RequestId::Sent(HeaderValue::from_static("id-1"));
        let reserved = HeaderScan::of(view.fields).reserved;
        let mut edits = RequestEdits::default();
        let facts = RequestFacts { client, reserved, request_id: Some(&id), traceparent: None };
        let host = || client_addr::host(&view, client).map(FieldValue::Kept);
        forwarded_headers(&view, facts, host, &mut edits);
        let stays = |name: &str| {
            let is = |other: &HeaderName| name.eq_ignore_ascii_case(other.as_str());
            !edits.remove.iter().any(is) && !edits.set.iter().any(|(set, _)| is(&set.name))
        };
        let kept = fields.iter().filter(|(name, _)| stays(name));
        let kept = kept.map(|(name, value)| (name.to_lowercase(), (*value).to_owned()));
        let text = |value: &FieldValue<'_>| String::from_utf8(value.as_ref().to_vec()).unwrap();
        let set = edits.set.iter().map(|(name, value)| (name.name.to_string(), text(value)));
        let mut all: Vec<_> = kept.chain(set).collect();
        all.sort();
        all
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn of_an_untrusted_peer_servers_get_what_the_proxy_saw() {
        let fields = [
            ("Host", "a.example"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Port", "1"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Request-Id", "mine"),
            ("X-Other", "1"),
        ];
        let expected = [
            ("host", "a.example"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-proto", "http"),
            ("x-other", "1"),
            ("x-request-id", "id-1"),
        ];
        assert_eq!(sent(&client(false, false), &fields), pairs(&expected));
    }

    #[test]
    fn of_a_trusted_peer_servers_get_what_it_reports() {
        let fields = [
            ("Host", "a.example"),
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "shop.example"),
            ("X-Real-IP", "1.1.1.1"),
            ("X_Real_Ip", "6.6.6.6"),
        ];
        let expected = [
            ("host", "a.example"),
            ("x-forwarded-for", "1.1.1.1, 192.0.2.7"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "1.1.1.1"),
            ("x-request-id", "id-1"),
        ];
        assert_eq!(sent(&client(true, true), &fields), pairs(&expected));
    }

    #[test]
    fn servers_are_told_the_certificate_that_was_presented_here_and_no_other() {
        let certificate = ClientCertificate {
            subject: Some(HeaderValue::from_static("CN=alice")),
            fingerprint: HeaderValue::from_static("ab12"),
            encoded: HeaderValue::from_static(":AA==:"),
            digest: [0; 32],
        };
        let fields =
            [("Client-Cert", "forged"), ("x_client_cert_subject", "forged"), ("X-Client-Certificates", "app's")];
        let certified = Client { certificate: Some(Arc::new(certificate)), ..client(true, true) };
        let about = |client: &Client| {
            let mut sent = sent(client, &fields);
            sent.retain(|(name, _)| name.contains("client-cert") || name.contains("client_cert"));
            sent
        };
        let expected = [
            ("client-cert", ":AA==:"),
            ("x-client-cert-fingerprint", "ab12"),
            ("x-client-cert-subject", "CN=alice"),
            ("x-client-certificates", "app's"),
        ];
        assert_eq!(about(&certified), pairs(&expected));
        assert_eq!(about(&client(true, true)), pairs(&[("x-client-certificates", "app's")]));
    }

    proptest! {
        #[test]
        fn no_client_speaks_for_the_proxy(
            names in prop::collection::vec(prop::sample::select(NAMES.to_vec()), 0..8),
            peer_trusted: bool,
            secure: bool,
        ) {
            let fields: Vec<(&str, &str)> = names.iter().map(|name| (*name, "forged")).collect();
            for (name, value) in sent(&client(peer_trusted, secure), &fields) {
                let forged = value == "forged";
                prop_assert!(!(forged && name.contains('_')), "{name}");
                prop_assert!(!(forged && NEVER_FROM_CLIENTS.contains(&name.as_str())), "{name}");
                prop_assert!(!(forged && name.contains("client-cert")), "{name}");
                let from_trusted_only = name.starts_with("x-forwarded-") && name != "x-forwarded-host" || name == "x-real-ip";
                prop_assert!(peer_trusted || !(forged && from_trusted_only), "{name}");
                prop_assert!(!(forged && name == "x-request-id"), "the id was decided before");
            }
        }
    }
}
