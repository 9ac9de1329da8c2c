//! Seals and opens the tokens of one pool.
//!
//! Version, key and pool are associated data: a token of one pool is worth nothing in another. A token that does not
//! open is no token, and the client is new; why it did not open has a name.

use std::sync::Arc;

use super::cache::{self, CodecNumber};
use super::keyring::{Keyring, SealingKey};
use super::layout::{self, Envelope, SEALED_LEN, VERSION};
use super::{Flaw, Token, TokenText};
use crate::session::key::name_digest;

/// Seals and opens the tokens of one pool. Opening allocates nothing.
#[derive(Clone)]
pub struct PoolCodec {
    keys: Arc<[SealingKey]>,
    /// For each key, what is sealed with it besides the body.
    associated: Arc<[Box<[u8]>]>,
    /// Four bytes of a hash of the pool's name, in clear in tokens: another pool's are recognised without trying a key.
    pool_tag: [u8; 4],
    /// Its clones, which open alike, have the same.
    number: CodecNumber,
}

/// What came of opening a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It is ours.
    Valid {
        /// What it says.
        token: Token,
        /// Whether the key that would seal it today has sealed it.
        sealed_by_first: bool,
        /// The place in the keyring of the key that sealed it.
        key: usize,
    },
    /// It is for another pool, by its own words: nothing of it was tried.
    OtherPool,
    /// It is not ours.
    Forged(Flaw),
}

impl PoolCodec {
    /// For the pool of this name.
    #[must_use]
    pub fn new(keyring: &Keyring, pool: &str) -> Self {
        let keys = Arc::clone(keyring.keys());
        let associated = keys.iter().map(|key| associated_data(key.tag, pool)).collect();
        Self { keys, associated, pool_tag: name_digest("pool", pool), number: CodecNumber::draw() }
    }

    /// Seals a token with the first key. The nonce is 24 random bytes, new ones each time.
    ///
    /// Times that do not fit are cut to what does: `created` to the year 10889, `issued` to between `created` and 34
    /// years after it.
    #[must_use]
    pub fn seal(&self, token: &Token, nonce: [u8; 24]) -> TokenText {
        let mut body = layout::body(token);
        let sealed = self.keys().next().and_then(|(key, associated)| {
            let seal = key.cipher.seal(&nonce, associated, &mut body)?;
            Some((key.tag, layout::sealed(body, seal)))
        });
        // A keyring has a first key, and 39 bytes are never too many to seal. Were it otherwise, this would be a token
        // that does not open, and not one that shows its body.
        let (key_tag, sealed) = sealed.unwrap_or(([0; 2], [0; SEALED_LEN]));
        Envelope { key_tag, pool_tag: self.pool_tag, nonce, sealed }.to_text()
    }

    /// Opens what a client sent, whatever it sent.
    #[must_use]
    pub fn open(&self, text: &[u8]) -> Opened {
        let envelope = match Envelope::from_text(text) {
            Ok(envelope) => envelope,
            Err(flaw) => return Opened::Forged(flaw),
        };
        if envelope.pool_tag != self.pool_tag {
            return Opened::OtherPool;
        }
        let mut flaw = Flaw::UnknownKey;
        for (place, (key, associated)) in self.keys().enumerate() {
            if key.tag != envelope.key_tag {
                continue;
            }
            match unsealed(key, associated, &envelope) {
                Ok(token) => return Opened::Valid { token, sealed_by_first: place == 0, key: place },
                // Another key may have the same tag.
                Err(broken) => flaw = broken,
            }
        }
        Opened::Forged(flaw)
    }

    /// The same, for a client that shows its token with every request: what this thread has opened lately is remembered
    /// ([`cache`](super::cache)). The answer is that of [`open`](Self::open), always.
    #[must_use]
    pub fn reopen(&self, text: &[u8]) -> Opened {
        let Ok(text) = <&[u8; TokenText::LEN]>::try_from(text) else { return Opened::Forged(Flaw::Length) };
        if let Some((token, key)) = cache::find(self.number, text) {
            return Opened::Valid { token, sealed_by_first: key == 0, key: key.into() };
        }
        let opened = self.open(text);
        if let Opened::Valid { token, key, .. } = opened
            && let Ok(key) = key.try_into()
        {
            cache::keep(self.number, text, token, key);
        }
        opened
    }

    fn keys(&self) -> impl Iterator<Item = (&SealingKey, &[u8])> {
        self.keys.iter().zip(self.associated.iter().map(|data| &**data))
    }
}

fn unsealed(key: &SealingKey, associated: &[u8], envelope: &Envelope) -> Result<Token, Flaw> {
    let mut sealed = envelope.sealed;
    let body = key.cipher.open(&envelope.nonce, associated, &mut sealed).ok_or(Flaw::Seal)?;
    layout::token(body)
}

/// What is sealed besides the body. Only the pool's name varies in length, and it is last: no two pools share it.
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
