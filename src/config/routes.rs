//! The checked configuration of routes: which requests, and what happens to them.

use std::fmt;

use http::{HeaderName, HeaderValue};

use super::raw::{Redirect, Share};

/// Says what happens to some of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Unique name.
    pub name: String,
    /// Hosts, each once; empty = any host.
    pub hosts: Vec<HostPattern>,
    /// Path prefix, starts with `/`; `/shop` matches `/shop` and `/shop/…`, not `/shopping`. Ends in `/` only when it is
    /// nothing else.
    pub path_prefix: String,
    /// Headers that a request must have, with these values, in the order of the alphabet; names are unique.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What happens to them.
    pub target: RouteTarget,
    /// Changes to the headers that servers get.
    pub request_headers: RequestHeaders,
}

/// A host of a route, lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// Every name below this one, which is not among them; written `*.name`.
    Below(String),
}

/// What happens to a route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// An existing pool serves them.
    Pool(String),
    /// Existing pools serve them; at least one, each once, not all of weight 0.
    Split(Vec<Share>),
    /// The proxy answers.
    Redirect(Redirect),
}

/// Changes to the headers of a request; none concerns framing or what the proxy promises to servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeaders {
    /// Set, in place of what the client sent. Names are unique.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Taken off; none of them is set.
    pub remove: Vec<HeaderName>,
}

impl Route {
    /// The names of the pools that it leads to.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        let (one, several): (Option<&String>, &[Share]) = match &self.target {
            RouteTarget::Pool(pool) => (Some(pool), &[]),
            RouteTarget::Split(shares) => (None, shares),
            RouteTarget::Redirect(_) => (None, &[]),
        };
        one.into_iter().chain(several.iter().map(|share| &share.pool)).map(String::as_str)
    }
}

impl HostPattern {
    /// Some name fits both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Exact(name), Self::Below(domain)) | (Self::Below(domain), Self::Exact(name)) => {
                is_below(name, domain)
            }
            (Self::Below(one), Self::Below(other)) => one == other || is_below(one, other) || is_below(other, one),
        }
    }
}

/// `name` is a label or more and `domain`.
fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).and_then(|labels| labels.strip_suffix('.')).is_some_and(|labels| !labels.is_empty())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_overlaps_with_what_is_below_it() {
        let pattern = |text: &str| match text.strip_prefix("*.") {
            Some(domain) => HostPattern::Below(domain.to_owned()),
            None => HostPattern::Exact(text.to_owned()),
        };
        for (one, other, overlap) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("a.example", "*.example", true),
            ("b.a.example", "*.example", true),
            ("example", "*.example", false),
            ("an-example", "*.example", false),
            ("*.example", "*.example", true),
            ("*.a.example", "*.example", true),
            ("*.a.example", "*.b.example", false),
        ] {
            let (one, other) = (pattern(one), pattern(other));
            assert_eq!(one.overlaps(&other), overlap, "{one} {other}");
            assert_eq!(other.overlaps(&one), overlap, "{other} {one}");
            assert_eq!(one.to_string().starts_with("*."), matches!(one, HostPattern::Below(_)));
        }
    }
}
