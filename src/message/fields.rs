//! The fields of a head, in one of two forms: a header map, or a head as it was parsed from bytes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields in the order of the head; names compare without regard to case.
#[derive(Debug, Clone, Copy)]
pub enum Fields<'a> {
    /// A header map. Equal names stand together, in lower case.
    Map(&'a HeaderMap),
    /// A parsed head. Names are as the sender wrote them.
    Parsed(&'a [httparse::Header<'a>]),
}

impl<'a> Fields<'a> {
    /// The value of the first field of that name.
    pub fn get(self, name: &HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Self::Parsed(fields) => find(fields, name.as_str()),
        }
    }

    /// The same by a name that is only known as text.
    pub fn named(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Self::Parsed(fields) => find(fields, name),
        }
    }

    /// The value of the first field of that name, when it is visible ASCII.
    pub fn get_str(self, name: &HeaderName) -> Option<&'a str> {
        if let Self::Map(map) = self {
            return map.get(name)?.to_str().ok();
        }
        let value = self.get(name)?;
        let visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        std::str::from_utf8(value).ok().filter(|_| visible)
    }

    /// The same as a value to keep: shared with a header map, copied from a parsed head.
    pub fn value(self, name: &HeaderName) -> Option<HeaderValue> {
        match self {
            Self::Map(map) => map.get(name).cloned(),
            Self::Parsed(_) => HeaderValue::from_bytes(self.get(name)?).ok(),
        }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Self::Map(map) => map.len(),
            Self::Parsed(fields) => fields.len(),
        }
    }

    /// Whether a field of that name is present.
    pub fn contains(self, name: &HeaderName) -> bool {
        match self {
            Self::Map(map) => map.contains_key(name),
            Self::Parsed(fields) => find(fields, name.as_str()).is_some(),
        }
    }

    /// The values of all fields of that name, in their order.
    pub fn all<'n>(self, name: &'n HeaderName) -> FieldValues<'a, 'n> {
        match self {
            Self::Map(map) => FieldValues::Map(map.get_all(name).into_iter()),
            Self::Parsed(fields) => FieldValues::Parsed(fields.iter(), name.as_str()),
        }
    }

    /// The same as values to keep: shared with a header map, copied from a parsed head.
    pub fn all_values<'n>(self, name: &'n HeaderName) -> impl Iterator<Item = HeaderValue> + use<'a, 'n> {
        let (map, parsed) = match self {
            Self::Map(map) => (Some(map.get_all(name).into_iter().cloned()), None),
            Self::Parsed(_) => (None, Some(self.all(name).filter_map(|value| HeaderValue::from_bytes(value).ok()))),
        };
        map.into_iter().flatten().chain(parsed.into_iter().flatten())
    }

    /// Whether a field has a name of that kind.
    pub fn any_name(self, mut is: impl FnMut(&str) -> bool) -> bool {
        match self {
            Self::Map(map) => map.keys().any(|name| is(name.as_str())),
            Self::Parsed(fields) => fields.iter().any(|field| is(field.name)),
        }
    }

    /// Every field: name and value.
    pub fn iter(self) -> FieldPairs<'a> {
        match self {
            Self::Map(map) => FieldPairs::Map(map.iter()),
            Self::Parsed(fields) => FieldPairs::Parsed(fields.iter()),
        }
    }
}

/// The values of the fields of one name. An iterator of its own: chained adapters cost twice the instructions.
pub enum FieldValues<'a, 'n> {
    /// Of a header map.
    Map(http::header::ValueIter<'a, HeaderValue>),
    /// Of a parsed head.
    Parsed(std::slice::Iter<'a, httparse::Header<'a>>, &'n str),
}

impl<'a> Iterator for FieldValues<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Self::Map(values) => values.next().map(HeaderValue::as_bytes),
            Self::Parsed(fields, name) => {
                fields.find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
            }
        }
    }
}

/// All fields of a head.
pub enum FieldPairs<'a> {
    /// Of a header map.
    Map(http::header::Iter<'a, HeaderValue>),
    /// Of a parsed head.
    Parsed(std::slice::Iter<'a, httparse::Header<'a>>),
}

impl<'a> Iterator for FieldPairs<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<(&'a str, &'a [u8])> {
        match self {
            Self::Map(fields) => fields.next().map(|(name, value)| (name.as_str(), value.as_bytes())),
            Self::Parsed(fields) => fields.next().map(|field| (field.name, field.value)),
        }
    }
}

fn find<'a>(fields: &'a [httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}
