//! Parameters of a URL: in its query (`?sessionId=…`) and in its path (`/cart;sessionId=…`), where servlet containers put
//! them. Read, set and removed.
//!
//! Names and values are compared as bytes, without percent-decoding: tokens and the names that a configuration can have
//! need no encoding, and an application's id is only compared with itself.

#[cfg(test)]
mod tests;

/// The values of the parameters of this name: those of the query first, then those of the path. Allocates nothing.
pub fn values<'a>(path: &'a str, query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
    let in_query = query.into_iter().flat_map(pairs);
    let in_path = path.split('/').flat_map(|segment| segment.split(';').skip(1));
    in_query.chain(in_path).filter_map(move |pair| value_of(pair, name))
}

/// The pairs between the `&` of a query.
fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&')
}

/// The value, if the pair has this name. `name` alone means `name=`.
fn value_of<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    match pair.strip_prefix(name)? {
        "" => Some(""),
        rest => rest.strip_prefix('='),
    }
}

/// A URL reference, split at `?` and `#` (RFC 3986, section 3).
struct Reference<'a> {
    /// All before the query: scheme and authority, if present, and the path.
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn of(reference: &'a str) -> Self {
        let (rest, fragment) = cut(reference, '#');
        let (path, query) = cut(rest, '?');
        Self { path, query, fragment }
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The reference without the parameters of this name, in query and path; `None` when it has none. All other bytes are
/// unchanged, but a `?` whose query has become empty is removed.
#[must_use]
pub fn without(reference: &str, name: &str) -> Option<String> {
    let parts = Reference::of(reference);
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

/// The reference with the parameter as the last of its query, in place of all parameters of this name. Idempotent.
#[must_use]
pub fn with(reference: &str, name: &str, value: &str) -> String {
    let parts = Reference::of(reference);
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

/// The parameters of a path segment: what follows its first `;`, split at every `;`.
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

/// The query with its `?`, or nothing when no pair is left.
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
