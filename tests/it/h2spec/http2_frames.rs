//! Frames: their form (sections 3 and 4 of RFC 7540) and their definitions (section 6, without flow control).

use crate::world::frames::{block, code, flag, kind, setting};

use super::peer::{Peer, Want, dummy, fields, priority};
use super::{Case, case};

const ZERO: [u8; 8] = [0; 8];
const WORD: [u8; 8] = *b"h2spec\0\0";
const PROTOCOL: Want = Want::ConnectionError(&[code::PROTOCOL_ERROR]);
const FRAME_SIZE: Want = Want::ConnectionError(&[code::FRAME_SIZE_ERROR]);

/// HEADERS of a request that are to be continued.
fn begin_headers(peer: &mut Peer, method: &str, end_stream: u8) {
    peer.frame(kind::HEADERS, end_stream, 1, &fields(method, &[]));
}

/// A frame of a type that does not exist.
fn unknown_frame(peer: &mut Peer) {
    peer.frame(0x16, 0, 0, &ZERO);
}

#[rustfmt::skip]
pub(super) const FORMAT: &[Case] = &[
    case("http2/3.5/1", "Sends client connection preface", Want::FirstSettings, Peer::preface).without_preface(),
    case("http2/3.5/2", "Sends invalid connection preface", PROTOCOL, |peer| {
        peer.raw(b"INVALID CONNECTION PREFACE\r\n\r\n");
    }).without_preface(),
    case("http2/4.1/1", "Sends a frame with unknown type", Want::PingAck(ZERO), |peer| {
        unknown_frame(peer);
        peer.ping(0, &ZERO);
    }),
    case("http2/4.1/2", "Sends a frame with undefined flag", Want::Ping, |peer| {
        peer.raw(b"\x00\x00\x08\x06\x16\x00\x00\x00\x00");
        peer.raw(&ZERO);
    }),
    case("http2/4.1/3", "Sends a frame with reserved field bit", Want::Ping, |peer| {
        peer.raw(b"\x00\x00\x08\x06\x16\x80\x00\x00\x00");
        peer.raw(&ZERO);
    }),
    case("http2/4.2/1", "Sends a DATA frame with 2^14 octets in length", Want::Headers(1), |peer| {
        peer.post(1);
        peer.data(1, flag::END_STREAM, &[b'x'; 16_384]);
    }),
    case(
        "http2/4.2/2",
        "Sends a large size DATA frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
        Want::StreamError(&[code::FRAME_SIZE_ERROR]),
        |peer| {
            peer.post(1);
            peer.data(1, flag::END_STREAM, &[b'x'; 16_385]);
        },
    ),
    case(
        "http2/4.2/3",
        "Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
        FRAME_SIZE,
        |peer| peer.headers(1, flag::END_STREAM, &[fields("GET", &[]), dummy().repeat(5)].concat()),
    ),
    case("http2/4.3/1", "Sends invalid header block fragment", Want::ConnectionError(&[code::COMPRESSION_ERROR]), |peer| {
        peer.headers(1, flag::END_STREAM, b"\x40");
    }).with_protocol_error(),
    case("http2/4.3/2", "Sends a PRIORITY frame while sending the header blocks", PROTOCOL, |peer| {
        begin_headers(peer, "GET", 0);
        peer.priority(1, 0);
        peer.continuation(1, true, &dummy());
    }),
    case("http2/4.3/3", "Sends a HEADERS frame to another stream while sending the header blocks", PROTOCOL, |peer| {
        begin_headers(peer, "GET", 0);
        peer.get(3);
        peer.continuation(1, true, &dummy());
    }),
];

