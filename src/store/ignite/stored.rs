//! An entry of a cache: a value and its time to live.
//!
//! A binding is a string, `1 2 b 1764000000000 edge-1 5f0e93c1 ttl=1985`, so that Ignite's own tools show it; session data
//! is an array of bytes that ends in the same word. Ignite can set the time to live of an entry and cannot report the remaining
//! time: the word is what a touch must not shorten.

use std::time::Duration;

use bytes::Bytes;

use super::protocol::reader::Object;
use super::protocol::request::Datum;
use crate::store::engine::{Kind, StoreError, Value};

/// Before the seconds.
const TTL: &[u8] = b" ttl=";
/// The longest life, ten years.
const MAX_LENGTH: Life = Life(10 * 365 * 24 * 60 * 60);

/// The time to live from the last write or touch on, in whole seconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life(u64);

/// An entry of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) value: Value,
    /// `None` = written by another program, without one.
    pub(super) life: Option<Life>,
    /// The bytes in the cache, for compare-and-set.
    raw: Raw,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Raw {
    Text(Bytes),
    Bytes(Bytes),
}

impl Life {
    /// Rounded up.
    pub(super) fn new(ttl: Duration) -> Self {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        Self(seconds.clamp(1, MAX_LENGTH.0))
    }

    pub(super) const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Stored {
    /// A value in the form that is written.
    ///
    /// # Errors
    /// When the value of a binding is not UTF-8: Ignite would store another one.
    pub(super) fn new(value: &Value, kind: Kind, life: Life) -> Result<Self, StoreError> {
        let raw = Bytes::from([value.text(), TTL, life.0.to_string().as_bytes()].concat());
        let raw = match kind {
            Kind::Data => Raw::Bytes(raw),
            Kind::Binding if std::str::from_utf8(&raw).is_ok() => Raw::Text(raw),
            Kind::Binding => return Err(StoreError::Refused("a binding is text".to_owned())),
        };
        Ok(Self { value: value.clone(), life: Some(life), raw })
    }

    /// The same value with another time to live.
    pub(super) fn with_life(&self, kind: Kind, life: Life) -> Result<Self, StoreError> {
        Self::new(&self.value, kind, life)
    }

    /// Parses an object; `None` when there is no value.
    ///
    /// # Errors
    /// When it is in another format.
    pub(super) fn read(object: Object) -> Result<Option<Self>, StoreError> {
        let raw = match object {
            Object::Null => return Ok(None),
            Object::Text(text) => Raw::Text(text),
            Object::Bytes(bytes) => Raw::Bytes(bytes),
            Object::Other => return Err(foreign()),
        };
        let (text, life) = split(raw.bytes());
        let value = Value::parse(text).ok_or_else(foreign)?;
        Ok(Some(Self { value, life, raw }))
    }

    /// For a request.
    pub(super) fn datum(&self) -> Datum<'_> {
        match &self.raw {
            Raw::Text(text) => Datum::Text(text),
            Raw::Bytes(bytes) => Datum::Bytes(bytes),
        }
    }
}

impl Raw {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) | Self::Bytes(bytes) => bytes,
        }
    }
}

fn foreign() -> StoreError {
    StoreError::Unreadable("a value of another form stands under one of the proxy's names".to_owned())
}

/// The value's text and its life. The last word is the life when it looks like one: what is written here always ends so.
fn split(raw: &[u8]) -> (&[u8], Option<Life>) {
    let at = raw.windows(TTL.len()).rposition(|window| window == TTL);
    let life = |at: usize| {
        let digits = std::str::from_utf8(raw.get(at + TTL.len()..)?).ok()?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = digits.parse().ok().filter(|_| plain)?;
        Some((raw.get(..at)?, Life(u64::clamp(seconds, 1, MAX_LENGTH.0))))
    };
    match at.and_then(life) {
        Some((text, life)) => (text, Some(life)),
        None => (raw, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(stored: &Stored) -> Object {
        match &stored.raw {
            Raw::Text(text) => Object::Text(text.clone()),
            Raw::Bytes(bytes) => Object::Bytes(bytes.clone()),
        }
    }

    #[test]
    fn a_binding_is_a_line_that_people_can_read() {
        let value = Value::new(2, b"b 1764000000000 edge-1 5f0e93c1");
        let stored = Stored::new(&value, Kind::Binding, Life::new(Duration::from_millis(1_984_500))).unwrap();
        assert_eq!(stored.raw, Raw::Text(Bytes::from_static(b"1 2 b 1764000000000 edge-1 5f0e93c1 ttl=1985")));
        assert_eq!(Stored::read(object(&stored)), Ok(Some(stored)));
    }

    #[test]
    fn what_another_program_writes_may_lack_a_life() {
        for (text, life) in [
            ("1 3 b 7 ops", None),
            ("1 3 b 7 ops ttl=", None),
            ("1 3 b 7 ops ttl=+5", None),
            ("1 3 b 7 ops ttl=99999999999999999999", None),
            ("1 3 b 7 ops ttl=60", Some(Life(60))),
            ("1 3 b 7 ops ttl=0", Some(Life(1))),
        ] {
            let stored = Stored::read(Object::Text(Bytes::from_static(text.as_bytes()))).unwrap().unwrap();
            assert_eq!((stored.value.epoch(), stored.life), (3, life), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_not_read() {
        for object in [Object::Other, Object::Text(Bytes::from_static(b"hello")), Object::Bytes(Bytes::new())] {
            assert_eq!(Stored::read(object.clone()).unwrap_err().label(), "unreadable", "{object:?}");
        }
        assert_eq!(Stored::read(Object::Null), Ok(None));
    }

    #[test]
    fn a_binding_that_is_no_text_is_refused() {
        let value = Value::new(1, b"\xff");
        assert_eq!(Stored::new(&value, Kind::Binding, Life(60)).unwrap_err().label(), "refused");
        assert!(Stored::new(&value, Kind::Data, Life(60)).is_ok(), "session data are any bytes");
    }

    proptest! {
        #[test]
        fn data_of_any_kind_come_back(epoch: u32, rest: Vec<u8>, seconds in 1..1_000_000_u64) {
            for rest in [rest.clone(), [&rest[..], b" ttl=7"].concat()] {
                let value = Value::new(epoch, &rest);
                let stored = Stored::new(&value, Kind::Data, Life(seconds)).unwrap();
                let read = Stored::read(object(&stored)).unwrap().unwrap();
                prop_assert_eq!((&read.value, read.life), (&value, Some(Life(seconds))));
            }
        }
    }
}
