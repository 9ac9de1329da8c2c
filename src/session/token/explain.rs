//! Describes a token of any pool, for `homing explain`.

use super::codec::{OpenOutcome, PoolCodec};
use super::keyring::Keyring;
use super::{Token, TokenError};

/// A token in clear, or why it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explanation<'a> {
    /// It opens.
    Valid {
        /// Its content.
        token: Token,
        /// Its pool.
        pool: &'a str,
        /// The id of the key that sealed it.
        key: &'a str,
        /// Whether that key is the first of the keyring.
        sealed_by_first: bool,
    },
    /// It belongs to none of the given pools.
    UnknownPool,
    /// It does not open.
    Forged(TokenError),
}

/// Opens a token of any of these pools.
pub fn open_any<'a>(keyring: &'a Keyring, pools: impl IntoIterator<Item = &'a str>, text: &[u8]) -> Explanation<'a> {
    let mut explained = Explanation::UnknownPool;
    for pool in pools {
        match PoolCodec::new(keyring, pool).open(text) {
            OpenOutcome::Valid { token, sealed_by_first, key } => {
                let key = keyring.id(key).unwrap_or_default();
                return Explanation::Valid { token, pool, key, sealed_by_first };
            }
            // Two pools may share a tag: one refuses the token and the other opens it.
            OpenOutcome::Forged(error) => explained = Explanation::Forged(error),
            OpenOutcome::OtherPool => {}
        }
    }
    explained
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::key::{ServerId, SessionId};
    use crate::session::token::UnixMillis;

    #[test]
    fn an_operator_sees_pool_and_key_of_a_token_or_why_it_does_not_open() {
        let (k1, k2): (&[u8], &[u8]) = (b"the secret of key one", b"the secret of key two");
        let old = Keyring::new([("k1", k1)]).unwrap();
        let rotated = Keyring::new([("k2", k2), ("k1", k1)]).unwrap();
        let token = Token {
            session: SessionId::from_random([1; 16]),
            server: ServerId::of("a"),
            epoch: 2,
            created: UnixMillis(1000),
            issued: UnixMillis(2000),
        };
        let text = PoolCodec::new(&old, "shop").seal(&token, [3; 24]);
        let explain = |keyring, pools: &[&'static str], text| open_any(keyring, pools.iter().copied(), text);

        let valid = Explanation::Valid { token, pool: "shop", key: "k1", sealed_by_first: false };
        assert_eq!(explain(&rotated, &["api", "shop"], text.as_bytes()), valid);
        assert_eq!(explain(&rotated, &["api"], text.as_bytes()), Explanation::UnknownPool);
        assert_eq!(explain(&rotated, &["api"], b"nonsense"), Explanation::Forged(TokenError::Length));
        let new = Keyring::new([("k2", k2)]).unwrap();
        assert_eq!(explain(&new, &["api", "shop"], text.as_bytes()), Explanation::Forged(TokenError::UnknownKey));
    }
}