#[rustfmt::skip]
pub(super) const DEFINITIONS: &[Case] = &[
    case("http2/6.1/1", "Sends a DATA frame with 0x0 stream identifier", PROTOCOL, |peer| {
        peer.data(0, flag::END_STREAM, b"test");
    }),
    case(
        "http2/6.1/2",
        "Sends a DATA frame on the stream that is not in \"open\" or \"half-closed (local)\" state",
        Want::StreamError(&[code::STREAM_CLOSED]),
        |peer| {
            peer.headers(1, flag::END_STREAM, &fields("POST", &[]));
            peer.data(1, flag::END_STREAM, b"test");
        },
    ).with_protocol_error(),
    case("http2/6.1/3", "Sends a DATA frame with invalid pad length", PROTOCOL, |peer| {
        peer.headers(1, 0, &fields("POST", &[("content-length", "4")]));
        peer.data(1, flag::END_STREAM | flag::PADDED, b"\x06Test");
    }),
    case("http2/6.2/1", "Sends a HEADERS frame without the END_HEADERS flag, and a PRIORITY frame", PROTOCOL, |peer| {
        begin_headers(peer, "GET", 0);
        peer.priority(1, 0);
        peer.continuation(1, true, &dummy());
    }),
    case("http2/6.2/2", "Sends a HEADERS frame to another stream while sending a HEADERS frame", PROTOCOL, |peer| {
        begin_headers(peer, "GET", 0);
        peer.get(3);
        peer.continuation(1, true, &dummy());
    }),
    case("http2/6.2/3", "Sends a HEADERS frame with 0x0 stream identifier", PROTOCOL, |peer| peer.get(0)),
    case(
        "http2/6.2/4",
        "Sends a HEADERS frame with invalid pad length",
        Want::StreamError(&[code::PROTOCOL_ERROR]),
        |peer| {
            let block = fields("GET", &[]);
            let padding = u8::try_from(block.len() + 2).expect("a short block");
            peer.headers(1, flag::END_STREAM | flag::PADDED, &[&[padding], &block[..]].concat());
        },
    ),
    case("http2/6.3/1", "Sends a PRIORITY frame with 0x0 stream identifier", PROTOCOL, |peer| peer.priority(0, 0)),
    case(
        "http2/6.3/2",
        "Sends a PRIORITY frame with a length other than 5 octets",
        Want::StreamError(&[code::FRAME_SIZE_ERROR]),
        |peer| {
            peer.get(1);
            peer.frame(kind::PRIORITY, 0, 1, &priority(1 << 31, 1)[..4]);
        },
    ).with_protocol_error(),
    case("http2/6.4/1", "Sends a RST_STREAM frame with 0x0 stream identifier", PROTOCOL, |peer| {
        peer.reset(0, code::CANCEL);
    }),
    case("http2/6.4/2", "Sends a RST_STREAM frame on a idle stream", PROTOCOL, |peer| peer.reset(1, code::CANCEL)),
    case(
        "http2/6.4/3",
        "Sends a RST_STREAM frame with a length other than 4 octets",
        Want::StreamError(&[code::FRAME_SIZE_ERROR]),
        |peer| {
            peer.get(1);
            peer.frame(kind::RST_STREAM, 0, 1, &[0; 3]);
        },
    ).with_protocol_error(),
    case("http2/6.5/1", "Sends a SETTINGS frame with ACK flag and payload", FRAME_SIZE, |peer| {
        peer.frame(kind::SETTINGS, flag::ACK, 0, &[0]);
    }).with_protocol_error(),
    case("http2/6.5/2", "Sends a SETTINGS frame with a stream identifier other than 0x0", PROTOCOL, |peer| {
        peer.frame(kind::SETTINGS, 0, 1, b"\x00\x03\x00\x00\x00\x64");
    }),
    case(
        "http2/6.5/3",
        "Sends a SETTINGS frame with a length other than a multiple of 6 octets",
        Want::StreamError(&[code::PROTOCOL_ERROR, code::FRAME_SIZE_ERROR]),
        |peer| peer.frame(kind::SETTINGS, 0, 0, b"\x00\x03\x00"),
    ),
    case("http2/6.5.2/1", "SETTINGS_ENABLE_PUSH (0x2): Sends the value other than 0 or 1", PROTOCOL, |peer| {
        peer.settings(&[(setting::ENABLE_PUSH, 2)]);
    }),
    case(
        "http2/6.5.2/2",
        "SETTINGS_INITIAL_WINDOW_SIZE (0x4): Sends the value above the maximum flow control window size",
        Want::ConnectionError(&[code::FLOW_CONTROL_ERROR]),
        |peer| peer.settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]),
    ).with_protocol_error(),
    case("http2/6.5.2/3", "SETTINGS_MAX_FRAME_SIZE (0x5): Sends the value below the initial value", PROTOCOL, |peer| {
        peer.settings(&[(setting::MAX_FRAME_SIZE, 16_383)]);
    }),
    case(
        "http2/6.5.2/4",
        "SETTINGS_MAX_FRAME_SIZE (0x5): Sends the value above the maximum allowed frame size",
        PROTOCOL,
        |peer| peer.settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)]),
    ),
    case("http2/6.5.2/5", "Sends a SETTINGS frame with unknown identifier", Want::PingAck(ZERO), |peer| {
        peer.settings(&[(0xff, 1)]);
        peer.ping(0, &ZERO);
    }),
    case("http2/6.5.3/1", "Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE", Want::OneByte, |peer| {
        peer.settings(&[(setting::INITIAL_WINDOW_SIZE, 100), (setting::INITIAL_WINDOW_SIZE, 1)]);
        peer.expect(Want::SettingsAck);
        peer.get(1);
    }),
    case("http2/6.5.3/2", "Sends a SETTINGS frame without ACK flag", Want::SettingsAck, |peer| {
        peer.settings(&[(setting::ENABLE_PUSH, 0)]);
    }),
    case("http2/6.7/1", "Sends a PING frame", Want::PingAck(WORD), |peer| peer.ping(0, &WORD)),
    case("http2/6.7/2", "Sends a PING frame with ACK", Want::PingAck(WORD), |peer| {
        peer.ping(flag::ACK, b"invalid\0");
        peer.ping(0, &WORD);
    }),
    case("http2/6.7/3", "Sends a PING frame with a stream identifier field value other than 0x0", PROTOCOL, |peer| {
        peer.frame(kind::PING, 0, 1, &ZERO);
    }),
    case("http2/6.7/4", "Sends a PING frame with a length field value other than 8", FRAME_SIZE, |peer| {
        peer.ping(0, &[0; 6]);
    }).with_protocol_error(),
    case("http2/6.8/1", "Sends a GOAWAY frame with a stream identifier other than 0x0", PROTOCOL, |peer| {
        peer.frame(kind::GOAWAY, 0, 1, &ZERO);
    }),
    case(
        "http2/6.10/1",
        "Sends multiple CONTINUATION frames preceded by a HEADERS frame",
        Want::Headers(1),
        |peer| {
            begin_headers(peer, "GET", flag::END_STREAM);
            peer.continuation(1, false, &dummy());
            peer.continuation(1, true, &dummy());
        },
    ),
    case(
        "http2/6.10/2",
        "Sends a CONTINUATION frame followed by any frame other than CONTINUATION",
        PROTOCOL,
        |peer| {
            begin_headers(peer, "POST", 0);
            peer.continuation(1, false, &dummy());
            peer.data(1, flag::END_STREAM, b"test");
        },
    ),
    case("http2/6.10/3", "Sends a CONTINUATION frame with 0x0 stream identifier", PROTOCOL, |peer| {
        begin_headers(peer, "GET", flag::END_STREAM);
        peer.continuation(0, true, &dummy());
    }),
    case(
        "http2/6.10/4",
        "Sends a CONTINUATION frame preceded by a HEADERS frame with END_HEADERS flag",
        PROTOCOL,
        |peer| {
            peer.get(1);
            peer.continuation(1, true, &dummy());
        },
    ),
    case(
        "http2/6.10/5",
        "Sends a CONTINUATION frame preceded by a CONTINUATION frame with END_HEADERS flag",
        PROTOCOL,
        |peer| {
            begin_headers(peer, "GET", flag::END_STREAM);
            peer.continuation(1, true, &dummy());
            peer.continuation(1, true, &dummy());
        },
    ),
    case("http2/6.10/6", "Sends a CONTINUATION frame preceded by a DATA frame", PROTOCOL, |peer| {
        begin_headers(peer, "POST", 0);
        peer.data(1, flag::END_STREAM, b"test");
        peer.continuation(1, false, &dummy());
        peer.continuation(0, true, &dummy());
    }),
    case("http2/7/1", "Sends a GOAWAY frame with unknown error code", Want::PingAckOrClose(WORD), |peer| {
        peer.goaway(0xff, b"");
        peer.ping(0, &WORD);
    }),
    case("http2/7/2", "Sends a RST_STREAM frame with unknown error code", Want::PingAckOrClose(ZERO), |peer| {
        peer.post(1);
        peer.reset(1, 0xff);
        peer.ping(0, &ZERO);
    }),
    case("http2/8.2/1", "Sends a PUSH_PROMISE frame", PROTOCOL, |peer| {
        let promise = [&3_u32.to_be_bytes()[..], &fields("GET", &[])].concat();
        peer.frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise);
    }),
    case(
        "http2/8.1/1",
        "Sends a second HEADERS frame without the END_STREAM flag",
        Want::StreamError(&[code::PROTOCOL_ERROR]),
        |peer| {
            peer.post(1);
            peer.data(1, 0, b"test");
            peer.headers(1, 0, &block(&[("x-test", "ok")]));
        },
    ),
];
