//! A target, or any reference of a page, with a parameter put in or taken off.

use super::{pairs, value_of};

/// A reference, cut at `?` and `#` (RFC 3986, section 3).
struct Parts<'a> {
    /// Everything before the query: scheme and authority, if there are any, and the path.
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(reference: &'a str) -> Self {
        let (rest, fragment) = cut(reference, '#');
        let (path, query) = cut(rest, '?');
        Self { path, query, fragment }
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The reference without the parameters of this name, in query and path; `None` when it has none. All other bytes stay
/// as they are; a `?` that nothing follows any more goes too.
#[must_use]
pub fn without(reference: &str, name: &str) -> Option<String> {
    let parts = Parts::of(reference);
    let in_query = parts.query.is_some_and(|query| pairs(query).any(|pair| value_of(pair, name).is_some()));
    let in_path = segments(parts.path).any(|segment| parameters(segment).any(|one| value_of(one, name).is_some()));
    if !in_query && !in_path {
        return None;
    }
    let mut out = String::with_capacity(reference.len());
    push_path(&mut out, parts.path, name);
    if let Some(query) = parts.query {
        push_query(&mut out, query, name);
    }
    push_fragment(&mut out, parts.fragment);
    Some(out)
}

/// The reference with the parameter in its query, as its last; those that it had are gone. Doing so twice is the same as
/// doing it once.
#[must_use]
pub fn with(reference: &str, name: &str, value: &str) -> String {
    let parts = Parts::of(reference);
    let mut out = String::with_capacity(reference.len() + name.len() + value.len() + 2);
    push_path(&mut out, parts.path, name);
    let before = out.len();
    if let Some(query) = parts.query {
        push_query(&mut out, query, name);
    }
    out.push(if out.len() == before { '?' } else { '&' });
    out.push_str(name);
    out.push('=');
    out.push_str(value);
    push_fragment(&mut out, parts.fragment);
    out
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
}

/// What follows the first `;` of a segment, cut at every other.
fn parameters(segment: &str) -> impl Iterator<Item = &str> {
    segment.split(';').skip(1)
}

fn push_path(out: &mut String, path: &str, name: &str) {
    for (index, segment) in segments(path).enumerate() {
        if index > 0 {
            out.push('/');
        }
        out.push_str(segment.split(';').next().unwrap_or_default());
        for other in parameters(segment).filter(|one| value_of(one, name).is_none()) {
            out.push(';');
            out.push_str(other);
        }
    }
}

/// The query with its `?`, unless nothing is left of it that was something before.
fn push_query(out: &mut String, query: &str, name: &str) {
    let mut kept = pairs(query).filter(|pair| value_of(pair, name).is_none());
    let Some(first) = kept.next() else { return };
    out.push('?');
    out.push_str(first);
    for pair in kept {
        out.push('&');
        out.push_str(pair);
    }
}

fn push_fragment(out: &mut String, fragment: Option<&str>) {
    if let Some(fragment) = fragment {
        out.push('#');
        out.push_str(fragment);
    }
}
