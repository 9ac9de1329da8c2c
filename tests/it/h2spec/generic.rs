//! What every server must accept.

use crate::world::frames::{code, flag, integer, kind, setting};

use super::peer::{Peer, Want, fields, priority};
use super::{Case, case};

const ZERO: [u8; 8] = [0; 8];
const WORD: [u8; 8] = *b"h2spec\0\0";

/// HEADERS of a whole request with a field in a representation of the suite's choice behind it.
fn get_with(peer: &mut Peer, representation: &[u8]) {
    peer.headers(1, flag::END_STREAM, &[&fields("GET", &[])[..], representation].concat());
}

/// A request whose response cannot be sent before there is a window for it.
fn get_without_window(peer: &mut Peer) {
    peer.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    peer.get(1);
}

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("generic/1/1", "Sends a client connection preface", Want::FirstSettings, Peer::preface).without_preface(),
    case("generic/2/1", "Sends a PRIORITY frame on idle stream", Want::PingAck(ZERO), |peer| {
        peer.priority(1, 0);
        peer.ping(0, &ZERO);
    }),
    case("generic/2/2", "Sends a WINDOW_UPDATE frame on half-closed (remote) stream", Want::Data, |peer| {
        get_without_window(peer);
        peer.window_update(1, 1);
    }),
    case("generic/2/3", "Sends a PRIORITY frame on half-closed (remote) stream", Want::Data, |peer| {
        get_without_window(peer);
        peer.priority(1, 0);
        peer.window_update(1, 1);
    }),
    case("generic/2/4", "Sends a RST_STREAM frame on half-closed (remote) stream", Want::PingAckOrClose(ZERO), |peer| {
        peer.get(1);
        peer.reset(1, code::CANCEL);
        peer.ping(0, &ZERO);
    }),
    case("generic/2/5", "Sends a PRIORITY frame on closed stream", Want::PingAck(ZERO), |peer| {
        peer.get(1);
        peer.expect(Want::StreamEnd);
        peer.priority(1, 0);
        peer.ping(0, &ZERO);
    }),
    case("generic/3.1/1", "Sends a DATA frame", Want::Headers(1), |peer| {
        peer.post(1);
        peer.data(1, flag::END_STREAM, b"test");
    }),
    case("generic/3.1/2", "Sends multiple DATA frames", Want::Headers(1), |peer| {
        peer.post(1);
        peer.data(1, 0, b"test");
        peer.data(1, flag::END_STREAM, b"test");
    }),
    case("generic/3.1/3", "Sends a DATA frame with padding", Want::Headers(1), |peer| {
        peer.post(1);
        peer.data(1, flag::END_STREAM | flag::PADDED, b"\x05test\0\0\0\0\0");
    }),
    case("generic/3.2/1", "Sends a HEADERS frame", Want::Headers(1), |peer| peer.get(1)),
    case("generic/3.2/2", "Sends a HEADERS frame with padding", Want::Headers(1), |peer| {
        let padded = [&[8], &fields("GET", &[])[..], &[0; 8]].concat();
        peer.headers(1, flag::END_STREAM | flag::PADDED, &padded);
    }),
    case("generic/3.2/3", "Sends a HEADERS frame with priority", Want::Headers(1), |peer| {
        let prioritized = [priority(0, 255), fields("GET", &[])].concat();
        peer.headers(1, flag::END_STREAM | flag::PRIORITY, &prioritized);
    }),
    case("generic/3.3/1", "Sends a PRIORITY frame with priority 1", Want::Headers(1), |peer| {
        peer.frame(kind::PRIORITY, 0, 1, &priority(0, 0));
        peer.get(1);
    }),
    case("generic/3.3/2", "Sends a PRIORITY frame with priority 256", Want::Headers(1), |peer| {
        peer.frame(kind::PRIORITY, 0, 1, &priority(0, 255));
        peer.get(1);
    }),
    case("generic/3.3/3", "Sends a PRIORITY frame with stream dependency", Want::Headers(1), |peer| {
        peer.frame(kind::PRIORITY, 0, 3, &priority(1, 0));
        peer.get(1);
    }),
    case("generic/3.3/4", "Sends a PRIORITY frame with exclusive", Want::Headers(1), |peer| {
        peer.frame(kind::PRIORITY, 0, 1, &priority(1 << 31, 0));
        peer.get(1);
    }),
    case(
        "generic/3.3/5",
        "Sends a PRIORITY frame for an idle stream, then send a HEADER frame for a lower stream ID",
        Want::Headers(1),
        |peer| {
            peer.priority(3, 0);
            peer.get(1);
        },
    ),
    case("generic/3.4/1", "Sends a RST_STREAM frame", Want::PingAckOrClose(ZERO), |peer| {
        peer.headers(1, 0, &fields("GET", &[]));
        peer.reset(1, code::CANCEL);
        peer.ping(0, &ZERO);
    }),
    case("generic/3.5/1", "Sends a SETTINGS frame", Want::SettingsAck, |peer| {
        peer.settings(&[
            (setting::HEADER_TABLE_SIZE, 4096),
            (setting::ENABLE_PUSH, 1),
            (setting::MAX_CONCURRENT_STREAMS, 100),
            (setting::INITIAL_WINDOW_SIZE, 65_535),
            (setting::MAX_FRAME_SIZE, 16_384),
            (setting::MAX_HEADER_LIST_SIZE, 100),
        ]);
    }),
    case("generic/3.7/1", "Sends a PING frame", Want::PingAck(WORD), |peer| peer.ping(0, &WORD)),
    case("generic/3.8/1", "Sends a GOAWAY frame", Want::PingAckOrClose(WORD), |peer| {
        peer.goaway(code::NO_ERROR, b"h2spec");
        peer.ping(0, &WORD);
    }),
    case("generic/3.9/1", "Sends a WINDOW_UPDATE frame with stream ID 0", Want::PingAck(ZERO), |peer| {
        peer.window_update(0, 1);
        peer.ping(0, &ZERO);
    }),
    case("generic/3.9/2", "Sends a WINDOW_UPDATE frame with stream ID 1", Want::Headers(1), |peer| {
        peer.get(1);
        peer.window_update(1, 1);
    }),
    case("generic/3.10/1", "Sends a CONTINUATION frame", Want::Headers(1), |peer| {
        let block = fields("GET", &[]);
        peer.frame(kind::HEADERS, flag::END_STREAM, 1, &block[..5]);
        peer.continuation(1, true, &block[5..]);
    }),
    case("generic/3.10/2", "Sends multiple CONTINUATION frames", Want::Headers(1), |peer| {
        let block = fields("GET", &[]);
        peer.frame(kind::HEADERS, flag::END_STREAM, 1, &block[..5]);
        peer.continuation(1, false, &block[5..10]);
        peer.continuation(1, true, &block[10..]);
    }),
    case("generic/4/1", "Sends a GET request", Want::Headers(1), |peer| peer.get(1)),
    case("generic/4/2", "Sends a HEAD request", Want::Headers(1), |peer| {
        peer.headers(1, flag::END_STREAM, &fields("HEAD", &[]));
    }),
    case("generic/4/3", "Sends a POST request", Want::Headers(1), |peer| {
        peer.post(1);
        peer.data(1, flag::END_STREAM, b"test");
    }),
    case("generic/4/4", "Sends a POST request with trailers", Want::Headers(1), |peer| {
        peer.headers(1, 0, &fields("POST", &[("trailer", "x-test")]));
        peer.data(1, 0, b"test");
        peer.headers(1, flag::END_STREAM, &crate::world::frames::block(&[("x-test", "ok")]));
    }),
];

