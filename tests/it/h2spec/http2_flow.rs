//! Flow control (section 6.9 of RFC 7540).

use crate::world::frames::{code, kind, setting};

use super::peer::{Peer, Want};
use super::{Case, case};

const MOST: u32 = (1 << 31) - 1;

fn set_window(peer: &mut Peer, size: u32) {
    peer.settings(&[(setting::INITIAL_WINDOW_SIZE, size)]);
}

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(
        "http2/6.9/1",
        "Sends a WINDOW_UPDATE frame with a flow control window increment of 0",
        Want::ConnectionError(&[code::PROTOCOL_ERROR]),
        |peer| peer.window_update(0, 0),
    ),
    case(
        "http2/6.9/2",
        "Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
        Want::StreamError(&[code::PROTOCOL_ERROR]),
        |peer| {
            peer.post(1);
            peer.window_update(1, 0);
        },
    ),
    case(
        "http2/6.9/3",
        "Sends a WINDOW_UPDATE frame with a length other than 4 octets",
        Want::ConnectionError(&[code::FRAME_SIZE_ERROR]),
        |peer| peer.frame(kind::WINDOW_UPDATE, 0, 0, b"\x00\x00\x01"),
    ).with_protocol_error(),
    case(
        "http2/6.9.1/1",
        "Sends SETTINGS frame to set the initial window size to 1 and sends HEADERS frame",
        Want::OneByte,
        |peer| {
            set_window(peer, 1);
            peer.expect(Want::SettingsAck);
            peer.get(1);
        },
    ),
    case(
        "http2/6.9.1/2",
        "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1",
        Want::GoAway(code::FLOW_CONTROL_ERROR),
        |peer| {
            peer.window_update(0, MOST);
            peer.window_update(0, MOST);
        },
    ),
    case(
        "http2/6.9.1/3",
        "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
        Want::Reset(code::FLOW_CONTROL_ERROR),
        |peer| {
            peer.post(1);
            peer.window_update(1, MOST);
            peer.window_update(1, MOST);
        },
    ),
    case(
        "http2/6.9.2/1",
        "Changes SETTINGS_INITIAL_WINDOW_SIZE after sending HEADERS frame",
        Want::OneByte,
        |peer| {
            set_window(peer, 0);
            peer.expect(Want::SettingsAck);
            peer.get(1);
            set_window(peer, 1);
        },
    ),
    case("http2/6.9.2/2", "Sends a SETTINGS frame for window size to be negative", Want::OneByte, |peer| {
        set_window(peer, 3);
        peer.expect(Want::SettingsAck);
        peer.get(1);
        peer.expect(Want::Data);
        set_window(peer, 2);
        peer.expect(Want::SettingsAck);
        peer.window_update(1, 2);
    }),
    case(
        "http2/6.9.2/3",
        "Sends a SETTINGS_INITIAL_WINDOW_SIZE settings with an exceeded maximum window size value",
        Want::ConnectionError(&[code::FLOW_CONTROL_ERROR]),
        |peer| set_window(peer, MOST + 1),
    ).with_protocol_error(),
];
