//! External ids of sessions: an id of the application, or a client's address.
//!
//! An application's id is a bearer secret and an address is personal data, so neither is stored or logged. Their keyed
//! hashes are: useless without the key, and equal on every proxy with the same keys.

use std::fmt;
use std::sync::Arc;

use ring::hmac;

use super::key::SessionKey;
use super::token::keyring::Keyring;

/// The kind of an external id; two kinds never share a key. The words in the hash are part of the protocol between
/// proxies and must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalIdKind {
    /// The application's id, in whichever part of the request.
    Id,
    /// A client's address.
    Address,
}

/// Hashes external ids of one kind, in one pool, to session keys: the first 128 bits of HMAC-SHA256.
#[derive(Clone)]
pub struct ExternalIdHasher {
    keys: Arc<[hmac::Key]>,
    /// Hashed before the id: kind and pool, each terminated by a byte that neither can contain.
    context: Box<[u8]>,
}

impl ExternalIdHasher {
    /// A hasher for a pool.
    #[must_use]
    pub fn new(keyring: &Keyring, pool: &str, kind: ExternalIdKind) -> Self {
        let kind: &[u8] = match kind {
            ExternalIdKind::Id => b"id",
            ExternalIdKind::Address => b"address",
        };
        Self { keys: Arc::clone(keyring.name_keys()), context: [kind, b"\0", pool.as_bytes(), b"\0"].concat().into() }
    }

    /// The key of an id. Allocates nothing.
    #[must_use]
    pub fn key(&self, name: &[u8]) -> SessionKey {
        // A keyring always has a first key.
        self.keys.first().map_or(SessionKey(0), |key| self.under(key, name))
    }

    /// The keys that the id had before the keyring was rotated, the latest first.
    pub fn former<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = SessionKey> + 'a {
        self.keys.iter().skip(1).map(|key| self.under(key, name))
    }

    fn under(&self, key: &hmac::Key, name: &[u8]) -> SessionKey {
        let mut context = hmac::Context::with_key(key);
        context.update(&self.context);
        context.update(name);
        let tag = context.sign();
        SessionKey(tag.as_ref().first_chunk().map_or(0, |first| u128::from_be_bytes(*first)))
    }
}

impl fmt::Debug for ExternalIdHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalIdHasher(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: (&str, &[u8]) = ("k1", b"sixteen bytes or more");
    const NEW: (&str, &[u8]) = ("k2", b"another secret, as long");

    fn hasher(keys: &[(&str, &[u8])], pool: &str, kind: ExternalIdKind) -> ExternalIdHasher {
        ExternalIdHasher::new(&Keyring::new(keys.iter().copied()).unwrap(), pool, kind)
    }

    #[test]
    fn keys_of_external_ids_never_change() {
        let key = hasher(&[OLD], "shop", ExternalIdKind::Id).key(b"0AB3.app1");
        assert_eq!(key.0, hasher(&[OLD, NEW], "shop", ExternalIdKind::Id).key(b"0AB3.app1").0);
        assert_eq!(format!("{:032x}", key.0), "fb81deb989bf113206b74dc6e1f84829");
    }

    #[test]
    fn pools_and_kinds_do_not_share_keys() {
        let key = hasher(&[OLD], "shop", ExternalIdKind::Id).key(b"x");
        assert_ne!(key, hasher(&[OLD], "chat", ExternalIdKind::Id).key(b"x"));
        assert_ne!(key, hasher(&[OLD], "shop", ExternalIdKind::Address).key(b"x"));
    }

    #[test]
    fn ids_of_before_a_key_rotation_can_be_found() {
        let before = hasher(&[OLD], "shop", ExternalIdKind::Id);
        let after = hasher(&[NEW, OLD], "shop", ExternalIdKind::Id);
        assert_ne!(after.key(b"x"), before.key(b"x"));
        assert_eq!(after.former(b"x").collect::<Vec<_>>(), [before.key(b"x")]);
        assert_eq!(before.former(b"x").count(), 0);
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", hasher(&[OLD], "shop", ExternalIdKind::Id)), "ExternalIdHasher(hidden)");
    }
}
