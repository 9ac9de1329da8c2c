//! The request target in the form that servers get: the path and query, or `*`.
//!
//! A client that takes the proxy for a forward proxy sends the whole URL (RFC 9112, section 3.2.2). Servers are sent the
//! origin form, and Host says the authority.

use std::borrow::Cow;

use http::{HeaderValue, Method};

/// A target that is a URL, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AbsoluteTarget<'a> {
    /// Host and port.
    pub(crate) authority: &'a [u8],
    origin: &'a [u8],
}

impl<'a> AbsoluteTarget<'a> {
    /// `None`: the target is none of these.
    pub(crate) fn of(target: &'a [u8]) -> Option<Self> {
        let after = |scheme: &[u8]| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let rest = after(b"http://").or_else(|| after(b"https://"))?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, origin) = rest.split_at(end);
        Some(Self { authority, origin })
    }

    /// The target for the server. OPTIONS of the whole server has an asterisk (RFC 9112, section 3.2.4).
    pub(crate) fn origin_form(&self, method: &Method) -> Cow<'a, [u8]> {
        match self.origin {
            [b'/', ..] => Cow::Borrowed(self.origin),
            [] if method == Method::OPTIONS => Cow::Borrowed(b"*"),
            query => Cow::Owned([b"/", query].concat()),
        }
    }

    /// The value of Host where the request has none.
    pub(crate) fn host(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.authority).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(target: &str, method: &Method) -> Option<String> {
        let origin = AbsoluteTarget::of(target.as_bytes())?.origin_form(method).into_owned();
        Some(String::from_utf8(origin).unwrap())
    }

    #[test]
    fn a_url_becomes_its_path_and_query() {
        for (target, expected) in [
            ("http://a.example/x?y=http://z/", "/x?y=http://z/"),
            ("HTTPS://a.example:81//x", "//x"),
            ("http://a.example", "/"),
            ("http://a.example?x=/", "/?x=/"),
        ] {
            assert_eq!(origin(target, &Method::GET).as_deref(), Some(expected), "{target}");
        }
        assert_eq!(origin("http://a.example", &Method::OPTIONS).as_deref(), Some("*"));
        assert_eq!(origin("http://a.example/", &Method::OPTIONS).as_deref(), Some("/"));
        assert_eq!(AbsoluteTarget::of(b"http://a:81?x").unwrap().host().unwrap(), "a:81");
    }

    #[test]
    fn other_targets_stay() {
        for target in ["/", "*", "/http://a/", "ftp://a/", "http:/a", ""] {
            assert_eq!(AbsoluteTarget::of(target.as_bytes()), None, "{target}");
        }
    }
}
