//! Ignite's thin client protocol 1.7, as far as it is used here: bytes in both directions, plain code without I/O.
//!
//! Every message is a frame: its length in four bytes, then so many bytes. All numbers are little-endian. Source: "Binary
//! Client Protocol" of Ignite's documentation, held against a capture of a 2.17 server in `tests/data/ignite`.
//!
//! - [`frame`]: frames out of a stream of bytes. [`reader`]: fields out of a frame.
//! - [`handshake`]: the first request and its response.
//! - [`request`]: the operations. [`response`]: what a frame from the server is, and the payload of each operation.
//! - [`notification`]: the events of a continuous query.

pub(super) mod frame;
pub(super) mod handshake;
pub(super) mod notification;
pub(super) mod reader;
pub(super) mod request;
pub(super) mod response;
#[cfg(test)]
mod tests;

/// The bytes are no message of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Codes that say which type a data object has.
mod type_code {
    pub(super) const BYTE: u8 = 1;
    pub(super) const SHORT: u8 = 2;
    pub(super) const INT: u8 = 3;
    pub(super) const LONG: u8 = 4;
    pub(super) const FLOAT: u8 = 5;
    pub(super) const DOUBLE: u8 = 6;
    pub(super) const CHAR: u8 = 7;
    pub(super) const BOOL: u8 = 8;
    pub(super) const STRING: u8 = 9;
    pub(super) const UUID: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const BYTE_ARRAY: u8 = 12;
    pub(super) const TIMESTAMP: u8 = 33;
    pub(super) const NULL: u8 = 101;
    pub(super) const COMPLEX: u8 = 103;
}

/// How the protocol names a cache: Java's hash of its name.
pub(super) fn cache_id(name: &str) -> i32 {
    name.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}
