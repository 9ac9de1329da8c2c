//! A request or a response head, borrowed.

use http::{Method, StatusCode, Version, header};

use super::Fields;

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method.
    pub method: &'a Method,
    /// The request target as it was sent.
    pub target: &'a [u8],
    /// The target's path, without query.
    pub path: &'a str,
    /// The target's query, without `?`.
    pub query: Option<&'a str>,
    /// The authority in the target: `:authority` of HTTP/2, or that of an absolute target.
    pub authority: Option<&'a str>,
    /// Version of HTTP.
    pub version: Version,
    /// Header fields.
    pub fields: Fields<'a>,
}

impl<'a> RequestView<'a> {
    /// A head of HTTP/1, from its request line and fields.
    pub fn http1(method: &'a Method, target: &'a [u8], version: Version, fields: Fields<'a>) -> Self {
        let text = std::str::from_utf8(target).unwrap_or_default();
        let (authority, origin) = match behind_scheme(text) {
            Some(rest) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, origin) = rest.split_at_checked(end).unwrap_or((rest, ""));
                (Some(authority), origin)
            }
            None => (None, text),
        };
        let (path, query) = match origin.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (origin, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Self { method, target, path, query, authority, version, fields }
    }

    /// The host that the request names, with its port: that of the target, else of `Host`.
    pub fn host(&self) -> &'a str {
        self.authority.or_else(|| self.fields.get_str(&header::HOST)).unwrap_or_default()
    }
}

/// What follows the scheme of an absolute target.
fn behind_scheme(target: &str) -> Option<&str> {
    let behind = |scheme: &str| {
        let (begins, rest) = target.split_at_checked(scheme.len())?;
        begins.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    behind("http://").or_else(|| behind("https://"))
}

/// The head of a response.
#[derive(Debug, Clone, Copy)]
pub struct ResponseView<'a> {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub fields: Fields<'a>,
}

impl ResponseView<'_> {
    /// Whether this is the last head of its exchange: not 1xx, except 101, after which the connection speaks another
    /// protocol.
    pub fn is_final(&self) -> bool {
        !self.status.is_informational() || self.status == StatusCode::SWITCHING_PROTOCOLS
    }
}
