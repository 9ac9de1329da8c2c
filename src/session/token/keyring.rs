//! The keys that seal and open tokens.
//!
//! The first key seals, all keys open, so a key can be rotated without losing a session: add the new key after the old one
//! on every proxy, then make it the first, then remove the old one when its tokens have expired.
//!
//! A configured secret is never used directly. HKDF-SHA256 ([RFC 5869]) derives a key for each purpose from it.
//!
//! [RFC 5869]: https://www.rfc-editor.org/rfc/rfc5869

use std::fmt;
use std::sync::Arc;

use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use super::xchacha::XChaCha20Poly1305;
use crate::session::key::{LogKey, name_digest};

/// Upper limit of keys. A hostile token costs one attempt for each key with its tag.
pub const MAX_KEYS: usize = 16;
/// Lower limit of a secret's length in bytes.
pub const MIN_SECRET: usize = 16;

/// Derived keys. Cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<[SealingKey]>,
    name_keys: Arc<[hmac::Key]>,
    ticket_keys: Arc<[Zeroizing<[u8; 32]>]>,
    log_key: LogKey,
}

/// One key.
pub(super) struct SealingKey {
    id: Box<str>,
    /// Two bytes of a hash of the id, in clear in tokens: selects the key to try. Two ids may share a tag.
    pub(super) tag: [u8; 2],
    pub(super) cipher: XChaCha20Poly1305,
}

/// Why a keyring cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is no key.
    #[error("no key: one is needed to seal tokens")]
    NoKeys,
    /// There are more than [`MAX_KEYS`].
    #[error("{0} keys: at most {MAX_KEYS} are allowed; remove those whose tokens have expired")]
    TooMany(usize),
    /// Two keys have the same id.
    #[error("key \"{0}\" is configured twice")]
    RepeatedId(String),
    /// A secret has fewer than [`MIN_SECRET`] bytes.
    #[error("the secret of key \"{id}\" has {bytes} bytes: fewer than {MIN_SECRET} can be guessed")]
    ShortSecret {
        /// The key's id.
        id: String,
        /// Bytes of its secret.
        bytes: usize,
    },
    /// HKDF failed, which it does only for longer keys than these.
    #[error("no key can be derived from the secret of key \"{0}\"")]
    Derivation(String),
}

impl Keyring {
    /// From ids and secrets: the first seals, all open. Every proxy must have the same ids with the same secrets.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, KeyringError> {
        let configured: Vec<_> = keys.into_iter().collect();
        let Some((first_id, first_secret)) = configured.first().copied() else {
            return Err(KeyringError::NoKeys);
        };
        if configured.len() > MAX_KEYS {
            return Err(KeyringError::TooMany(configured.len()));
        }
        let mut keys: Vec<SealingKey> = Vec::with_capacity(configured.len());
        let mut name_keys = Vec::with_capacity(configured.len());
        let mut ticket_keys = Vec::with_capacity(configured.len());
        for (id, secret) in configured {
            if keys.iter().any(|key| *key.id == *id) {
                return Err(KeyringError::RepeatedId(id.to_owned()));
            }
            if secret.len() < MIN_SECRET {
                return Err(KeyringError::ShortSecret { id: id.to_owned(), bytes: secret.len() });
            }
            let derive = |purpose| derive_key(secret, purpose).ok_or_else(|| KeyringError::Derivation(id.to_owned()));
            let cipher = XChaCha20Poly1305::new(*derive(Purpose::Seal)?);
            keys.push(SealingKey { id: id.into(), tag: name_digest("key", id), cipher });
            name_keys.push(hmac::Key::new(hmac::HMAC_SHA256, &*derive(Purpose::Name)?));
            ticket_keys.push(derive(Purpose::Ticket)?);
        }
        let log =
            derive_key(first_secret, Purpose::Log).ok_or_else(|| KeyringError::Derivation(first_id.to_owned()))?;
        Ok(Self {
            keys: keys.into(),
            name_keys: name_keys.into(),
            ticket_keys: ticket_keys.into(),
            log_key: LogKey::new(&log),
        })
    }

    /// A keyring for this process only, from random bytes: its tokens open on no other proxy and not after a restart.
    ///
    /// # Errors
    /// As [`Keyring::new`]; none is possible for these arguments.
    pub fn random(secret: [u8; 32]) -> Result<Self, KeyringError> {
        Self::new([("process", secret.as_slice())])
    }

    /// The id of a key by its index in the keyring.
    #[must_use]
    pub fn id(&self, index: usize) -> Option<&str> {
        self.keys.get(index).map(|key| &*key.id)
    }

    /// The key that hashes sessions for logs: the same on every proxy with the same first key.
    #[must_use]
    pub fn log_key(&self) -> &LogKey {
        &self.log_key
    }

    /// The keys that hash external ids: the current one first, then those of before a rotation.
    pub(in crate::session) fn name_keys(&self) -> &Arc<[hmac::Key]> {
        &self.name_keys
    }

    /// What the keys of TLS session tickets are derived from: the current one first.
    pub(super) fn ticket_keys(&self) -> &[Zeroizing<[u8; 32]>] {
        &self.ticket_keys
    }

    pub(super) fn keys(&self) -> &Arc<[SealingKey]> {
        &self.keys
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

/// The purpose of a derived key. The labels are part of the protocol and must never change.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Seal,
    Name,
    Ticket,
    Log,
    Vault,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Seal => b"homing token seal XChaCha20-Poly1305 v1",
            Self::Name => b"homing session name HMAC-SHA256 v1",
            Self::Ticket => b"homing TLS session ticket v1",
            Self::Log => b"homing log digest HMAC-SHA256 v1",
            Self::Vault => b"homing vault XChaCha20-Poly1305 v1",
        }
    }
}

