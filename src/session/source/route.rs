//! The server's mark inside the application's own session id, as Tomcat's `jvmRoute` (`JSESSIONID=0AB3.app1`).

use std::collections::HashMap;

use http::header;

use super::{MAX_TRIED, Presented, SourceInput};
use crate::config;
use crate::message::Fields;
use crate::session::cookie::upstream_set_cookie::UpstreamSetCookie;
use crate::session::external_id::{Kind, NameHasher};
use crate::session::key::{ServerId, SessionKey};
use crate::session::token::keyring::Keyring;

/// Reads servers' marks out of ids.
#[derive(Debug, Clone)]
pub struct RouteSource {
    cookie: Option<Box<str>>,
    query: Option<Box<str>>,
    separator: Box<[u8]>,
    marks: HashMap<Box<[u8]>, ServerId>,
    hasher: NameHasher,
}

impl RouteSource {
    /// For the servers of a pool.
    #[must_use]
    pub fn new(mark: &config::RouteMark, pool: &config::Pool, keys: &Keyring) -> Self {
        Self {
            cookie: mark.cookie.as_deref().map(Into::into),
            query: mark.query.as_deref().map(Into::into),
            separator: mark.separator.as_bytes().into(),
            marks: pool
                .servers
                .iter()
                .map(|server| (server.route.as_bytes().into(), ServerId::of(&server.name)))
                .collect(),
            hasher: NameHasher::new(keys, &pool.name, Kind::Id),
        }
    }

    /// The parameter that it looks up, if any.
    #[must_use]
    pub fn parameter(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The first id that bears a server's mark, else the first id. Allocates nothing.
    #[must_use]
    pub fn presented(&self, input: &SourceInput<'_>) -> Presented {
        let cookies = self.cookie.iter().flat_map(|name| input.cookies(name));
        let parameters = self.query.iter().flat_map(|name| input.parameters(name));
        let mut unmarked = None;
        for id in cookies.chain(parameters).filter(|id| !id.is_empty()).take(MAX_TRIED) {
            if let Some(server) = self.marked(id) {
                return Presented::Routed { key: self.hasher.key(id), server };
            }
            unmarked = unmarked.or(Some(id));
        }
        unmarked.map_or(Presented::Nothing, |id| Presented::Unrouted(self.hasher.key(id)))
    }

    /// The id with a server's route id that a response sets as cookie; of several the last, which browsers keep.
    #[must_use]
    pub fn issued(&self, response: Fields<'_>) -> Option<SessionKey> {
        let name = self.cookie.as_deref()?.as_bytes();
        let set = response.all(&header::SET_COOKIE).filter_map(|field| UpstreamSetCookie::named(field, name));
        let id = set.last()?;
        self.marked(id.value()).map(|_| self.hasher.key(id.value()))
    }

    /// The mark is what follows the first separator, as `mod_jk` has it; or else the first part after it that is a mark:
    /// `WebLogic` names a second server behind the first.
    fn marked(&self, id: &[u8]) -> Option<ServerId> {
        let (_, rest) = split_once(id, &self.separator)?;
        if let Some(server) = self.marks.get(rest) {
            return Some(*server);
        }
        let mut rest = rest;
        loop {
            let (part, after) = split_once(rest, &self.separator).unwrap_or((rest, &[]));
            if let Some(server) = self.marks.get(part) {
                return Some(*server);
            }
            if after.is_empty() {
                return None;
            }
            rest = after;
        }
    }
}

fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(separator.len().max(1)).position(|window| window == separator)?;
    Some((text.get(..at)?, text.get(at + separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::*;
    use crate::session::source::tests::input;

    fn source(separator: &str) -> RouteSource {
        let keys = Keyring::random([1; 32]).unwrap();
        let marks = ["app1", "app2", "eu.app3"];
        RouteSource {
            cookie: Some("JSESSIONID".into()),
            query: Some("jsessionid".into()),
            separator: separator.as_bytes().into(),
            marks: marks.iter().map(|mark| (mark.as_bytes().into(), ServerId::of(mark))).collect(),
            hasher: NameHasher::new(&keys, "shop", Kind::Id),
        }
    }

    fn server(separator: &str, id: &str) -> Option<&'static str> {
        let found = source(separator).marked(id.as_bytes())?;
        ["app1", "app2", "eu.app3"].into_iter().find(|mark| ServerId::of(mark) == found)
    }

    #[test]
    fn the_mark_follows_the_separator() {
        assert_eq!(server(".", "0AB3.app1"), Some("app1"));
        assert_eq!(server(".", "0AB3.eu.app3"), Some("eu.app3"));
        assert_eq!(server("!", "0AB3!app2!app1"), Some("app2"));
        assert_eq!(server("!", "0AB3!gone!app1"), Some("app1"));
        assert_eq!(server("--", "0AB3--app1"), Some("app1"));
        for none in ["0AB3", "app1", "0AB3.", "0AB3.app9", ".", "", "0AB3..", "app1.0AB3"] {
            assert_eq!(server(".", none), None, "{none}");
        }
    }

    #[test]
    fn a_mark_is_found_in_cookie_query_and_path() {
        let marked = |cookie: &str, path: &str, query: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
            source(".").presented(&input(&headers, path, query))
        };
        let at = |presented: Presented| match presented {
            Presented::Routed { server, .. } => Some(server),
            _ => None,
        };
        assert_eq!(at(marked("JSESSIONID=x.app1", "/", None)), Some(ServerId::of("app1")));
        assert_eq!(at(marked("a=1", "/cart;jsessionid=x.app2", None)), Some(ServerId::of("app2")));
        assert_eq!(at(marked("a=1", "/cart", Some("b=2&jsessionid=x.app2"))), Some(ServerId::of("app2")));
        assert_eq!(at(marked("JSESSIONID=old", "/cart", Some("jsessionid=x.app2"))), Some(ServerId::of("app2")));
        assert!(matches!(marked("JSESSIONID=old", "/", None), Presented::Unrouted(_)));
        assert_eq!(marked("JSESSIONID=", "/", None), Presented::Nothing);
    }
}
