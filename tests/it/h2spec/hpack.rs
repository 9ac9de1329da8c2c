//! Blocks of fields that do not decompress (RFC 7541).

use crate::world::frames::{code, flag, integer, setting};

use super::peer::{Peer, Want, fields};
use super::{Case, case};

const COMPRESSION: Want = Want::ConnectionError(&[code::COMPRESSION_ERROR]);

/// A request with this behind its fields.
fn get_with(peer: &mut Peer, representation: &[u8]) {
    peer.headers(1, flag::END_STREAM, &[&fields("GET", &[])[..], representation].concat());
}

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(
        "hpack/2.3.3/1",
        "Sends a indexed header field representation with invalid index",
        COMPRESSION,
        |peer| get_with(peer, b"\xc6"),
    ).with_protocol_error(),
    case(
        "hpack/2.3.3/2",
        "Sends a literal header field representation with invalid index",
        COMPRESSION,
        |peer| get_with(peer, b"\x7f\x07\x00"),
    ).with_protocol_error(),
    case(
        "hpack/4.2/1",
        "Sends a dynamic table size update at the end of header block",
        COMPRESSION,
        |peer| get_with(peer, b"\x21"),
    ).with_protocol_error(),
    case(
        "hpack/5.2/1",
        "Sends a Huffman-encoded string literal representation with padding longer than 7 bits",
        COMPRESSION,
        |peer| get_with(peer, b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
    ).with_protocol_error(),
    case(
        "hpack/5.2/2",
        "Sends a Huffman-encoded string literal representation padded by zero",
        COMPRESSION,
        |peer| get_with(peer, b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
    ).with_protocol_error(),
    case(
        "hpack/5.2/3",
        "Sends a Huffman-encoded string literal representation containing the EOS symbol",
        COMPRESSION,
        |peer| get_with(peer, b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),
    ).with_protocol_error(),
    case(
        "hpack/6.1/1",
        "Sends a indexed header field representation with index 0",
        COMPRESSION,
        |peer| get_with(peer, b"\x80"),
    ).with_protocol_error(),
    case(
        "hpack/6.3/1",
        "Sends a dynamic table size update larger than the value of SETTINGS_HEADER_TABLE_SIZE",
        COMPRESSION,
        |peer| {
            let most = peer.setting(setting::HEADER_TABLE_SIZE).unwrap_or(4096);
            let mut block = Vec::new();
            integer(0x20, 5, most as usize + 1, &mut block);
            peer.headers(1, flag::END_STREAM, &[block, fields("GET", &[])].concat());
        },
    ).with_protocol_error(),
];