/// HKDF-SHA256 without salt: a secret should be random already, and a salt would not mend a weak one.
pub(super) fn derive_key(secret: &[u8], purpose: Purpose) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
    pseudo_random.expand(&[purpose.label()], hkdf::HKDF_SHA256).ok()?.fill(&mut *key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::key::SessionKey;

    const SECRET: &[u8] = b"sixteen bytes or more";

    #[test]
    fn a_keyring_takes_one_to_sixteen_keys() {
        assert_eq!(Keyring::new([]).unwrap_err(), KeyringError::NoKeys);
        let ids: Vec<String> = (0..17).map(|n| n.to_string()).collect();
        let keys = |count: usize| ids.iter().take(count).map(|id| (id.as_str(), SECRET));
        assert!(Keyring::new(keys(16)).is_ok());
        assert_eq!(Keyring::new(keys(17)).unwrap_err(), KeyringError::TooMany(17));
    }

    #[test]
    fn repeated_ids_and_short_secrets_are_refused_by_name() {
        let twice = Keyring::new([("k1", SECRET), ("k1", SECRET)]).unwrap_err();
        assert_eq!(twice, KeyringError::RepeatedId("k1".into()));
        let short = Keyring::new([("k1", &[0; 15][..])]).unwrap_err();
        assert_eq!(short.to_string(), "the secret of key \"k1\" has 15 bytes: fewer than 16 can be guessed");
    }

    #[test]
    fn derived_keys_never_change_and_differ_by_purpose() {
        let first_half = |purpose| {
            let key = derive_key(SECRET, purpose).unwrap();
            u128::from_be_bytes(*key.first_chunk().unwrap())
        };
        assert_eq!(first_half(Purpose::Seal), 0x8e26_caff_bfcc_9366_fd91_b286_668f_8d60);
        assert_eq!(first_half(Purpose::Log), 0xc615_3e03_a10e_a34b_d83c_c9cc_408b_df57);
    }

    #[test]
    fn proxies_with_the_same_first_key_write_the_same_digests() {
        let digest =
            |keys: &[(&str, &[u8])]| Keyring::new(keys.iter().copied()).unwrap().log_key().digest8(SessionKey(1));
        let other: &[u8] = b"another secret, as long";
        assert_eq!(digest(&[("k1", SECRET)]), digest(&[("k1", SECRET), ("k2", other)]));
        assert_ne!(digest(&[("k1", SECRET)]), digest(&[("k2", other), ("k1", SECRET)]));
    }

    #[test]
    fn secrets_are_not_printed() {
        let keyring = Keyring::new([("k2", SECRET), ("k1", SECRET)]).unwrap();
        assert_eq!(format!("{keyring:?}"), r#"["k2", "k1"]"#);
        assert_eq!(keyring.id(1), Some("k1"));
        assert_eq!(keyring.id(2), None);
    }
}
