//! YAML: read into a small tree that knows the location of each key and value, with expansions filled in.

mod build;
mod expand;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use build::parse;
pub(crate) use expand::expand;
pub(crate) use tree::{Content, Entry, Meaning, Node, Origin, Scalar};
