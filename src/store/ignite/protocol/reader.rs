//! Fields out of a frame. Nothing is copied: texts are slices of the frame.

use bytes::{Buf, Bytes};

use super::{Malformed, type_code};

/// A key or a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::ignite) enum Object {
    /// Nothing.
    Null,
    /// A string, as the bytes of its UTF-8.
    Text(Bytes),
    /// An array of bytes.
    Bytes(Bytes),
    /// An object of a type that is never written here.
    Other,
}

impl Object {
    /// The text of a string.
    pub(in crate::store::ignite) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok(),
            Self::Null | Self::Bytes(_) | Self::Other => None,
        }
    }
}

/// What is left of a frame.
#[derive(Debug)]
pub(in crate::store::ignite) struct Reader(Bytes);

const SHORT: Malformed = Malformed("a message that ends too early");

impl Reader {
    pub(in crate::store::ignite) const fn new(frame: Bytes) -> Self {
        Self(frame)
    }

    pub(in crate::store::ignite) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_short| SHORT)
    }

    pub(in crate::store::ignite) fn bool(&mut self) -> Result<bool, Malformed> {
        self.u8().map(|byte| byte != 0)
    }

    pub(in crate::store::ignite) fn i16(&mut self) -> Result<i16, Malformed> {
        self.0.try_get_i16_le().map_err(|_short| SHORT)
    }

    pub(in crate::store::ignite) fn i32(&mut self) -> Result<i32, Malformed> {
        self.0.try_get_i32_le().map_err(|_short| SHORT)
    }

    pub(in crate::store::ignite) fn i64(&mut self) -> Result<i64, Malformed> {
        self.0.try_get_i64_le().map_err(|_short| SHORT)
    }

    /// A number of items of at least `least` bytes each, so never more than the rest of the frame can hold.
    pub(in crate::store::ignite) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = self.i32()?;
        let fits = |count: &usize| count.checked_mul(least).is_some_and(|bytes| bytes <= self.0.len());
        usize::try_from(count).ok().filter(fits).ok_or(Malformed("a count that its message cannot hold"))
    }

    pub(in crate::store::ignite) fn bytes(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.0.len() {
            return Err(SHORT);
        }
        Ok(self.0.split_to(length))
    }

    pub(in crate::store::ignite) fn object(&mut self) -> Result<Object, Malformed> {
        Ok(match self.u8()? {
            type_code::NULL => Object::Null,
            type_code::STRING => Object::Text(self.sized()?),
            type_code::BYTE_ARRAY => Object::Bytes(self.sized()?),
            type_code::BYTE | type_code::BOOL => self.skip(1)?,
            type_code::SHORT | type_code::CHAR => self.skip(2)?,
            type_code::INT | type_code::FLOAT => self.skip(4)?,
            type_code::LONG | type_code::DOUBLE | type_code::DATE => self.skip(8)?,
            type_code::TIMESTAMP => self.skip(12)?,
            type_code::UUID => self.skip(16)?,
            type_code::COMPLEX => self.skip_complex()?,
            _ => return Err(Malformed("an object of a type that is not read here")),
        })
    }

    /// A string that may be absent.
    pub(in crate::store::ignite) fn text(&mut self) -> Result<String, Malformed> {
        match self.object()? {
            Object::Null => Ok(String::new()),
            Object::Text(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Object::Bytes(_) | Object::Other => Err(Malformed("an object where a text should be")),
        }
    }

    fn sized(&mut self) -> Result<Bytes, Malformed> {
        let length = self.count(1)?;
        self.bytes(length)
    }

    fn skip(&mut self, length: usize) -> Result<Object, Malformed> {
        self.bytes(length).map(|_skipped| Object::Other)
    }

    /// An object with fields: version, flags, type and hash code come before its length, which counts from its first byte.
    fn skip_complex(&mut self) -> Result<Object, Malformed> {
        const BEFORE_LENGTH: usize = 11;
        const HEAD: usize = 1 + BEFORE_LENGTH + 4;
        self.skip(BEFORE_LENGTH)?;
        let length = usize::try_from(self.i32()?).ok().and_then(|length| length.checked_sub(HEAD));
        self.skip(length.ok_or(Malformed("an object shorter than its own head"))?)
    }

    /// What follows the last field that was read.
    pub(in crate::store::ignite) fn rest(self) -> Bytes {
        self.0
    }

    /// # Errors
    /// When something is left.
    pub(in crate::store::ignite) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a message that does not end where it should")) }
    }
}
