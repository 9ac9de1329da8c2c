//! A request or a response head, borrowed.

use http::{Method, StatusCode, Uri, Version, header};

use super::Fields;

/// The head of a request. Making a view reads nothing: the parts of the target are taken out when they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method.
    pub method: &'a Method,
    /// Version of HTTP.
    pub version: Version,
    /// Header fields.
    pub fields: Fields<'a>,
    target: Target<'a>,
}

/// The request target in one of two forms.
#[derive(Debug, Clone, Copy)]
enum Target<'a> {
    /// Parsed; beside it the target as it was sent, where that is not in the URI.
    Uri(&'a Uri, &'a [u8]),
    /// As text.
    Text(&'a [u8]),
}

impl<'a> RequestView<'a> {
    /// A head with a parsed target; `sent` is the original text of the target.
    pub const fn parsed(
        method: &'a Method,
        uri: &'a Uri,
        sent: &'a [u8],
        version: Version,
        fields: Fields<'a>,
    ) -> Self {
        Self { method, version, fields, target: Target::Uri(uri, sent) }
    }

    /// A head of HTTP/1, from its request line and fields.
    pub const fn http1(method: &'a Method, target: &'a [u8], version: Version, fields: Fields<'a>) -> Self {
        Self { method, version, fields, target: Target::Text(target) }
    }

    /// The request target as it was sent.
    pub const fn target(&self) -> &'a [u8] {
        match self.target {
            Target::Uri(_, sent) | Target::Text(sent) => sent,
        }
    }

    /// The target's path, without query.
    pub fn path(&self) -> &'a str {
        match self.target {
            Target::Uri(uri, _) => uri.path(),
            Target::Text(target) => {
                let origin = split_authority(target).1;
                let path = origin.split_once('?').map_or(origin, |(path, _)| path);
                if path.is_empty() { "/" } else { path }
            }
        }
    }

    /// The target's query, without `?`.
    pub fn query(&self) -> Option<&'a str> {
        match self.target {
            Target::Uri(uri, _) => uri.query(),
            Target::Text(target) => split_authority(target).1.split_once('?').map(|(_, query)| query),
        }
    }

    /// The authority in the target: `:authority` of HTTP/2, or that of an absolute target.
    pub fn authority(&self) -> Option<&'a str> {
        match self.target {
            Target::Uri(uri, _) => uri.authority().map(http::uri::Authority::as_str),
            Target::Text(target) => split_authority(target).0,
        }
    }

    /// The host that the request names, with its port: that of the target, else of `Host`.
    pub fn host(&self) -> &'a str {
        self.authority().or_else(|| self.fields.get_str(&header::HOST)).unwrap_or_default()
    }
}

/// The authority of an absolute target, and path and query.
fn split_authority(target: &[u8]) -> (Option<&str>, &str) {
    let text = std::str::from_utf8(target).unwrap_or_default();
    let Some(rest) = behind_scheme(text) else { return (None, text) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, origin) = rest.split_at_checked(end).unwrap_or((rest, ""));
    (Some(authority), origin)
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
