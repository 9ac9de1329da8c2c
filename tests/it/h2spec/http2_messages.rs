//! Requests: their fields and the length of their bodies (section 8.1.2 of RFC 7540).

use crate::world::frames::{block, code, flag, request};

use super::peer::{Peer, Want, fields};
use super::{Case, case};

const MALFORMED: Want = Want::StreamError(&[code::PROTOCOL_ERROR]);

/// A request with these fields behind the usual ones.
fn get_with(peer: &mut Peer, more: &[(&str, &str)]) {
    peer.headers(1, flag::END_STREAM, &fields("GET", more));
}

/// A request without some of the usual fields.
fn get_without(peer: &mut Peer, names: &[&str]) {
    let left: Vec<_> = request("GET", "/").into_iter().filter(|(name, _)| !names.contains(name)).collect();
    peer.headers(1, flag::END_STREAM, &block(&left));
}

/// A POST that announces a body of one byte.
fn post_one_byte(peer: &mut Peer) {
    peer.headers(1, 0, &fields("POST", &[("content-length", "1")]));
}

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(
        "http2/8.1.2/1",
        "Sends a HEADERS frame that contains the header field name in uppercase letters",
        MALFORMED,
        |peer| get_with(peer, &[("X-TEST", "ok")]),
    ),
    case(
        "http2/8.1.2.1/1",
        "Sends a HEADERS frame that contains a unknown pseudo-header field",
        MALFORMED,
        |peer| get_with(peer, &[(":test", "ok")]),
    ),
    case(
        "http2/8.1.2.1/2",
        "Sends a HEADERS frame that contains the pseudo-header field defined for response",
        MALFORMED,
        |peer| get_with(peer, &[(":status", "200")]),
    ),
    case(
        "http2/8.1.2.1/3",
        "Sends a HEADERS frame that contains a pseudo-header field as trailers",
        MALFORMED,
        |peer| {
            peer.post(1);
            peer.data(1, 0, b"test");
            peer.headers(1, 0, &block(&[(":method", "POST")]));
        },
    ),
    case(
        "http2/8.1.2.1/4",
        "Sends a HEADERS frame that contains a pseudo-header field that appears in a header block after a regular header field",
        MALFORMED,
        |peer| peer.headers(1, flag::END_STREAM, &[block(&[("x-test", "ok")]), fields("GET", &[])].concat()),
    ),
    case(
        "http2/8.1.2.2/1",
        "Sends a HEADERS frame that contains the connection-specific header field",
        MALFORMED,
        |peer| get_with(peer, &[("connection", "keep-alive")]),
    ),
    case(
        "http2/8.1.2.2/2",
        "Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"",
        MALFORMED,
        |peer| get_with(peer, &[("trailers", "test"), ("te", "trailers, deflate")]),
    ),
    case(
        "http2/8.1.2.3/1",
        "Sends a HEADERS frame with empty \":path\" pseudo-header field",
        MALFORMED,
        |peer| peer.headers(1, flag::END_STREAM, &block(&request("GET", ""))),
    ),
    // The suite leaves out the scheme as well.
    case(
        "http2/8.1.2.3/2",
        "Sends a HEADERS frame that omits \":method\" pseudo-header field",
        MALFORMED,
        |peer| get_without(peer, &[":method", ":scheme"]),
    ),
    case(
        "http2/8.1.2.3/3",
        "Sends a HEADERS frame that omits \":scheme\" pseudo-header field",
        MALFORMED,
        |peer| get_without(peer, &[":scheme"]),
    ),
    case(
        "http2/8.1.2.3/4",
        "Sends a HEADERS frame that omits \":path\" pseudo-header field",
        MALFORMED,
        |peer| get_without(peer, &[":path"]),
    ),
    case(
        "http2/8.1.2.3/5",
        "Sends a HEADERS frame with duplicated \":method\" pseudo-header field",
        MALFORMED,
        |peer| get_with(peer, &[(":method", "GET")]),
    ),
    case(
        "http2/8.1.2.3/6",
        "Sends a HEADERS frame with duplicated \":scheme\" pseudo-header field",
        MALFORMED,
        |peer| get_with(peer, &[(":scheme", "http")]),
    ),
    case(
        "http2/8.1.2.3/7",
        "Sends a HEADERS frame with duplicated \":path\" pseudo-header field",
        MALFORMED,
        |peer| get_with(peer, &[(":path", "/")]),
    ),
    case(
        "http2/8.1.2.6/1",
        "Sends a HEADERS frame with the \"content-length\" header field which does not equal the DATA frame payload length",
        MALFORMED,
        |peer| {
            post_one_byte(peer);
            peer.data(1, flag::END_STREAM, b"test");
        },
    ),
    case(
        "http2/8.1.2.6/2",
        "Sends a HEADERS frame with the \"content-length\" header field which does not equal the sum of the multiple DATA frames payload length",
        MALFORMED,
        |peer| {
            post_one_byte(peer);
            peer.data(1, 0, b"test");
            peer.data(1, flag::END_STREAM, b"test");
        },
    ),
];
