//! What every check uses: the location of a value, what is outside of the file, names that are unique.

use std::collections::HashMap;
use std::path::Path;

use super::diagnostics::{Diagnostics, Location};
use super::environment::Environment;
use super::suggest;
use super::yaml::{Node, Origin};

/// A value of the file by its key, or where it would be: what is not written has the location of what it would be in.
#[derive(Clone, Copy, Default)]
pub(crate) struct NodeRef<'t> {
    pub(crate) node: Option<&'t Node>,
    pub(crate) location: Option<Location>,
}

impl<'t> NodeRef<'t> {
    pub(crate) const fn root(node: &'t Node) -> Self {
        Self { node: Some(node), location: None }
    }

    pub(crate) fn key(self, key: &str) -> Self {
        let entry = self.node.and_then(|node| node.entry(key));
        Self {
            node: entry.map(|entry| &entry.value),
            location: entry.map(|entry| entry.value.location).or(self.location),
        }
    }

    /// The location of a key itself.
    pub(crate) fn key_location(self, key: &str) -> Option<Location> {
        self.node.and_then(|node| node.entry(key)).map(|entry| entry.key_location).or(self.location)
    }

    /// All entries in the order of the file: key, its location, and the value. For more than a few look-ups by key.
    pub(crate) fn entries(self) -> impl Iterator<Item = (&'t str, Option<Location>, Self)> {
        self.node.map(Node::entries).unwrap_or_default().iter().map(|entry| {
            let value = Self { node: Some(&entry.value), location: Some(entry.value.location) };
            (entry.key.as_str(), Some(entry.key_location), value)
        })
    }

    pub(crate) fn item(self, index: usize) -> Self {
        let item = self.node.and_then(|node| node.items().get(index));
        Self { node: item, location: item.map(|item| item.location).or(self.location) }
    }

    pub(crate) fn is_written(self) -> bool {
        self.node.is_some()
    }

    /// Whether something stands in for what is missing or wrong, which was reported.
    pub(crate) fn is_stand_in(self) -> bool {
        self.origin() == Origin::Broken
    }

    pub(crate) fn origin(self) -> Origin {
        self.node.map_or(Origin::Literal, |node| node.origin)
    }

    /// Keys in the order of the file.
    pub(crate) fn keys(self) -> impl Iterator<Item = &'t str> {
        self.node.map(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str())
    }
}

/// What a check reads besides the file.
pub(crate) struct CheckContext<'o> {
    pub(crate) environment: &'o dyn Environment,
    /// Where relative paths begin.
    pub(crate) folder: &'o Path,
}

/// Finds names that exist twice.
#[derive(Default)]
pub(crate) struct UniqueNames(HashMap<String, usize>);

impl UniqueNames {
    /// Reports a name that was seen before.
    pub(crate) fn see(&mut self, name: &str, what: &str, location: Option<Location>, diagnostics: &mut Diagnostics) {
        let line = location.map_or(0, |location| location.line);
        if let Some(first) = self.0.get(name) {
            let help = format!("the first is on line {first}; names are unique");
            diagnostics.problem(location, format!("{what} {} exists twice", suggest::quoted(name)), help);
        } else {
            self.0.insert(name.to_owned(), line);
        }
    }
}

/// Reports a name that is not `[A-Za-z0-9_.-]{1,64}`.
pub(crate) fn check_name(name: &str, what: &str, location: Option<Location>, diagnostics: &mut Diagnostics) {
    if !crate::config::address::is_name(name) {
        let help = "use letters, digits, \"_\", \".\" and \"-\", at most 64, the first a letter or digit";
        diagnostics.problem(location, format!("{} is no name for a {what}", suggest::quoted(name)), help);
    }
}
