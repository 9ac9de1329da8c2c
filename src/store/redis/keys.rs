//! Names on the server: the configured prefix before each, and the channel for announcements.

use std::fmt;

use redis::{RedisWrite, ToRedisArgs};

use crate::store::engine::{Name, Value};

/// The key prefix, and the channel derived from it.
#[derive(Debug)]
pub(super) struct Keys {
    /// Including the colon.
    prefix: String,
    channel: String,
}

impl Keys {
    pub(super) fn new(key_prefix: &str) -> Self {
        Self { prefix: format!("{key_prefix}:"), channel: format!("{key_prefix}:moves") }
    }

    /// The key of a name; written into a command without an intermediate string.
    pub(super) fn key<'a>(&'a self, name: &'a Name) -> Key<'a> {
        Key { prefix: &self.prefix, name: name.as_str() }
    }

    /// The channel that moves are announced on.
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// The pattern of `SCAN` for names with this prefix.
    pub(super) fn pattern(&self, prefix: &Name) -> String {
        let mut pattern = String::with_capacity(self.prefix.len() + prefix.as_str().len() + 1);
        for character in self.prefix.chars().chain(prefix.as_str().chars()) {
            if matches!(character, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push('*');
        pattern
    }

    /// The name of a key on the server; `None` for a foreign key.
    pub(super) fn name(&self, key: &[u8]) -> Option<Name> {
        let name = Name::from_stored(std::str::from_utf8(key).ok()?.strip_prefix(self.prefix.as_str())?);
        name.parts().is_some().then_some(name)
    }
}

/// The message that announces a stored binding.
pub(super) fn announcement(name: &Name, value: &Value) -> Vec<u8> {
    [name.as_str().as_bytes(), b" ", value.text()].concat()
}

/// The inverse; `None` for a foreign message.
pub(super) fn parse_announcement(payload: &[u8]) -> Option<(Name, Value)> {
    let space = payload.iter().position(|byte| *byte == b' ')?;
    let (name, text) = payload.split_at_checked(space)?;
    let name = Name::from_stored(std::str::from_utf8(name).ok()?);
    name.parts()?;
    Some((name, Value::parse(text.get(1..)?)?))
}

/// A name with its prefix.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    prefix: &'a str,
    name: &'a str,
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix)?;
        f.write_str(self.name)
    }
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::key::SessionKey;
    use crate::store::engine::Kind;

    #[test]
    fn a_prefix_is_before_every_name_and_never_a_pattern() {
        let keys = Keys::new("ho*ing");
        let name = Name::new("shop", SessionKey(7), Kind::Binding);
        assert_eq!(keys.key(&name).to_string(), "ho*ing:shop:AAAAAAAAAAAAAAAAAAAABw");
        assert_eq!(keys.channel(), "ho*ing:moves");
        assert_eq!(keys.pattern(&Name::of_pool("shop")), "ho\\*ing:shop:*");
        assert_eq!(keys.name(keys.key(&name).to_string().as_bytes()), Some(name));
        for foreign in ["hoxing:shop:AAAAAAAAAAAAAAAAAAAABw", "ho*ing:moves", "ho*ing:shop:short", ""] {
            assert_eq!(keys.name(foreign.as_bytes()), None, "{foreign:?}");
        }
    }

    #[test]
    fn an_announcement_is_parsed_as_it_was_written() {
        let name = Name::new("shop", SessionKey(7), Kind::Binding);
        let value = Value::new(3, b"b 17 edge-1");
        assert_eq!(parse_announcement(&announcement(&name, &value)), Some((name, value)));
        for foreign in ["", " ", "shop:x 1 2 b", "shop:AAAAAAAAAAAAAAAAAAAABw", "shop:AAAAAAAAAAAAAAAAAAAABw 2 3 b"] {
            assert!(parse_announcement(foreign.as_bytes()).is_none(), "{foreign:?}");
        }
    }
}
