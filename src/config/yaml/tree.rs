//! YAML as a small tree that knows where each key and value stands in the file.

use crate::config::diagnostics::Location;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) location: Location,
    pub(crate) origin: Origin,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_location: Location,
    pub(crate) value: Node,
}

/// Text that may mean a number, a boolean or nothing unless it is quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) quoted: bool,
}

/// Where the text of a scalar came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It stands in the file.
    Literal,
    /// The default of an expansion: stands in the file too.
    Default,
    /// From a variable or a file.
    Expanded,
    /// From a file that every user of the machine may read.
    OpenFile,
    /// Expansion failed and was reported: says nothing more.
    Broken,
}

/// What a scalar means by the core schema of YAML 1.2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Meaning {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

impl Scalar {
    pub(crate) fn meaning(&self) -> Meaning {
        if self.quoted {
            return Meaning::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
            "true" | "True" | "TRUE" => Meaning::Bool(true),
            "false" | "False" | "FALSE" => Meaning::Bool(false),
            text => number(text),
        }
    }
}

fn number(text: &str) -> Meaning {
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix).filter(|digits| !digits.starts_with(['+', '-']))?;
        i64::from_str_radix(digits, radix).ok()
    };
    if let Some(value) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| text.parse().ok()) {
        return Meaning::Int(value);
    }
    // `f64` also reads words such as "inf" and "nan", which the core schema takes for text.
    let numeric =
        text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match text.parse() {
        Ok(value) if numeric => Meaning::Float(value),
        _ => Meaning::Text,
    }
}

impl Node {
    pub(crate) fn meaning(&self) -> Option<Meaning> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar.meaning()),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.meaning() == Some(Meaning::Null)
    }

    /// The entries of a map; of anything else none.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; of anything else none.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// A value that is written nowhere, at a location that stands for it.
    pub(crate) fn from_json(value: &serde_json::Value, location: Location) -> Self {
        use serde_json::Value;
        let scalar = |text: String, quoted| Content::Scalar(Scalar { text, quoted });
        let content = match value {
            Value::String(text) => scalar(text.clone(), true),
            Value::Array(items) => Content::List(items.iter().map(|item| Self::from_json(item, location)).collect()),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| Entry {
                    key: key.clone(),
                    key_location: location,
                    value: Self::from_json(value, location),
                };
                Content::Map(map.iter().map(entry).collect())
            }
            plain => scalar(plain.to_string(), false),
        };
        Self { content, location, origin: Origin::Literal }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.content {
            Content::Scalar(scalar) => match scalar.meaning() {
                Meaning::Null => serde_json::Value::Null,
                Meaning::Bool(value) => value.into(),
                Meaning::Int(value) => value.into(),
                Meaning::Float(value) => value.into(),
                Meaning::Text => scalar.text.as_str().into(),
            },
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }
}
