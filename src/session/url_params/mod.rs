//! Parameters in a request's target: in its query (`?sessionId=…`), and in its path (`/cart;sessionId=…`), where servlet
//! containers put them.
//!
//! Names and values are compared as they are written. A token needs no percent-encoding and neither do the names that a
//! configuration can have, and of an application's id only sameness counts.

mod edit;

#[cfg(test)]
mod tests;

pub use edit::{with, without};

/// The values of the parameters of this name: those of the query first, then those of the path. Allocates nothing.
pub fn values<'a>(path: &'a str, query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
    let in_query = query.into_iter().flat_map(pairs);
    let in_path = path.split('/').flat_map(|segment| segment.split(';').skip(1));
    in_query.chain(in_path).filter_map(move |pair| value_of(pair, name))
}

/// What is between the `&` of a query.
fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&')
}

/// The value, if the pair is of this name. `name` alone is `name=`.
fn value_of<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    match pair.strip_prefix(name)? {
        "" => Some(""),
        rest => rest.strip_prefix('='),
    }
}
