//! One look at the headers of a request.
//!
//! A search in a header map hashes the name it looks for, and a dozen searches were a good part of what a request cost. So
//! its headers are walked through once, and what the first hook asks of them is noted.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::proxy::request::client_addr::{X_FORWARDED, X_REAL_IP};

/// What is noted.
#[derive(Debug, Default)]
pub(crate) struct Noticed<'a> {
    /// `Host`.
    pub(crate) host: Field<'a>,
    /// `Content-Length`.
    pub(crate) length: Field<'a>,
    /// `Transfer-Encoding`.
    pub(crate) encoding: Field<'a>,
    /// Names that servers may not get to see.
    pub(crate) suspects: Suspects,
}

/// A header that a request has at most once, if it is sound.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Field<'a> {
    /// Its value, the first of several.
    pub(crate) value: Option<&'a HeaderValue>,
    /// It is there again.
    pub(crate) repeated: bool,
}

impl<'a> Field<'a> {
    fn see(&mut self, value: &'a HeaderValue) {
        self.repeated = self.value.is_some();
        self.value = self.value.or(Some(value));
    }
}

/// Whether names may be there that are taken off before a server sees them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Suspects {
    /// Of anybody.
    pub(crate) anybodys: bool,
    /// Of those who are not trusted.
    pub(crate) strangers: bool,
}

impl<'a> Noticed<'a> {
    /// Looks at all headers, once.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut noticed = Self::default();
        for (name, value) in headers {
            match *name {
                header::HOST => noticed.host.see(value),
                header::CONTENT_LENGTH => noticed.length.see(value),
                header::TRANSFER_ENCODING => noticed.encoding.see(value),
                // What nearly every request has, and nobody suspects.
                header::ACCEPT
                | header::ACCEPT_ENCODING
                | header::ACCEPT_LANGUAGE
                | header::CACHE_CONTROL
                | header::CONNECTION
                | header::CONTENT_TYPE
                | header::COOKIE
                | header::IF_MODIFIED_SINCE
                | header::IF_NONE_MATCH
                | header::ORIGIN
                | header::REFERER
                | header::USER_AGENT => {}
                _ => noticed.suspects.see(name),
            }
        }
        noticed
    }
}

impl Suspects {
    /// More names than those that must go: what exactly goes is worked out only when there is a suspect.
    fn see(&mut self, name: &HeaderName) {
        let name = name.as_str();
        match name.as_bytes() {
            [b'h', ..] => self.anybodys |= name.starts_with("homing-"),
            [b'f', ..] => self.anybodys |= name == header::FORWARDED.as_str(),
            [b'x', ..] => self.strangers |= name.starts_with(X_FORWARDED) || name == X_REAL_IP,
            _ => {}
        }
        // Applications that read headers as CGI does take `_` and `-` for the same.
        self.anybodys |= name.as_bytes().contains(&b'_');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(names: &[&'static str]) -> (bool, bool) {
        let headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        let Suspects { anybodys, strangers } = Noticed::of(&headers).suspects;
        (anybodys, strangers)
    }

    #[test]
    fn ordinary_names_are_no_suspects() {
        assert_eq!(seen(&["host", "accept", "x-requested-with", "from", "cookie", "if-match"]), (false, false));
    }

    #[test]
    fn names_that_servers_believe_from_us_are_suspects() {
        for name in ["homing-session-moved", "homing-session-data", "forwarded", "x_forwarded_for", "x_real_ip"] {
            assert_eq!(seen(&["accept", name]), (true, false), "{name}");
        }
        for name in ["x-forwarded-for", "x-forwarded-anything", "x-real-ip"] {
            assert_eq!(seen(&[name, "accept"]), (false, true), "{name}");
        }
    }

    #[test]
    fn a_header_that_comes_twice_is_seen_to() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("a"));
        assert!(!Noticed::of(&headers).host.repeated);
        headers.append(header::HOST, HeaderValue::from_static("b"));
        let noticed = Noticed::of(&headers);
        assert!(noticed.host.repeated);
        assert_eq!(noticed.host.value.map(HeaderValue::as_bytes), Some(b"a".as_slice()));
    }
}
