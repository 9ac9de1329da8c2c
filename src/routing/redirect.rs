//! The target of a redirect, from the URL that was asked for.

use std::fmt::Write;

use bytes::BytesMut;
use http::{HeaderValue, StatusCode};

use crate::config::{self, Scheme};

use super::host::{host_name, is_url_host, split};

/// A redirect, prepared.
#[derive(Debug)]
pub struct Redirect {
    /// Status of the response.
    pub status: StatusCode,
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<Box<str>>,
}

impl Redirect {
    pub(super) fn new(config: &config::Redirect) -> Self {
        Self {
            // The check allows five statuses, all of which exist.
            status: StatusCode::from_u16(config.status).unwrap_or(StatusCode::PERMANENT_REDIRECT),
            scheme: config.scheme,
            host: config.host.as_deref().map(Into::into),
            port: config.port,
            path: config.path.as_deref().map(Into::into),
        }
    }

    /// It leads to another URL than the one that was asked for.
    pub(super) fn leads_elsewhere(&self, host: &str, path: &str, secure: bool) -> bool {
        let current = scheme_of(secure);
        self.scheme.is_some_and(|scheme| scheme != current)
            || self.host.as_deref().is_some_and(|to| !to.eq_ignore_ascii_case(host_name(host)))
            || self.port.is_some_and(|to| to != port_of(host, current))
            || self.path.as_deref().is_some_and(|to| to != path)
    }

    /// The value of `Location`, always with scheme and host, so that no path (`//other.example`) is taken for a host.
    /// `None` when the host that was asked for must not be echoed.
    pub fn location(&self, host: &str, path: &str, query: Option<&str>, secure: bool) -> Option<HeaderValue> {
        let current = scheme_of(secure);
        let scheme = self.scheme.unwrap_or(current);
        if self.host.is_none() && !is_url_host(host) {
            return None;
        }
        let (name, current_port) = split(host);
        let name = self.host.as_deref().unwrap_or(name);
        let port = self.port.or_else(|| current_port.filter(|_| scheme == current).and_then(|port| port.parse().ok()));
        // `OPTIONS *` is for the server as a whole.
        let path = self.path.as_deref().unwrap_or(if path.starts_with('/') { path } else { "/" });

        let capacity = "https://:65535?".len() + name.len() + path.len() + query.map_or(0, str::len);
        let mut url = BytesMut::with_capacity(capacity);
        write!(url, "{}://{name}", scheme.as_str()).ok()?;
        if let Some(port) = port.filter(|port| *port != scheme.port()) {
            write!(url, ":{port}").ok()?;
        }
        url.write_str(path).ok()?;
        if let Some(query) = query {
            write!(url, "?{query}").ok()?;
        }
        HeaderValue::from_maybe_shared(url.freeze()).ok()
    }
}

fn scheme_of(secure: bool) -> Scheme {
    if secure { Scheme::Https } else { Scheme::Http }
}

fn port_of(host: &str, scheme: Scheme) -> u16 {
    split(host).1.and_then(|port| port.parse().ok()).unwrap_or(scheme.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redirect(scheme: Option<Scheme>, host: Option<&str>, port: Option<u16>, path: Option<&str>) -> Redirect {
        Redirect::new(&config::Redirect {
            scheme,
            host: host.map(str::to_owned),
            port,
            path: path.map(str::to_owned),
            status: 308,
        })
    }

    fn location_of(redirect: &Redirect, host: &str, target: &str, secure: bool) -> Option<HeaderValue> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        redirect.location(host, path, query, secure)
    }

    #[test]
    fn what_the_configuration_leaves_out_stays_as_asked_for() {
        let https = Some(Scheme::Https);
        for (redirect, host, target, secure, location) in [
            (redirect(https, None, None, None), "a.example:8080", "/x?y=z", false, "https://a.example/x?y=z"),
            (redirect(https, None, Some(8443), None), "a.example:8080", "/", false, "https://a.example:8443/"),
            (redirect(https, None, Some(443), None), "a.example", "/", false, "https://a.example/"),
            (redirect(https, None, None, None), "[2001:db8::1]:8080", "/", false, "https://[2001:db8::1]/"),
            (
                redirect(https, None, None, None),
                "a.example",
                "//evil.example/",
                false,
                "https://a.example//evil.example/",
            ),
            (redirect(https, None, None, None), "a.example", "*", false, "https://a.example/"),
            (redirect(None, Some("b.example"), None, None), "a.example:8080", "/x", false, "http://b.example:8080/x"),
            (redirect(None, Some("b.example"), None, None), "a.example", "/x", true, "https://b.example/x"),
            (redirect(Some(Scheme::Http), None, None, None), "a.example:8443", "/", true, "http://a.example/"),
            (redirect(None, None, None, Some("/new")), "a.example", "/old?q=1?2", false, "http://a.example/new?q=1?2"),
            (redirect(None, None, Some(81), None), "a.example:82", "/", false, "http://a.example:81/"),
        ] {
            assert_eq!(location_of(&redirect, host, target, secure).unwrap(), location, "{redirect:?}");
        }
    }

    #[test]
    fn an_invalid_host_is_not_echoed() {
        let redirect = redirect(Some(Scheme::Https), None, None, None);
        for host in ["", "a/b", "a@b.example", "a%2fb", "a:b", "[::1", "a,b"] {
            assert_eq!(location_of(&redirect, host, "/", false), None, "{host}");
        }
    }

    proptest! {
        #[test]
        fn the_location_is_a_url_of_the_host_that_was_asked_for(
            host in "[a-z0-9.:/@\\\\?#%-]{0,20}",
            target in "/[!-~]{0,30}",
            secure: bool,
        ) {
            let redirect = redirect(Some(Scheme::Https), None, None, None);
            let Some(location) = location_of(&redirect, &host, &target, secure) else { return Ok(()) };
            let rest = location.to_str().unwrap().strip_prefix("https://").unwrap();
            let (authority, path) = rest.split_at(rest.find('/').unwrap());
            prop_assert_eq!(authority.split(':').next(), host.split(':').next());
            prop_assert_eq!(path, target);
        }

        #[test]
        fn a_client_that_follows_a_redirect_is_not_redirected_again(
            scheme in prop::option::of(prop::sample::select(vec![Scheme::Http, Scheme::Https])),
            to_host in prop::option::of("[a-c]"),
            port in prop::option::of(80u16..83),
            path in prop::option::of("/[ab]"),
            host in "[a-c](:8[0-2])?",
            asked in "/[ab]",
            secure: bool,
        ) {
            let redirect = redirect(scheme, to_host.as_deref(), port, path.as_deref());
            prop_assume!(redirect.leads_elsewhere(&host, &asked, secure));
            let location = location_of(&redirect, &host, &asked, secure).unwrap();
            let uri: http::Uri = location.to_str().unwrap().parse().unwrap();
            let secure = uri.scheme_str() == Some("https");
            prop_assert!(!redirect.leads_elsewhere(uri.authority().unwrap().as_str(), uri.path(), secure), "{location:?}");
        }
    }
}
