//! Changes to a head, as data. An adapter carries them out in the order of the struct's fields.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

/// A field name with the form in which HTTP/1 peers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenName {
    /// As names are compared.
    pub name: HeaderName,
    /// As it is written on the wire of HTTP/1 where the case of names is kept.
    pub written: Cow<'static, str>,
}

impl WrittenName {
    /// `lower` is `written` in lower case; anything else panics when the constant is evaluated.
    pub const fn new(written: &'static str, lower: &'static str) -> Self {
        Self { name: HeaderName::from_static(lower), written: Cow::Borrowed(written) }
    }

    /// In the usual form: `X-Request-Id`.
    pub fn of(name: &HeaderName) -> Self {
        let words = name.as_str().split('-').map(|word| {
            let mut letters = word.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
        });
        Self { name: name.clone(), written: words.collect::<Vec<_>>().join("-").into() }
    }
}

/// Fields to set. Taken by reference where they are carried out: they are large to move.
pub type SetFields<'a, V = HeaderValue> = SmallVec<[(&'a WrittenName, V); 5]>;

/// A value to set that may be kept elsewhere: nothing is copied where it is written to the wire.
#[derive(Debug, Clone)]
pub enum FieldValue<'a> {
    /// The bytes of a valid value.
    Kept(&'a [u8]),
    /// A value of its own.
    Own(HeaderValue),
}

/// The value of a field to set.
pub trait EditValue: AsRef<[u8]> {
    /// As the value of a header map.
    fn into_header_value(self) -> Option<HeaderValue>;
}

impl AsRef<[u8]> for FieldValue<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Kept(bytes) => bytes,
            Self::Own(value) => value.as_bytes(),
        }
    }
}

impl EditValue for FieldValue<'_> {
    fn into_header_value(self) -> Option<HeaderValue> {
        match self {
            Self::Kept(bytes) => HeaderValue::from_bytes(bytes).ok(),
            Self::Own(value) => Some(value),
        }
    }
}

impl EditValue for HeaderValue {
    fn into_header_value(self) -> Option<HeaderValue> {
        Some(self)
    }
}

/// Changes to the head of a request before a server gets it.
#[derive(Debug)]
pub struct RequestEdits<'a, V = HeaderValue> {
    /// The request target that replaces the one that was sent.
    pub target: Option<String>,
    /// Fields to remove, all of each name.
    pub remove: SmallVec<[HeaderName; 4]>,
    /// What becomes of the Cookie fields.
    pub cookie: CookieEdit,
    /// Fields to set, each in place of all of its name.
    pub set: SetFields<'a, V>,
}

impl<V> Default for RequestEdits<'_, V> {
    fn default() -> Self {
        Self { target: None, remove: SmallVec::new(), cookie: CookieEdit::default(), set: SmallVec::new() }
    }
}

/// What becomes of a request's Cookie fields.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum CookieEdit {
    /// They stay.
    #[default]
    Keep,
    /// They are removed.
    Remove,
    /// One field takes the place of all.
    Set(HeaderValue),
}

impl<'a> RequestEdits<'a> {
    /// Removes a field, also one that was set by an earlier decision.
    pub fn remove(&mut self, name: HeaderName) {
        self.set.retain(|(set, _)| set.name != name);
        self.remove.push(name);
    }

    /// Sets a field in place of all of its name, also of what an earlier decision has set.
    pub fn set(&mut self, name: &'a WrittenName, value: HeaderValue) {
        self.set.retain(|(set, _)| set.name != name.name);
        self.set.push((name, value));
    }
}

/// Changes to the head of a response before the client gets it.
#[derive(Debug, Default)]
pub struct ResponseEdits<'a> {
    /// Fields to remove, all of each name.
    pub remove: SmallVec<[HeaderName; 2]>,
    /// Fields to set, each in place of all of its name.
    pub set: SmallVec<[(&'a WrittenName, HeaderValue); 2]>,
    /// Fields to append, each on a line of its own.
    pub append: SmallVec<[(&'a WrittenName, HeaderValue); 2]>,
}

impl ResponseEdits<'_> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }
}
