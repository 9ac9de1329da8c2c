//! Seals the session tickets of TLS listeners with keys that are derived from the keyring, so that a TLS session can be resumed
//! after a restart and at every proxy with the same keys.
//!
//! A ticket stands in for a handshake, and for the verification of the client's certificate in it. So the keys of a listener are
//! derived from a key of the keyring and from all that its handshakes depend on (the scope): a ticket of one listener does not
//! open at another.
//!
//! ```text
//! name of the key 8 | nonce 24 | sealed: issued 8, session | seal 16
//! ```

use std::fmt;

use ring::hkdf;
use zeroize::Zeroizing;

use super::UnixMillis;
use super::keyring::Keyring;
use super::xchacha::{NONCE_LEN, SEAL_LEN, XChaCha20Poly1305};
use crate::session::binding::FUTURE_TOLERANCE;

/// How long a ticket opens, in seconds.
pub const LIFETIME: u32 = 12 * 60 * 60;
const NAME_LEN: usize = 8;
const ISSUED_LEN: usize = 8;

/// Seals and opens the tickets of one scope: the first key seals, all open.
pub struct TicketSealer {
    keys: Box<[TicketKey]>,
}

struct TicketKey {
    /// In clear in tickets: selects the key. It shows no more than which tickets are of one key and scope.
    name: [u8; NAME_LEN],
    cipher: XChaCha20Poly1305,
}

impl TicketSealer {
    /// For tickets of this scope.
    #[must_use]
    pub fn new(keyring: &Keyring, scope: &[u8; 32]) -> Self {
        let derived = keyring.ticket_keys().iter().filter_map(|key| TicketKey::derive(key, scope));
        Self { keys: derived.collect() }
    }

    /// A ticket with this content. The nonce must be 24 fresh random bytes.
    #[must_use]
    pub fn seal(&self, session: &[u8], nonce: [u8; NONCE_LEN], now: UnixMillis) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + ISSUED_LEN + session.len() + SEAL_LEN);
        ticket.extend(key.name);
        ticket.extend(nonce);
        ticket.extend(now.as_secs().to_be_bytes());
        ticket.extend(session);
        let seal = key.cipher.seal(&nonce, &key.name, ticket.get_mut(NAME_LEN + NONCE_LEN..)?)?;
        ticket.extend(seal);
        Some(ticket)
    }

    /// The content of a ticket, whatever the client has sent; `None` when it does not open, or has expired.
    #[must_use]
    pub fn open(&self, ticket: &[u8], now: UnixMillis) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let (issued, session) = key.cipher.open(nonce, name, &mut sealed)?.split_first_chunk::<ISSUED_LEN>()?;
        let (issued, now) = (u64::from_be_bytes(*issued), now.as_secs());
        let valid = issued <= now.saturating_add(FUTURE_TOLERANCE.as_secs())
            && now.saturating_sub(issued) < u64::from(LIFETIME);
        valid.then(|| session.to_vec())
    }
}

impl TicketKey {
    fn derive(key: &Zeroizing<[u8; 32]>, scope: &[u8; 32]) -> Option<Self> {
        let pseudo_random = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &**key);
        let mut derived = Zeroizing::new([0; 64]);
        pseudo_random.expand(&[b"ticket", scope], Length64).ok()?.fill(&mut *derived).ok()?;
        let (cipher, rest) = derived.split_first_chunk::<32>()?;
        Some(Self { name: *rest.first_chunk()?, cipher: XChaCha20Poly1305::new(*cipher) })
    }
}

struct Length64;

impl hkdf::KeyType for Length64 {
    fn len(&self) -> usize {
        64
    }
}

impl fmt::Debug for TicketSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSealer(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const K1: (&str, &[u8]) = ("k1", b"sixteen bytes or more");
    const K2: (&str, &[u8]) = ("k2", b"another secret, as long");
    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn sealer(keys: &[(&str, &[u8])], scope: u8) -> TicketSealer {
        TicketSealer::new(&Keyring::new(keys.iter().copied()).unwrap(), &[scope; 32])
    }

    fn ticket(sealer: &TicketSealer) -> Vec<u8> {
        sealer.seal(b"session", [7; NONCE_LEN], NOW).unwrap()
    }

    #[test]
    fn tickets_of_other_proxies_open_whatever_their_keys_are_called() {
        let there = sealer(&[("other id", K1.1)], 1);
        assert_eq!(there.open(&ticket(&sealer(&[K1], 1)), NOW).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn a_ticket_opens_in_its_scope_only() {
        assert_eq!(sealer(&[K1], 2).open(&ticket(&sealer(&[K1], 1)), NOW), None);
    }

    #[test]
    fn a_ticket_opens_until_its_key_is_removed() {
        let old = ticket(&sealer(&[K1], 1));
        assert!(sealer(&[K2, K1], 1).open(&old, NOW).is_some());
        assert_eq!(sealer(&[K2], 1).open(&old, NOW), None);
        let new = ticket(&sealer(&[K2, K1], 1));
        assert_eq!(sealer(&[K1], 1).open(&new, NOW), None, "the first key seals");
    }

    #[test]
    fn a_ticket_expires_and_none_is_from_the_future() {
        let sealer = sealer(&[K1], 1);
        let ticket = ticket(&sealer);
        let lifetime = Duration::from_secs(LIFETIME.into());
        assert!(sealer.open(&ticket, NOW.plus(lifetime).minus(Duration::from_secs(1))).is_some());
        assert_eq!(sealer.open(&ticket, NOW.plus(lifetime)), None);
        assert!(sealer.open(&ticket, NOW.minus(FUTURE_TOLERANCE)).is_some(), "clocks differ");
        assert_eq!(sealer.open(&ticket, NOW.minus(FUTURE_TOLERANCE + Duration::from_secs(1))), None);
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", sealer(&[K1], 1)), "TicketSealer(hidden)");
    }

    proptest! {
        #[test]
        fn a_ticket_opens_as_it_was_and_not_when_a_bit_was_changed(
            session in vec(any::<u8>(), 0..300), nonce: [u8; NONCE_LEN], at: prop::sample::Index, bit in 0_u8..8,
        ) {
            let sealer = sealer(&[K2, K1], 1);
            let mut ticket = sealer.seal(&session, nonce, NOW).unwrap();
            prop_assert_eq!(sealer.open(&ticket, NOW), Some(session));
            let at = at.index(ticket.len());
            ticket[at] ^= 1 << bit;
            prop_assert_eq!(sealer.open(&ticket, NOW), None);
        }

        #[test]
        fn what_is_no_ticket_does_not_open(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sealer(&[K1], 1).open(&bytes, NOW), None);
        }
    }
}
