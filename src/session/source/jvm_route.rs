//! The server's route id inside the application's session id, as Tomcat's `jvmRoute` (`JSESSIONID=0AB3.app1`).

use std::collections::HashMap;

use http::header;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{MAX_TRIED, SessionClaim, SourceInput};
use super::definition::{Carriers, PoolContext, SessionSource, SourceDefinition, check_cookie, check_parameter};
use crate::config::address;
use crate::config::check_context::NodeRef;
use crate::config::cookie::Cookie;
use crate::config::diagnostics::Diagnostics;
use crate::config::suggest;
use crate::message::Fields;
use crate::session::cookie::jar;
use crate::session::cookie::scope::RequestUri;
use crate::session::external_id::{ExternalIdHasher, ExternalIdKind};
use crate::session::key::{ServerId, SessionKey};
use crate::session::token::UnixMillis;
use crate::session::token::codec::PoolCodec;

/// The server's route id inside the application's own session id, like `app1` in `JSESSIONID=0AB3.app1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "cookie", "examples" = [{"cookie": "JSESSIONID"}]))]
pub struct JvmRouteSettings {
    /// The cookie that carries the id.
    #[schemars(extend("examples" = ["JSESSIONID"]))]
    pub cookie: Option<String>,
    /// The query parameter that carries it, and the path parameter of the same name.
    #[schemars(extend("examples" = ["jsessionid"]))]
    pub query: Option<String>,
    /// The text between the id and the route id.
    #[schemars(length(min = 1))]
    pub separator: String,
}

impl Default for JvmRouteSettings {
    fn default() -> Self {
        Self { cookie: None, query: None, separator: ".".to_owned() }
    }
}

impl SourceDefinition for JvmRouteSettings {
    type Source = JvmRouteSource;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        if self.cookie.is_none() && self.query.is_none() {
            diagnostics.problem(
                at.location,
                "this source does not say where the application's id stands",
                "add cookie: NAME or query: NAME",
            );
        }
        if let Some(cookie) = &self.cookie {
            check_cookie(cookie, at.key("cookie"), diagnostics);
        }
        if let Some(query) = &self.query {
            check_parameter(query, at.key("query"), diagnostics);
        }
        if !address::is_header_text(&self.separator) {
            let message = format!("{} is no separator", suggest::quoted(&self.separator));
            let help = "write visible characters, like \".\" or \"!\"";
            diagnostics.problem(at.key("separator").location, message, help);
        }
        self.clone()
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { cookie: self.cookie.as_deref(), header: None, query: self.query.as_deref() }
    }

    fn build(&self, pool: &PoolContext<'_>) -> JvmRouteSource {
        JvmRouteSource {
            cookie: self.cookie.as_deref().map(Into::into),
            query: self.query.as_deref().map(Into::into),
            separator: self.separator.as_bytes().into(),
            route_ids: pool.servers.iter().map(|(name, route)| (route.as_bytes().into(), ServerId::of(name))).collect(),
            hasher: ExternalIdHasher::new(pool.keys, pool.name, ExternalIdKind::Id),
        }
    }
}

/// Reads servers' route ids from session ids.
#[derive(Debug, Clone)]
pub struct JvmRouteSource {
    cookie: Option<Box<str>>,
    query: Option<Box<str>>,
    separator: Box<[u8]>,
    route_ids: HashMap<Box<[u8]>, ServerId>,
    hasher: ExternalIdHasher,
}

impl JvmRouteSource {
    /// The id with a server's route id that a response to this request sets as cookie, if further requests like it carry
    /// that.
    #[must_use]
    pub fn issued(&self, response: Fields<'_>, uri: &RequestUri<'_>, now: UnixMillis) -> Option<SessionKey> {
        let name = self.cookie.as_deref()?.as_bytes();
        let changes = jar::changes(response.all(&header::SET_COOKIE), name, uri, now);
        let id = jar::carried(&changes)?.value;
        self.server_in(id).map(|_| self.hasher.key(id))
    }

    /// The route id is the text after the first separator, as in `mod_jk`; otherwise the first part of it that is a route id:
    /// `WebLogic` appends a second server.
    fn server_in(&self, id: &[u8]) -> Option<ServerId> {
        let (_, rest) = split_once(id, &self.separator)?;
        if let Some(server) = self.route_ids.get(rest) {
            return Some(*server);
        }
        let mut rest = rest;
        loop {
            let (part, after) = split_once(rest, &self.separator).unwrap_or((rest, &[]));
            if let Some(server) = self.route_ids.get(part) {
                return Some(*server);
            }
            if after.is_empty() {
                return None;
            }
            rest = after;
        }
    }
}

impl SessionSource for JvmRouteSource {
    /// The first id with a server's route id, otherwise the first id. Allocates nothing.
    fn claim(&self, input: &SourceInput<'_>, _codec: &PoolCodec) -> SessionClaim {
        let cookies = self.cookie.iter().flat_map(|name| input.cookies(name));
        let parameters = self.query.iter().flat_map(|name| input.parameters(name));
        let mut unrouted = None;
        for id in cookies.chain(parameters).filter(|id| !id.is_empty()).take(MAX_TRIED) {
            if let Some(server) = self.server_in(id) {
                return SessionClaim::Routed { key: self.hasher.key(id), server };
            }
            unrouted = unrouted.or(Some(id));
        }
        unrouted.map_or(SessionClaim::Nothing, |id| SessionClaim::Unrouted(self.hasher.key(id)))
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
    use crate::session::source::claim::tests::{codec, input};
    use crate::session::token::keyring::Keyring;

    fn source(separator: &str) -> JvmRouteSource {
        let keys = Keyring::random([1; 32]).unwrap();
        let names = ["app1", "app2", "eu.app3"];
        JvmRouteSource {
            cookie: Some("JSESSIONID".into()),
            query: Some("jsessionid".into()),
            separator: separator.as_bytes().into(),
            route_ids: names.iter().map(|name| (name.as_bytes().into(), ServerId::of(name))).collect(),
            hasher: ExternalIdHasher::new(&keys, "shop", ExternalIdKind::Id),
        }
    }

    fn server(separator: &str, id: &str) -> Option<&'static str> {
        let found = source(separator).server_in(id.as_bytes())?;
        ["app1", "app2", "eu.app3"].into_iter().find(|name| ServerId::of(name) == found)
    }

    #[test]
    fn the_route_id_follows_the_separator() {
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
    fn a_route_id_is_found_in_cookie_query_and_path() {
        let claim = |cookie: &str, path: &str, query: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
            source(".").claim(&input(&headers, path, query), &codec())
        };
        let at = |of: SessionClaim| match of {
            SessionClaim::Routed { server, .. } => Some(server),
            _ => None,
        };
        assert_eq!(at(claim("JSESSIONID=x.app1", "/", None)), Some(ServerId::of("app1")));
        assert_eq!(at(claim("a=1", "/cart;jsessionid=x.app2", None)), Some(ServerId::of("app2")));
        assert_eq!(at(claim("a=1", "/cart", Some("b=2&jsessionid=x.app2"))), Some(ServerId::of("app2")));
        assert_eq!(at(claim("JSESSIONID=old", "/cart", Some("jsessionid=x.app2"))), Some(ServerId::of("app2")));
        assert!(matches!(claim("JSESSIONID=old", "/", None), SessionClaim::Unrouted(_)));
        assert_eq!(claim("JSESSIONID=", "/", None), SessionClaim::Nothing);
    }
}
