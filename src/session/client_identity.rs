//! Sessions that belong to a client, by its certificate or its user (`bind_to`): under another identity they are not found.
//!
//! A token need not say whose it is: the last bytes of its session's id are a hash of the first ones and of the identity. So a
//! token is as long as any other, its text shows nothing, and whether it belongs to a client can be told from the id alone. The
//! ids are sealed, so no other identity can be searched that has the same hash. The table and the shared store find sessions
//! by keys that are made of these ids, or, for the application's own ids and for addresses, of the id and the identity.
//!
//! To have no certificate, or no user, is an identity like others. What is hashed is part of the protocol between proxies and
//! must never change.

use std::fmt;

use ring::digest::{Context, SHA256};

use super::key::{SessionId, SessionKey};

/// Bytes of an id that are random, up to the fixed bits of a UUID.
const RANDOM: usize = 10;

/// A client's certificate or user, as a hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientIdentity([u8; 32]);

impl ClientIdentity {
    /// Of a client that has none.
    #[must_use]
    pub fn none() -> Self {
        Self(hash(&[b"none"]))
    }

    /// Of the client that presented this certificate, known by its SHA-256.
    #[must_use]
    pub fn of_certificate(digest: &[u8; 32]) -> Self {
        Self(hash(&[b"certificate", digest]))
    }

    /// Of a user.
    #[must_use]
    pub fn of_user(name: &[u8]) -> Self {
        Self(hash(&[b"user", name]))
    }

    /// The id of a new session of this client, from 16 random bytes.
    #[must_use]
    pub fn session_id(&self, random: [u8; 16]) -> SessionId {
        self.mark(SessionId::from_random(random))
    }

    /// Whether it is the id of a session of this client.
    #[must_use]
    pub fn owns(&self, id: SessionId) -> bool {
        self.mark(id) == id
    }

    /// The key of this client's session among those of one id or address.
    #[must_use]
    pub fn key(&self, key: SessionKey) -> SessionKey {
        let hash = hash(&[b"key", &self.0, &key.to_bytes()]);
        SessionKey(hash.first_chunk().map_or(0, |first| u128::from_be_bytes(*first)))
    }

    fn mark(&self, id: SessionId) -> SessionId {
        let mut bytes = id.to_bytes();
        let (random, mark) = bytes.split_at_mut(RANDOM);
        let hash = hash(&[b"id", &self.0, random]);
        for (to, from) in mark.iter_mut().zip(hash) {
            *to = from;
        }
        SessionId::from_bytes(bytes)
    }
}

/// The first part says what is hashed; of the others only the last varies in length.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"homing client identity v1\0");
    for part in parts {
        context.update(part);
        context.update(b"\0");
    }
    context.finish().as_ref().try_into().unwrap_or_default()
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn marks_and_keys_never_change() {
        let alice = ClientIdentity::of_user(b"alice");
        let id = u128::from_be_bytes(alice.session_id([7; 16]).to_bytes());
        assert_eq!(format!("{id:032x}"), "07070707070747078707f50bfa8bd3ac");
        assert_eq!(format!("{:032x}", alice.key(SessionKey(1)).0), "f3d1ff102f877ece10398b05dca5a1cb");
    }

    #[test]
    fn identities_of_several_kinds_differ() {
        let text = *b"0123456789abcdef0123456789abcdef";
        let all = [ClientIdentity::none(), ClientIdentity::of_certificate(&text), ClientIdentity::of_user(&text)];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(index));
        }
        assert_ne!(ClientIdentity::of_user(b""), ClientIdentity::none());
    }

    #[test]
    fn identities_are_not_printed() {
        assert_eq!(format!("{:?}", ClientIdentity::of_user(b"alice")), "ClientIdentity(hidden)");
    }

    proptest! {
        #[test]
        fn a_session_belongs_to_the_client_that_began_it_and_to_no_other(
            random: [u8; 16], other: [u8; 16], name in "[ab]{0,3}", another in "[ab]{0,3}",
        ) {
            let (one, two) = (ClientIdentity::of_user(name.as_bytes()), ClientIdentity::of_user(another.as_bytes()));
            let id = one.session_id(random);
            prop_assert!(one.owns(id));
            prop_assert_eq!(two.owns(id), name == another);
            prop_assert!(!ClientIdentity::none().owns(id));
            prop_assert!(!one.owns(SessionId::from_random(random)), "one that was begun without an identity");
            prop_assert_eq!(Uuid::from_bytes(id.to_bytes()).get_version_num(), 4);
            let (first, second) = (one.session_id(random), one.session_id(other));
            prop_assert_eq!(first == second, first.to_bytes()[..RANDOM] == second.to_bytes()[..RANDOM]);
            let (first, second) = (u128::from_be_bytes(random), u128::from_be_bytes(other));
            prop_assert_eq!(one.key(SessionKey(first)) == two.key(SessionKey(second)), name == another && first == second);
        }
    }
}
