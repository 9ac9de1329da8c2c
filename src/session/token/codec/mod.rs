//! Seals and opens the tokens of one pool.
//!
//! Version, key and pool are associated data: a token of one pool does not open in another. A token that does not open is
//! ignored and the client is new; the reason is a [`TokenError`].

use std::sync::Arc;

use super::cache::{self, CodecId};
use super::keyring::{Keyring, SealingKey};
use super::layout::{self, Envelope, SEALED_LEN, VERSION};
use super::{Token, TokenError, TokenText};
use crate::session::key::name_digest;

/// Seals and opens the tokens of one pool. Opening allocates nothing.
#[derive(Clone)]
pub struct PoolCodec {
    keys: Arc<[SealingKey]>,
    /// The associated data for each key.
    associated: Arc<[Box<[u8]>]>,
    /// Four bytes of a hash of the pool's name, in clear in tokens: tokens of other pools are recognised without a key.
    pool_tag: [u8; 4],
    /// The cache's name for this codec. Clones share it, since they open the same tokens.
    id: CodecId,
}

/// The outcome of opening a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenOutcome {
    /// It opens.
    Valid {
        /// Its content.
        token: Token,
        /// Whether the first key of the keyring sealed it.
        sealed_by_first: bool,
        /// Index into the keyring of the key that sealed it.
        key: usize,
    },
    /// Its pool tag is that of another pool; no key was tried.
    OtherPool,
    /// It does not open.
    Forged(TokenError),
}

impl PoolCodec {
    /// A codec for the pool with this name.
    #[must_use]
    pub fn new(keyring: &Keyring, pool: &str) -> Self {
        let keys = Arc::clone(keyring.keys());
        let associated = keys.iter().map(|key| associated_data(key.tag, pool)).collect();
        Self { keys, associated, pool_tag: name_digest("pool", pool), id: CodecId::next() }
    }

    /// Seals a token with the first key. The nonce must be 24 fresh random bytes.
    ///
    /// Times are clamped: `created` to the year 10889, `issued` to between `created` and 34 years after it.
    #[must_use]
    pub fn seal(&self, token: &Token, nonce: [u8; 24]) -> TokenText {
        let mut body = layout::body(token);
        let sealed = self.keys().next().and_then(|(key, associated)| {
            let seal = key.cipher.seal(&nonce, associated, &mut body)?;
            Some((key.tag, layout::sealed(body, seal)))
        });
        // A keyring has a first key, and sealing 39 bytes cannot fail. If it did, the result would be a token that does not
        // open, not one that shows its body.
        let (key_tag, sealed) = sealed.unwrap_or(([0; 2], [0; SEALED_LEN]));
        Envelope { key_tag, pool_tag: self.pool_tag, nonce, sealed }.to_text()
    }

    /// Opens a client's text, whatever it contains.
    #[must_use]
    pub fn open(&self, text: &[u8]) -> OpenOutcome {
        let envelope = match Envelope::from_text(text) {
            Ok(envelope) => envelope,
            Err(reason) => return OpenOutcome::Forged(reason),
        };
        if envelope.pool_tag != self.pool_tag {
            return OpenOutcome::OtherPool;
        }
        let mut reason = TokenError::UnknownKey;
        for (index, (key, associated)) in self.keys().enumerate() {
            if key.tag != envelope.key_tag {
                continue;
            }
            match unseal(key, associated, &envelope) {
                Ok(token) => return OpenOutcome::Valid { token, sealed_by_first: index == 0, key: index },
                // Another key may have the same tag.
                Err(error) => reason = error,
            }
        }
        OpenOutcome::Forged(reason)
    }

    /// The same result as [`open`](Self::open), from this thread's `cache` where possible: a client sends the
    /// same token with every request.
    #[must_use]
    pub fn reopen(&self, text: &[u8]) -> OpenOutcome {
        let Ok(text) = <&[u8; TokenText::LEN]>::try_from(text) else { return OpenOutcome::Forged(TokenError::Length) };
        if let Some((token, key)) = cache::find(self.id, text) {
            return OpenOutcome::Valid { token, sealed_by_first: key == 0, key: key.into() };
        }
        let opened = self.open(text);
        if let OpenOutcome::Valid { token, key, .. } = opened
            && let Ok(key) = key.try_into()
        {
            cache::insert(self.id, text, token, key);
        }
        opened
    }

    fn keys(&self) -> impl Iterator<Item = (&SealingKey, &[u8])> {
        self.keys.iter().zip(self.associated.iter().map(|data| &**data))
    }
}

fn unseal(key: &SealingKey, associated: &[u8], envelope: &Envelope) -> Result<Token, TokenError> {
    let mut sealed = envelope.sealed;
    let body = key.cipher.open(&envelope.nonce, associated, &mut sealed).ok_or(TokenError::Seal)?;
    layout::token(body)
}

/// The data that the seal covers besides the body. Only the pool's name varies in length and it is last, so the data is
/// unique for each pool.
fn associated_data(key_tag: [u8; 2], pool: &str) -> Box<[u8]> {
    [b"homing token", &[VERSION][..], &key_tag, pool.as_bytes()].concat().into()
}

impl std::fmt::Debug for PoolCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolCodec")
    }
}

#[cfg(test)]
mod tests;
