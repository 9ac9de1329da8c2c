//! The byte layout of a token.
//!
//! ```text
//! version 1 | key tag 2 | pool tag 4 | nonce 24 | sealed 39                                                  | seal 16
//!                                               | session 16, server 8, epoch 4, created 6, issued−created 5 |
//! ```
//!
//! 86 bytes, so 115 characters. Numbers are big endian, times are milliseconds. The six bytes of `created` last until
//! the year 10889, the five of `issued − created` for 34 years; larger values are clamped.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::xchacha::{NONCE_LEN, SEAL_LEN};
use super::{Token, TokenError, TokenText, UnixMillis};
use crate::session::key::{ServerId, SessionId};

/// The only version so far.
pub(super) const VERSION: u8 = 1;
/// Bytes of the sealed part.
pub(super) const BODY_LEN: usize = 39;
/// Bytes of the sealed part and its seal.
pub(super) const SEALED_LEN: usize = BODY_LEN + SEAL_LEN;
/// Bytes of a token.
const RAW_LEN: usize = 1 + 2 + 4 + NONCE_LEN + SEALED_LEN;
/// Characters of a token.
const TEXT_LEN: usize = (RAW_LEN * 4).div_ceil(3);

const _: () = assert!(TEXT_LEN == TokenText::LEN && TEXT_LEN <= 120, "a token has at most 120 characters");

const MAX_CREATED: u64 = (1 << 48) - 1;
const MAX_AGE: u64 = (1 << 40) - 1;

/// A token as the client carries it, decoded but sealed.
pub(super) struct Envelope {
    pub key_tag: [u8; 2],
    pub pool_tag: [u8; 4],
    pub nonce: [u8; NONCE_LEN],
    pub sealed: [u8; SEALED_LEN],
}

impl Envelope {
    /// The token's text.
    pub(super) fn to_text(&self) -> TokenText {
        let mut raw = [0; RAW_LEN];
        let rest = put(&mut raw, [VERSION]);
        let rest = put(rest, self.key_tag);
        let rest = put(rest, self.pool_tag);
        let rest = put(rest, self.nonce);
        let rest = put(rest, self.sealed);
        debug_assert!(rest.is_empty(), "{} bytes are left over", rest.len());

        let mut text = [0; TEXT_LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(raw, &mut text);
        debug_assert_eq!(written, Ok(TEXT_LEN));
        TokenText(text)
    }

    /// Parses a client's text as far as possible without a key. Refuses non-canonical base64 (padding, stray trailing
    /// bits), so that a token has only one text.
    pub(super) fn from_text(text: &[u8]) -> Result<Self, TokenError> {
        if text.len() != TEXT_LEN {
            return Err(TokenError::Length);
        }
        // The decoder needs room for whole groups of three bytes.
        let mut room = [0; RAW_LEN.next_multiple_of(3)];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut room).ok().ok_or(TokenError::Encoding)?;
        let raw = room.get(..read).ok_or(TokenError::Encoding)?;

        let ([version], rest) = take(raw)?;
        if version != VERSION {
            return Err(TokenError::Version);
        }
        let (key_tag, rest) = take(rest)?;
        let (pool_tag, rest) = take(rest)?;
        let (nonce, rest) = take(rest)?;
        let (sealed, rest) = take(rest)?;
        if !rest.is_empty() {
            return Err(TokenError::Length);
        }
        Ok(Self { key_tag, pool_tag, nonce, sealed })
    }
}

/// The body before sealing.
pub(super) fn body(token: &Token) -> [u8; BODY_LEN] {
    let created = token.created.0.min(MAX_CREATED);
    let age = token.issued.0.saturating_sub(created).min(MAX_AGE);
    let [_, _, created @ ..] = created.to_be_bytes();
    let [_, _, _, age @ ..] = age.to_be_bytes();

    let mut body = [0; BODY_LEN];
    let rest = put(&mut body, token.session.to_bytes());
    let rest = put(rest, token.server.0.to_be_bytes());
    let rest = put(rest, token.epoch.to_be_bytes());
    let rest = put(rest, created);
    let rest = put(rest, age);
    debug_assert!(rest.is_empty(), "{} bytes are left over", rest.len());
    body
}

/// The token of an opened body. Every body is valid, since only a holder of the key can have sealed it.
pub(super) fn token(body: &[u8]) -> Result<Token, TokenError> {
    let (session, rest) = take(body)?;
    let (server, rest) = take(rest)?;
    let (epoch, rest) = take(rest)?;
    let (created, rest) = take::<6>(rest)?;
    let (age, rest) = take::<5>(rest)?;
    if !rest.is_empty() {
        return Err(TokenError::Length);
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let created = number(&created);
    Ok(Token {
        session: SessionId::from_bytes(session),
        server: ServerId(u64::from_be_bytes(server)),
        epoch: u32::from_be_bytes(epoch),
        created: UnixMillis(created),
        // 48 and 40 bits: no overflow.
        issued: UnixMillis(created + number(&age)),
    })
}

/// The encrypted body followed by its seal.
pub(super) fn sealed(body: [u8; BODY_LEN], seal: [u8; SEAL_LEN]) -> [u8; SEALED_LEN] {
    let mut sealed = [0; SEALED_LEN];
    let rest = put(&mut sealed, body);
    let rest = put(rest, seal);
    debug_assert!(rest.is_empty(), "{} bytes are left over", rest.len());
    sealed
}

/// Writes `part` to the front of `out` and returns the rest.
fn put<const N: usize>(out: &mut [u8], part: [u8; N]) -> &mut [u8] {
    match out.split_first_chunk_mut() {
        Some((head, rest)) => {
            *head = part;
            rest
        }
        None => &mut [],
    }
}

/// Splits a field off the front.
fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), TokenError> {
    bytes.split_first_chunk().map(|(head, rest)| (*head, rest)).ok_or(TokenError::Length)
}
