//! Streams: their states, identifiers, number and dependencies, and the handling of errors (section 5 of RFC 7540).

use crate::world::frames::{code, flag, kind, setting};

use super::peer::{Peer, Want, dummy, fields, priority};
use super::{Case, case};

const ZERO: [u8; 8] = [0; 8];
const PROTOCOL: Want = Want::ConnectionError(&[code::PROTOCOL_ERROR]);
const PROTOCOL_ON_STREAM: Want = Want::StreamError(&[code::PROTOCOL_ERROR]);
const CLOSED_STREAM: Want = Want::StreamError(&[code::STREAM_CLOSED]);
const CLOSED_OR_PROTOCOL: &[u32] = &[code::STREAM_CLOSED, code::PROTOCOL_ERROR];

/// A request that the client has cancelled.
fn cancelled(peer: &mut Peer) {
    peer.headers(1, 0, &fields("GET", &[]));
    peer.reset(1, code::CANCEL);
}

/// A request that was responded to.
fn completed(peer: &mut Peer) {
    peer.get(1);
    peer.expect(Want::StreamEnd);
}

/// PING on a stream, which is an error of the connection.
fn invalid_ping(peer: &mut Peer) {
    peer.frame(kind::PING, 0, 3, &ZERO);
}

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(
        "http2/5.1/1",
        "idle: Sends a DATA frame",
        Want::StreamError(CLOSED_OR_PROTOCOL),
        |peer| peer.data(1, flag::END_STREAM, b"test"),
    ),
    case("http2/5.1/2", "idle: Sends a RST_STREAM frame", PROTOCOL, |peer| peer.reset(1, code::CANCEL)),
    case("http2/5.1/3", "idle: Sends a WINDOW_UPDATE frame", PROTOCOL, |peer| peer.window_update(1, 100)),
    case("http2/5.1/4", "idle: Sends a CONTINUATION frame", PROTOCOL, |peer| {
        peer.continuation(1, true, &fields("GET", &[]));
    }),
    case("http2/5.1/5", "half closed (remote): Sends a DATA frame", CLOSED_STREAM, |peer| {
        peer.get(1);
        peer.data(1, flag::END_STREAM, b"test");
    }).with_protocol_error(),
    case("http2/5.1/6", "half closed (remote): Sends a HEADERS frame", CLOSED_STREAM, |peer| {
        peer.get(1);
        peer.get(1);
    }).with_protocol_error(),
    case(
        "http2/5.1/7",
        "half closed (remote): Sends a CONTINUATION frame",
        Want::StreamError(CLOSED_OR_PROTOCOL),
        |peer| {
            peer.get(1);
            peer.continuation(1, true, &fields("GET", &[]));
        },
    ),
    case("http2/5.1/8", "closed: Sends a DATA frame after sending RST_STREAM frame", CLOSED_STREAM, |peer| {
        cancelled(peer);
        peer.data(1, flag::END_STREAM, b"test");
    }),
    case("http2/5.1/9", "closed: Sends a HEADERS frame after sending RST_STREAM frame", CLOSED_STREAM, |peer| {
        cancelled(peer);
        peer.get(1);
    }).with_protocol_error(),
    case(
        "http2/5.1/10",
        "closed: Sends a CONTINUATION frame after sending RST_STREAM frame",
        Want::StreamError(CLOSED_OR_PROTOCOL),
        |peer| {
            cancelled(peer);
            peer.continuation(1, true, &dummy());
        },
    ),
    case("http2/5.1/11", "closed: Sends a DATA frame", CLOSED_STREAM, |peer| {
        completed(peer);
        peer.data(1, flag::END_STREAM, b"test");
    }),
    case(
        "http2/5.1/12",
        "closed: Sends a HEADERS frame",
        Want::ConnectionError(&[code::STREAM_CLOSED]),
        |peer| {
            completed(peer);
            peer.get(1);
        },
    ).with_protocol_error(),
    case(
        "http2/5.1/13",
        "closed: Sends a CONTINUATION frame",
        Want::ConnectionError(CLOSED_OR_PROTOCOL),
        |peer| {
            completed(peer);
            peer.continuation(1, true, &dummy());
        },
    ),
    case("http2/5.1.1/1", "Sends even-numbered stream identifier", PROTOCOL, |peer| peer.get(2)),
    case("http2/5.1.1/2", "Sends stream identifier that is numerically smaller than previous", PROTOCOL, |peer| {
        peer.get(5);
        peer.get(3);
    }),
    case(
        "http2/5.1.2/1",
        "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
        Want::StreamError(&[code::PROTOCOL_ERROR, code::REFUSED_STREAM]),
        |peer| {
            let most = peer.setting(setting::MAX_CONCURRENT_STREAMS).expect("a limit of streams");
            peer.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
            for n in 0..=most {
                peer.get(1 + 2 * n);
            }
        },
    ),
    case("http2/5.3.1/1", "Sends HEADERS frame that depends on itself", PROTOCOL_ON_STREAM, |peer| {
        let prioritized = [priority(1, 255), fields("GET", &[])].concat();
        peer.headers(1, flag::END_STREAM | flag::PRIORITY, &prioritized);
    }),
    case("http2/5.3.1/2", "Sends PRIORITY frame that depend on itself", PROTOCOL_ON_STREAM, |peer| {
        peer.priority(1, 1);
    }),
    case("http2/5.4.1/1", "Sends an invalid PING frame for connection close", Want::Close, invalid_ping),
    case(
        "http2/5.4.1/2",
        "Sends an invalid PING frame to receive GOAWAY frame",
        Want::GoAway(code::PROTOCOL_ERROR),
        invalid_ping,
    ),
    case("http2/5.5/1", "Sends an unknown extension frame", Want::PingAck(ZERO), |peer| {
        peer.frame(0x16, 0, 0, &ZERO);
        peer.ping(0, &ZERO);
    }),
    case("http2/5.5/2", "Sends an unknown extension frame in the middle of a header block", PROTOCOL, |peer| {
        peer.frame(kind::HEADERS, flag::END_STREAM, 1, &fields("GET", &[]));
        peer.frame(0x16, 0, 0, &ZERO);
    }),
];
