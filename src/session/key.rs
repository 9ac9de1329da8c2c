//! Internal identities of sessions and servers: of fixed size, and never text from a client.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use ring::{digest, hmac};
use uuid::Uuid;

/// A session's identity, as its token carries it: a UUID v4, so 122 random bits.
///
/// The id is enough to look a session up, so it is never printed: `Debug` hides it, and logs get [`LogKey::digest8`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new id from 16 random bytes; six bits are replaced by the UUID's version and variant.
    #[must_use]
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(random).into_uuid())
    }

    /// The id as 16 bytes, in the order of the UUID's text.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl From<Uuid> for SessionId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(hidden)")
    }
}

/// The key of a session in tables and its point on the consistent hash: 128 uniformly distributed bits.
///
/// A consistent hash over this key selects the next server of a moved session, the same on every proxy. So the mapping
/// from id to key is part of the protocol between proxies and must never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u128);

impl SessionKey {
    /// The key as bytes, most significant first: the input of the consistent hash.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl From<SessionId> for SessionKey {
    /// Two Feistel rounds over the halves of the id: no two ids share a key, and the six fixed bits of a UUID are
    /// spread.
    ///
    /// It need not resist attack: ids come only from this program, from good random bytes.
    #[allow(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
    fn from(id: SessionId) -> Self {
        let id = id.0.as_u128();
        let (high, low) = ((id >> 64) as u64, id as u64);
        let low = low ^ mix(high);
        let high = high ^ mix(low);
        Self(u128::from(high) << 64 | u128::from(low))
    }
}

/// `MurmurHash3`'s 64-bit finalizer: every input bit flips every output bit with probability near one half.
fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(hidden)")
    }
}

/// A server's identity in tokens and tables: the first eight bytes, big endian, of SHA-256 of `server:` and its name.
///
/// Of the *name*, since a changed address or index must not move a session. Tokens carry it, so it must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u64);

impl ServerId {
    /// The identity of the server with this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(u64::from_be_bytes(name_digest("server", name)))
    }
}

/// The first `N` bytes (at most 32) of SHA-256 of `kind:name`.
pub(super) fn name_digest<const N: usize>(kind: &str, name: &str) -> [u8; N] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(kind.as_bytes());
    context.update(b":");
    context.update(name.as_bytes());
    head(context.finish().as_ref())
}

/// The first `N` bytes of a digest that is at least that long.
fn head<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(digest) {
        *to = *from;
    }
    out
}

/// Hashes session keys for logs. Proxies with the same first key write the same digests, so their logs can be joined.
#[derive(Clone)]
pub struct LogKey(hmac::Key);

impl LogKey {
    /// From 32 secret bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The first 32 hexadecimal characters of HMAC-SHA256 of the session's key: names the session for operators. The logs have
    /// the first eight of them.
    #[must_use]
    pub fn digest(&self, session: SessionKey) -> u128 {
        let tag = hmac::sign(&self.0, &session.to_bytes());
        let (bytes, _) = tag.as_ref().split_first_chunk().unwrap_or((&[0; 16], &[]));
        u128::from_be_bytes(*bytes)
    }

    /// The first eight hexadecimal characters of HMAC-SHA256 of the session's key: enough to follow a session through
    /// logs, useless to request it.
    #[must_use]
    pub fn digest8(&self, session: SessionKey) -> Digest8 {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let tag = hmac::sign(&self.0, &session.to_bytes());
        let nibbles = tag.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut out = [0; 8];
        for (to, nibble) in out.iter_mut().zip(nibbles) {
            *to = HEX.get(usize::from(nibble)).copied().unwrap_or_default();
        }
        Digest8(out)
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey(hidden)")
    }
}

/// Eight hexadecimal characters that stand for a session in logs. See [`LogKey::digest8`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest8([u8; 8]);

impl Digest8 {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hexadecimal digits are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Digest8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Digest8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hashes [`SessionKey`]s for tables by folding them: they are random already, and a client cannot choose one.
///
/// Never for keys that a client may choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[allow(clippy::cast_possible_truncation, reason = "folds the halves of 128 bits")]
    fn write_u128(&mut self, key: u128) {
        self.0 ^= (key >> 64) as u64 ^ key as u64;
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = mix(self.0 ^ part);
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for session keys; it makes a key of another type hash slowly instead of wrongly.
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Builds [`KeyHasher`]s without a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildKeyHasher;

impl BuildHasher for BuildKeyHasher {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_session_id_is_a_random_uuid() {
        let id = SessionId::from_random([0xff; 16]);
        assert_eq!(Uuid::from_bytes(id.to_bytes()).get_version_num(), 4);
        assert_eq!(Uuid::from_bytes(id.to_bytes()).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn server_ids_never_change() {
        // printf server:a | sha256sum
        assert_eq!(ServerId::of("a"), ServerId(0x5629_bd1f_5112_6a37));
        assert_ne!(ServerId::of("a"), ServerId::of("A"));
    }

    #[test]
    fn session_keys_never_change() {
        let id = SessionId::from_random([7; 16]);
        assert_eq!(SessionKey::from(id).0, 0xc3cc_bd12_b6ae_7141_386c_1bdb_b3d5_2ef4);
    }

    #[test]
    fn log_digests_never_change_and_show_nothing_of_the_key() {
        let digest = LogKey::new(&[1; 32]).digest8(SessionKey(2));
        // printf '%032x' 2 | xxd -r -p | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101…01
        assert_eq!(digest.as_str(), "491b9a6f");
        assert_eq!(format!("{digest:>10}"), format!("  {}", digest.as_str()));
        assert_ne!(LogKey::new(&[2; 32]).digest8(SessionKey(2)), digest);
    }

    #[test]
    fn ids_and_keys_are_not_printed() {
        let id = SessionId::from_random([0xab; 16]);
        let printed = format!("{id:?} {:?} {:?}", SessionKey::from(id), LogKey::new(&[0xab; 32]));
        assert_eq!(printed, "SessionId(hidden) SessionKey(hidden) LogKey(hidden)");
    }

    #[test]
    fn hashes_of_session_keys_fill_shards_and_buckets_evenly() {
        const SESSIONS: u64 = 64 * 1024;
        let (mut low, mut high) = (vec![0_u32; 256], vec![0_u32; 256]);
        for n in 0..SESSIONS {
            // Ids that differ in few bits are the hardest to spread.
            let id = SessionId::from_random((u128::from(n) << 3).to_be_bytes());
            let hash = BuildKeyHasher.hash_one(SessionKey::from(id));
            low[usize::try_from(hash & 255).unwrap()] += 1;
            high[usize::try_from(hash >> 56).unwrap()] += 1;
        }
        for filled in low.into_iter().chain(high) {
            assert!((150..=370).contains(&filled), "256 expected in each, {filled} found in one");
        }
    }

    #[test]
    fn every_bit_of_an_id_reaches_its_key() {
        let base = [0x5a; 16];
        let mut seen = HashSet::from([SessionKey::from(SessionId::from_bytes(base))]);
        for bit in 0..128 {
            let mut other = base;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(SessionKey::from(SessionId::from_bytes(other))), "bit {bit} is lost");
        }
    }

    proptest! {
        #[test]
        fn different_ids_have_different_keys(a: [u8; 16], b: [u8; 16]) {
            let key = |bytes| SessionKey::from(SessionId::from_bytes(bytes));
            prop_assert_eq!(a == b, key(a) == key(b));
        }
    }
}
