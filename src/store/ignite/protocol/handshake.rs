//! The first request on a connection, and its response.

use bytes::Bytes;

use super::Malformed;
use super::reader::{Object, Reader};
use super::request::Frame;

/// The version of the protocol that is spoken here: Ignite's newest, since 2.9.
pub(in crate::store::ignite) const VERSION: [i16; 3] = [1, 7, 0];
/// Bits of the features that are asked for: heartbeats (bit 11), which Ignite has since 2.12.
const FEATURES: [u8; 2] = [0x00, 0x08];
/// A handshake, and a thin client.
const HANDSHAKE: u8 = 1;
const THIN_CLIENT: u8 = 2;
/// The status of a response that refuses user or password.
const AUTHENTICATION_FAILED: i32 = 2000;

/// What the server answered.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::ignite) enum Handshake {
    /// It speaks this version, and has the features.
    Accepted,
    /// It speaks this version, and has not all features.
    TooOld,
    /// It does not know this user, or the password is wrong.
    WrongLogin(String),
    /// It speaks another version, or does not want this client for a reason of its own.
    Refused {
        /// Its own version.
        version: [i16; 3],
        /// In its words.
        reason: String,
    },
}

/// The request; a user goes with a password.
pub(in crate::store::ignite) fn request(login: Option<(&str, &str)>) -> Vec<u8> {
    let mut frame = Frame::new();
    frame.u8(HANDSHAKE);
    for number in VERSION {
        frame.i16(number);
    }
    frame.u8(THIN_CLIENT);
    frame.byte_array(&FEATURES);
    if let Some((user, password)) = login {
        frame.string(user.as_bytes());
        frame.string(password.as_bytes());
    }
    frame.finish()
}

/// Reads the response.
///
/// # Errors
/// When it is none.
pub(in crate::store::ignite) fn response(frame: Bytes) -> Result<Handshake, Malformed> {
    let mut reader = Reader::new(frame);
    if reader.bool()? {
        let Object::Bytes(features) = reader.object()? else { return Err(Malformed("a handshake without features")) };
        // The node's id follows.
        reader.object()?;
        reader.end()?;
        let has = |at: usize| features.get(at).copied().unwrap_or_default();
        let complete = FEATURES.iter().enumerate().all(|(at, wanted)| has(at) & wanted == *wanted);
        return Ok(if complete { Handshake::Accepted } else { Handshake::TooOld });
    }
    let version = [reader.i16()?, reader.i16()?, reader.i16()?];
    let reason = reader.text()?;
    // Older servers give no status.
    let status = reader.i32().unwrap_or_default();
    if status == AUTHENTICATION_FAILED {
        return Ok(Handshake::WrongLogin(reason));
    }
    Ok(Handshake::Refused { version, reason })
}