/// user-agent: h2spec, without and with Huffman coding, behind its first octet.
const USER_AGENT: &[u8] = b"\x0auser-agent\x06h2spec";
const USER_AGENT_HUFFMAN: &[u8] = b"\x87\xb5\x05\xb1\x61\xcc\x5a\x93\x84\x9c\x48\xac\xa4";
/// x-test: h2spec
const NEW_NAME: &[u8] = b"\x06x-test\x06h2spec";
const NEW_NAME_HUFFMAN: &[u8] = b"\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4";

const INDEXED: u8 = 0x40;
const NOT_INDEXED: u8 = 0;
const NEVER_INDEXED: u8 = 0x10;

fn get_with_literal(peer: &mut Peer, first: u8, rest: &[u8]) {
    get_with(peer, &[&[first], rest].concat());
}

// The suite's titles of 2 and 3, and those of 6 and 7, are the wrong way round; 12 and 13 are the same.
#[rustfmt::skip]
pub(super) const HPACK: &[Case] = &[
    case("generic/5/1", "Sends a indexed header field representation", Want::Headers(1), |peer| get_with(peer, b"\xba")),
    case(
        "generic/5/2",
        "Sends a literal header field with incremental indexing - indexed name",
        Want::Headers(1),
        |peer| get_with_literal(peer, INDEXED, USER_AGENT_HUFFMAN),
    ),
    case(
        "generic/5/3",
        "Sends a literal header field with incremental indexing - indexed name (with Huffman coding)",
        Want::Headers(1),
        |peer| get_with_literal(peer, INDEXED, USER_AGENT),
    ),
    case(
        "generic/5/4",
        "Sends a literal header field with incremental indexing - new name",
        Want::Headers(1),
        |peer| get_with_literal(peer, INDEXED, NEW_NAME),
    ),
    case(
        "generic/5/5",
        "Sends a literal header field with incremental indexing - new name (with Huffman coding)",
        Want::Headers(1),
        |peer| get_with_literal(peer, INDEXED, NEW_NAME_HUFFMAN),
    ),
    case(
        "generic/5/6",
        "Sends a literal header field without indexing - indexed name",
        Want::Headers(1),
        |peer| get_with_literal(peer, NOT_INDEXED, USER_AGENT),
    ),
    case(
        "generic/5/7",
        "Sends a literal header field without indexing - indexed name (with Huffman coding)",
        Want::Headers(1),
        |peer| get_with_literal(peer, NOT_INDEXED, USER_AGENT_HUFFMAN),
    ),
    case(
        "generic/5/8",
        "Sends a literal header field without indexing - new name",
        Want::Headers(1),
        |peer| get_with_literal(peer, NOT_INDEXED, NEW_NAME),
    ),
    case(
        "generic/5/9",
        "Sends a literal header field without indexing - new name (huffman encoded)",
        Want::Headers(1),
        |peer| get_with_literal(peer, NOT_INDEXED, NEW_NAME_HUFFMAN),
    ),
    case(
        "generic/5/10",
        "Sends a literal header field never indexed - indexed name",
        Want::Headers(1),
        |peer| get_with_literal(peer, NEVER_INDEXED, USER_AGENT),
    ),
    case(
        "generic/5/11",
        "Sends a literal header field never indexed - indexed name (huffman encoded)",
        Want::Headers(1),
        |peer| get_with_literal(peer, NEVER_INDEXED, USER_AGENT_HUFFMAN),
    ),
    case(
        "generic/5/12",
        "Sends a literal header field never indexed - new name",
        Want::Headers(1),
        |peer| get_with_literal(peer, NEVER_INDEXED, NEW_NAME_HUFFMAN),
    ),
    case(
        "generic/5/13",
        "Sends a literal header field never indexed - new name (huffman encoded)",
        Want::Headers(1),
        |peer| get_with_literal(peer, NEVER_INDEXED, NEW_NAME_HUFFMAN),
    ),
    case("generic/5/14", "Sends a dynamic table size update", Want::Headers(1), |peer| {
        let mut block = Vec::new();
        integer(0x20, 5, 128, &mut block);
        peer.headers(1, flag::END_STREAM, &[block, fields("GET", &[])].concat());
    }),
    case("generic/5/15", "Sends multiple dynamic table size update", Want::Headers(1), |peer| {
        let mut block = Vec::new();
        integer(0x20, 5, 128, &mut block);
        integer(0x20, 5, 4096, &mut block);
        peer.headers(1, flag::END_STREAM, &[block, fields("GET", &[])].concat());
    }),
];
