//! Names and values as every engine keeps them: ASCII without blanks in names, and values whose first two words are the
//! form and the epoch. Part of the protocol between proxies of different versions.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::session::key::SessionKey;

/// Whether a value is a session's binding or its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A binding: of two of one epoch the first stays.
    Binding,
    /// Session data: of two of one epoch the last stays.
    Data,
}

/// What a value is kept under, without the prefix of the installation: `<pool>:<session>` for a binding, and
/// `<pool>:<session>:d` for session data. The session's part is its key in 22 characters of base64url.
///
/// An application's id or a client's address has a keyed hash for a key ([`crate::session::external_id`]). A session of our own
/// token has its random number, which names it and opens nothing: only the seal of a token does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Box<str>);

/// Characters of a session key in a name.
const KEY_CHARS: usize = 22;
/// What ends the name of session data.
const DATA: &str = ":d";

impl Name {
    /// Of a session's binding or data. Names of pools have no colon.
    pub fn new(pool: &str, key: SessionKey, kind: Kind) -> Self {
        let mut name = String::with_capacity(pool.len() + 1 + KEY_CHARS + DATA.len());
        name.push_str(pool);
        name.push(':');
        URL_SAFE_NO_PAD.encode_string(key.to_bytes(), &mut name);
        if kind == Kind::Data {
            name.push_str(DATA);
        }
        Self(name.into())
    }

    /// What the names of all values of a pool begin with.
    pub fn of_pool(pool: &str) -> Self {
        Self(format!("{pool}:").into())
    }

    /// A name in the store, without its prefix.
    pub fn from_stored(name: &str) -> Self {
        Self(name.into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Pool and session as they are written: what a session's binding and its data have in common.
    pub fn session(&self) -> &str {
        self.0.strip_suffix(DATA).unwrap_or(&self.0)
    }

    /// Pool, session and kind; `None` for a foreign name.
    pub fn parts(&self) -> Option<(&str, SessionKey, Kind)> {
        let (pool, rest) = self.0.split_once(':')?;
        let (key, kind) = rest.strip_suffix(DATA).map_or((rest, Kind::Binding), |key| (key, Kind::Data));
        let mut bytes = [0; 16];
        let length = URL_SAFE_NO_PAD.decode_slice(key, &mut bytes).ok()?;
        (length == bytes.len() && key.len() == KEY_CHARS).then_some((
            pool,
            SessionKey(u128::from_be_bytes(bytes)),
            kind,
        ))
    }

    /// Whether it names a binding or data.
    pub fn kind(&self) -> Kind {
        if self.0.ends_with(DATA) { Kind::Data } else { Kind::Binding }
    }
}

/// Names of sessions must not be logged.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(hidden)")
    }
}

/// A text whose first two words are its form (`1`) and its epoch in decimal, so that every engine, and a script inside of
/// one, can compare epochs: `1 2 b 1764000000000 edge-1`.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    epoch: u32,
    text: Box<[u8]>,
}

/// The format of values that this version writes and reads.
const FORM: &[u8] = b"1 ";

impl Value {
    /// `rest` is what follows form and epoch.
    pub fn new(epoch: u32, rest: &[u8]) -> Self {
        let mut text = Vec::with_capacity(FORM.len() + 11 + rest.len());
        text.extend_from_slice(FORM);
        text.extend_from_slice(epoch.to_string().as_bytes());
        text.push(b' ');
        text.extend_from_slice(rest);
        Self { epoch, text: text.into() }
    }

    /// A stored value; `None` for one in another format.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(FORM)?;
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let digits = rest.get(..end)?;
        let plain = digits == b"0" || digits.first().is_some_and(|first| (b'1'..=b'9').contains(first));
        let epoch = std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| plain)?;
        Some(Self { epoch, text: text.into() })
    }

    /// Of two bindings the one with the higher epoch wins.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// All of it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// What follows form and epoch.
    pub fn rest(&self) -> &[u8] {
        let mut words = self.text.splitn(3, |byte| *byte == b' ');
        words.nth(2).unwrap_or_default()
    }

    /// Whether this value replaces an existing one.
    pub fn supersedes(&self, kept: &Self, kind: Kind) -> bool {
        match kind {
            Kind::Binding => self.epoch > kept.epoch,
            Kind::Data => self.epoch >= kept.epoch,
        }
    }
}

/// Session data may be in it.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_never_change() {
        let key = SessionKey(0xfb81_deb9_89bf_1132_06b7_4dc6_e1f8_4829);
        assert_eq!(Name::new("shop", key, Kind::Binding).as_str(), "shop:-4HeuYm_ETIGt03G4fhIKQ");
        assert_eq!(Name::new("shop", key, Kind::Data).as_str(), "shop:-4HeuYm_ETIGt03G4fhIKQ:d");
        assert_eq!(format!("{:?}", Name::new("shop", key, Kind::Data)), "Name(hidden)");
    }

    #[test]
    fn foreign_names_and_values_are_not_parsed() {
        for text in ["", "1", "1 ", "1 2", "2 2 b", "1 -1 b", "1 +1 b", "1 007 b", "1 4294967296 b", "1  b", "x 1 b"] {
            assert_eq!(Value::parse(text.as_bytes()), None, "{text:?}");
        }
        for name in ["shop", "shop:", "shop:abc", "shop:-4HeuYm_ETIGt03G4fhIKQQQ", "shop:-4HeuYm_ETIGt03G4fhIK+"] {
            assert_eq!(Name::from_stored(name).parts(), None, "{name:?}");
        }
    }

    #[test]
    fn the_higher_epoch_wins_and_data_replaces_data() {
        let value = |epoch| Value::new(epoch, b"b");
        for (ours, kept, kind, wins) in [
            (2, 1, Kind::Binding, true),
            (1, 1, Kind::Binding, false),
            (0, 1, Kind::Binding, false),
            (2, 1, Kind::Data, true),
            (1, 1, Kind::Data, true),
            (0, 1, Kind::Data, false),
        ] {
            assert_eq!(value(ours).supersedes(&value(kept), kind), wins, "{ours} {kept} {kind:?}");
        }
    }

    proptest! {
        #[test]
        fn names_and_values_come_back_as_they_went(
            pool in "[a-z0-9][a-zA-Z0-9_.-]{0,63}",
            key: u128,
            data: bool,
            epoch: u32,
            rest: Vec<u8>,
        ) {
            let kind = if data { Kind::Data } else { Kind::Binding };
            let name = Name::new(&pool, SessionKey(key), kind);
            let found = Name::from_stored(name.as_str());
            prop_assert_eq!(found.parts(), Some((pool.as_str(), SessionKey(key), kind)));
            let binding = Name::new(&pool, SessionKey(key), Kind::Binding);
            prop_assert_eq!(found.session(), binding.as_str());
            prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            let value = Value::new(epoch, &rest);
            prop_assert_eq!(value.rest(), &rest[..]);
            prop_assert_eq!(Value::parse(value.text()), Some(value));
        }
    }
}
