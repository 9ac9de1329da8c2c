//! Seals what proxies with the same keys keep for each other in a store that others may read.

use super::keyring::{Purpose, derive_key};
use super::xchacha::{NONCE_LEN, SEAL_LEN, XChaCha20Poly1305};

/// Keys for such secrets: the first seals, all open.
pub struct Vault {
    keys: Vec<XChaCha20Poly1305>,
}

impl Vault {
    /// From the secrets of the configured keys, in their order.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let keys = secrets.into_iter().filter_map(|secret| derive_key(secret, Purpose::Vault));
        Self { keys: keys.map(|key| XChaCha20Poly1305::new(*key)).collect() }
    }

    /// The sealed text, which opens with the same associated data only. `nonce` is random. `None` without keys.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], associated: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        let mut body = text.to_vec();
        let seal = self.keys.first()?.seal(&nonce, associated, &mut body)?;
        Some([nonce.as_slice(), &body, &seal].concat())
    }

    /// The text; `None` when no key opens it.
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() < SEAL_LEN {
            return None;
        }
        self.keys.iter().find_map(|key| {
            let mut body = sealed.to_vec();
            key.open(nonce, associated, &mut body).map(|text| text.to_vec())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &[u8] = b"sixteen bytes or more";
    const NEW: &[u8] = b"another secret, as long";

    proptest! {
        #[test]
        fn what_is_sealed_opens_with_the_same_key_and_associated_data_only(text: Vec<u8>, nonce: [u8; 24], other: u8) {
            let sealed = Vault::new([OLD]).seal(nonce, b"a", &text).unwrap();
            prop_assert_eq!(Vault::new([OLD]).open(b"a", &sealed), Some(text.clone()));
            prop_assert_eq!(Vault::new([NEW, OLD]).open(b"a", &sealed), Some(text), "keys rotate");
            prop_assert_eq!(Vault::new([NEW]).open(b"a", &sealed), None);
            prop_assert_eq!(Vault::new([OLD]).open(b"b", &sealed), None);
            let mut changed = sealed;
            let index = usize::from(other) % changed.len();
            changed[index] ^= 1;
            prop_assert_eq!(Vault::new([OLD]).open(b"a", &changed), None);
        }
    }

    #[test]
    fn without_keys_nothing_is_sealed_and_what_is_too_short_does_not_open() {
        assert!(Vault::new([]).seal([0; 24], b"", b"x").is_none());
        for length in 0..40 {
            assert_eq!(Vault::new([OLD]).open(b"", &vec![0; length]), None, "{length}");
        }
    }
}
