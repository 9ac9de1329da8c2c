//! Which requests a cookie belongs to: its host and path, as browsers compare them (RFC 6265, sections 5.1.3 and 5.1.4).

use std::net::Ipv4Addr;

/// Host and path of a request, as its client knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestUri<'a> {
    /// The host without its port; `None` when the request names none.
    host: Option<&'a str>,
    /// The path without the query.
    path: &'a [u8],
}

impl<'a> RequestUri<'a> {
    /// From an authority (`example.org:8080`, empty when there is none) and a path.
    #[must_use]
    pub fn new(authority: &'a str, path: &'a str) -> Self {
        let host = match authority.rfind(':') {
            // The colons of an IPv6 address stand in brackets.
            Some(colon) if !authority.ends_with(']') => authority.get(..colon).unwrap_or(authority),
            _ => authority,
        };
        Self { host: Some(host).filter(|host| !host.is_empty()), path: path.as_bytes() }
    }

    /// Whether a cookie of this domain may belong to the host. Without a host nothing speaks against it.
    #[must_use]
    pub fn is_in_domain(&self, domain: &[u8]) -> bool {
        self.host.is_none_or(|host| domain_matches(host.as_bytes(), domain))
    }

    /// Whether a cookie of this path is sent with the request.
    #[must_use]
    pub fn is_under(&self, cookie_path: &[u8]) -> bool {
        path_matches(self.path, cookie_path)
    }

    /// The path of a cookie that a response to the request sets without one.
    #[must_use]
    pub fn default_path(&self) -> &'a [u8] {
        let end = self.path.iter().rposition(|byte| *byte == b'/').filter(|_| self.path.first() == Some(&b'/'));
        match end {
            Some(end) if end > 0 => self.path.get(..end).unwrap_or(b"/"),
            _ => b"/",
        }
    }
}

/// The same host, or a subdomain. An address has none.
fn domain_matches(host: &[u8], domain: &[u8]) -> bool {
    if host.eq_ignore_ascii_case(domain) {
        return true;
    }
    let Some(split) = host.len().checked_sub(domain.len()).filter(|split| *split > 0 && !domain.is_empty()) else {
        return false;
    };
    let (sub, parent) = host.split_at_checked(split).unwrap_or_default();
    sub.ends_with(b".") && parent.eq_ignore_ascii_case(domain) && !is_address(host)
}

fn is_address(host: &[u8]) -> bool {
    let text = std::str::from_utf8(host).unwrap_or_default();
    text.starts_with('[') || text.parse::<Ipv4Addr>().is_ok()
}

fn path_matches(path: &[u8], cookie_path: &[u8]) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| rest.is_empty() || cookie_path.ends_with(b"/") || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri<'a>(host: &'a str, path: &'a str) -> RequestUri<'a> {
        RequestUri::new(host, path)
    }

    #[test]
    fn a_cookie_belongs_to_its_domain_and_to_the_hosts_in_it() {
        for (host, domain) in [
            ("example.org", "example.org"),
            ("EXAMPLE.org:8080", "Example.ORG"),
            ("shop.example.org", "example.org"),
            ("a.b.example.org:443", "example.org"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("", "example.org"),
        ] {
            assert!(uri(host, "/").is_in_domain(domain.as_bytes()), "{host} {domain}");
        }
        for (host, domain) in [
            ("example.org", "shop.example.org"),
            ("badexample.org", "example.org"),
            ("example.org", "example.com"),
            ("example.org", ""),
            ("127.0.0.1", "0.0.1"),
            (".org", "org.org"),
        ] {
            assert!(!uri(host, "/").is_in_domain(domain.as_bytes()), "{host} {domain}");
        }
    }

    #[test]
    fn a_cookie_belongs_to_its_path_and_what_is_under_it() {
        for (path, cookie) in [("/", "/"), ("/a", "/"), ("/shop", "/shop"), ("/shop/", "/shop"), ("/shop/x", "/shop/")]
        {
            assert!(uri("h", path).is_under(cookie.as_bytes()), "{path} {cookie}");
        }
        for (path, cookie) in [("/", "/shop"), ("/shopping", "/shop"), ("/shop", "/shop/"), ("/Shop", "/shop")] {
            assert!(!uri("h", path).is_under(cookie.as_bytes()), "{path} {cookie}");
        }
    }

    #[test]
    fn a_cookie_without_a_path_belongs_to_the_folder_of_its_request() {
        for (path, folder) in
            [("/", "/"), ("", "/"), ("*", "/"), ("/a", "/"), ("/a/", "/a"), ("/a/b", "/a"), ("/a/b/", "/a/b")]
        {
            assert_eq!(uri("h", path).default_path(), folder.as_bytes(), "{path}");
            assert!(uri("h", path).is_under(folder.as_bytes()) || !path.starts_with('/'));
        }
    }
}
