//! The application's own session id: learned when a server sets it, looked up when a client sends it.
//!
//! Only keyed hashes of ids leave this file. An id that no server has set is not adopted: an invented id would otherwise
//! create a session and fill the store.

use http::{HeaderName, Method, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::claim::{ExternalId, MAX_TRIED, SessionClaim, SourceInput};
use super::definition::{
    Carriers, PoolContext, SessionSource, SourceDefinition, check_cookie, check_header, check_parameter,
};
use crate::config::address;
use crate::config::check_context::NodeRef;
use crate::config::cookie::Cookie;
use crate::config::diagnostics::Diagnostics;
use crate::config::suggest;
use crate::message::Fields;
use crate::session::client_identity::ClientIdentity;
use crate::session::cookie::jar;
use crate::session::cookie::scope::RequestUri;
use crate::session::external_id::{ExternalIdHasher, ExternalIdKind};
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::session::token::codec::PoolCodec;
use crate::session::token::keyring::Keyring;

/// The application's own session id: learned when a server hands it out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "cookie", "examples" = [{"cookie": "JSESSIONID"}]))]
pub struct LearnSettings {
    /// Learned from the application's `Set-Cookie` of this name, looked up in the cookie.
    #[schemars(extend("examples" = ["JSESSIONID"]))]
    pub cookie: Option<String>,
    /// Learned from this response header, looked up in the request header of the same name.
    #[schemars(extend("examples" = ["Mcp-Session-Id"]))]
    pub header: Option<String>,
    /// Looked up in this query parameter too, and in the path parameter of the same name.
    #[schemars(extend("examples" = ["sid"]))]
    pub query: Option<String>,
    /// Request methods that end the session, when the server answers them with 2xx, 404 or 410.
    #[schemars(extend("examples" = [["DELETE"]], "uniqueItems" = true))]
    pub ends_on: Vec<String>,
}

impl SourceDefinition for LearnSettings {
    type Source = Box<LearnSource>;
    const REPEATABLE: bool = true;

    fn check(&self, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Self {
        if self.cookie.is_none() && self.header.is_none() {
            diagnostics.problem(
                at.location,
                "nothing can be learned here: the application's id comes in a cookie or in a header",
                "add cookie: NAME or header: NAME, as the application sends it; query only says where else to look",
            );
        }
        if let Some(cookie) = &self.cookie {
            check_cookie(cookie, at.key("cookie"), diagnostics);
        }
        if let Some(query) = &self.query {
            check_parameter(query, at.key("query"), diagnostics);
        }
        for (index, method) in self.ends_on.iter().enumerate() {
            if !address::is_token(method) || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                let message = format!("{} is not a request method", suggest::quoted(method));
                let at = at.key("ends_on").item(index);
                diagnostics.problem(at.location, message, "write it in capitals, like DELETE");
            }
        }
        let header = self.header.as_ref().map(|header| check_header(header, at.key("header"), diagnostics));
        Self { header, ..self.clone() }
    }

    fn carriers<'a>(&'a self, _cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { cookie: self.cookie.as_deref(), header: self.header.as_deref(), query: self.query.as_deref() }
    }

    fn build(&self, pool: &PoolContext<'_>) -> Box<LearnSource> {
        Box::new(LearnSource::new(self, pool.name, pool.keys))
    }
}

/// Reads the application's ids.
#[derive(Debug)]
pub struct LearnSource {
    cookie: Option<Box<str>>,
    header: Option<HeaderName>,
    query: Option<Box<str>>,
    ends_on: Box<[Method]>,
    hasher: ExternalIdHasher,
}

/// What a response says of the application's ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LearnedIds {
    /// Ids that the server issues, for whichever path.
    pub issued: SmallVec<[SessionKey; 1]>,
    /// The one of them by which the client's next request like this one names its session.
    pub current: Option<SessionKey>,
    /// The response expires the id that the request carried, and issues no other in its place.
    pub expired: bool,
}

impl LearnedIds {
    /// The same for the sessions of this client.
    #[must_use]
    pub fn bound_to(self, identity: &ClientIdentity) -> Self {
        Self {
            issued: self.issued.into_iter().map(|key| identity.key(key)).collect(),
            current: self.current.map(|key| identity.key(key)),
            expired: self.expired,
        }
    }
}

impl LearnSource {
    /// As configured, for a pool.
    pub(crate) fn new(learn: &LearnSettings, pool: &str, keys: &Keyring) -> Self {
        Self {
            cookie: learn.cookie.as_deref().map(Into::into),
            header: learn.header.as_deref().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()),
            query: learn.query.as_deref().map(Into::into),
            ends_on: learn.ends_on.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect(),
            hasher: ExternalIdHasher::new(keys, pool, ExternalIdKind::Id),
        }
    }

    /// The name of the cookie that it learns from, if any.
    #[must_use]
    pub fn cookie_name(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// What a response to this request says, as a browser understands it. Allocates nothing with one id.
    #[must_use]
    pub fn learned(&self, response: Fields<'_>, uri: &RequestUri<'_>, now: UnixMillis) -> LearnedIds {
        let mut learned = LearnedIds::default();
        if let Some(name) = &self.cookie {
            let mut changes = jar::changes(response.all(&header::SET_COOKIE), name.as_bytes(), uri, now);
            for change in &mut changes {
                // An application that empties its cookie has no session any more, whatever the browser keeps.
                change.expires |= change.value.is_empty();
                learned.expired |= change.expires && change.covers_request;
            }
            learned.current = jar::carried(&changes).map(|change| self.hasher.key(change.value));
            let live = changes.iter().filter(|change| !change.expires);
            learned.issued.extend(live.map(|change| self.hasher.key(change.value)));
        }
        if let Some(name) = &self.header {
            let ids = response.all(name).map(<[u8]>::trim_ascii);
            learned.issued.extend(ids.filter(|id| !id.is_empty()).map(|id| self.hasher.key(id)));
            if response.contains(name) {
                learned.current = learned.issued.last().copied();
            }
        }
        learned.expired &= learned.current.is_none();
        learned
    }

    /// Whether a request with this method ends its session.
    #[must_use]
    pub fn ends_on(&self, method: &Method) -> bool {
        self.ends_on.contains(method)
    }
}

impl SessionSource for LearnSource {
    /// The ids in a request's query and path, header and cookies, in this order: a URL belongs to one request, while all tabs
    /// of a browser share a cookie. Allocates nothing with one id and one key.
    fn claim(&self, input: &SourceInput<'_>, _codec: &PoolCodec) -> SessionClaim {
        let cookies = self.cookie.iter().flat_map(|name| input.cookies(name));
        let headers = self.header.iter().flat_map(|name| input.request.fields.all(name));
        let parameters = self.query.iter().flat_map(|name| input.parameters(name));
        let mut ids = SmallVec::<[ExternalId; 1]>::new();
        let brought = parameters.chain(headers.map(<[u8]>::trim_ascii)).chain(cookies);
        for id in brought.filter(|id| !id.is_empty()).take(MAX_TRIED) {
            let key = self.hasher.key(id);
            if ids.iter().all(|known| known.key != key) {
                ids.push(ExternalId { key, former: self.hasher.former(id).collect() });
            }
        }
        if ids.is_empty() { SessionClaim::Nothing } else { SessionClaim::Ids(ids) }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::session::source::claim::tests::{codec, input};

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn source() -> LearnSource {
        let learn = LearnSettings {
            cookie: Some("SID".into()),
            header: Some("mcp-session-id".into()),
            query: Some("sid".into()),
            ends_on: vec!["DELETE".into()],
        };
        LearnSource::new(&learn, "shop", &Keyring::random([1; 32]).unwrap())
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    fn brought(fields: &[(&'static str, &str)], path: &str, query: Option<&str>) -> Vec<SessionKey> {
        match source().claim(&input(&headers(fields), path, query), &codec()) {
            SessionClaim::Ids(ids) => ids.iter().map(|id| id.key).collect(),
            _ => Vec::new(),
        }
    }

    fn key(id: &str) -> SessionKey {
        source().hasher.key(id.as_bytes())
    }

    #[test]
    fn an_id_is_the_same_wherever_it_stands() {
        for (fields, path, query) in [
            (&[("cookie", "a=1; SID=x")][..], "/", None),
            (&[("mcp-session-id", " x ")], "/", None),
            (&[], "/", Some("a=1&sid=x")),
            (&[], "/shop;sid=x/cart", None),
            (&[("cookie", "SID=x")], "/", Some("sid=x")),
        ] {
            assert_eq!(brought(fields, path, query), [key("x")], "{fields:?} {path} {query:?}");
        }
        assert_eq!(brought(&[("cookie", "SID=")], "/", Some("sid")), []);
    }

    #[test]
    fn several_ids_are_tried_in_order_but_not_hundreds() {
        assert_eq!(brought(&[("cookie", "SID=x")], "/", Some("sid=y")), [key("y"), key("x")]);
        let many = (0..100).map(|n| format!("SID={n}")).collect::<Vec<_>>().join("; ");
        assert_eq!(brought(&[("cookie", &many)], "/", None).len(), MAX_TRIED);
    }

    fn learned(path: &str, fields: &[(&'static str, &str)]) -> LearnedIds {
        source().learned(Fields::Map(&headers(fields)), &RequestUri::new("shop.example.org", path), NOW)
    }

    fn issued(ids: &[&str]) -> LearnedIds {
        let issued: SmallVec<_> = ids.iter().map(|id| key(id)).collect();
        LearnedIds { current: issued.last().copied(), issued, expired: false }
    }

    fn expired() -> LearnedIds {
        LearnedIds { expired: true, ..LearnedIds::default() }
    }

    #[test]
    fn what_a_server_hands_out_is_learned_and_what_it_takes_back_is_forgotten() {
        assert_eq!(learned("/", &[]), LearnedIds::default());
        assert_eq!(learned("/", &[("set-cookie", "SID=x; Path=/"), ("set-cookie", "SIDX=y")]), issued(&["x"]));
        assert_eq!(learned("/", &[("mcp-session-id", "x")]), issued(&["x"]));
        assert_eq!(learned("/", &[("set-cookie", "SID=x; Max-Age=0")]), expired());
        assert_eq!(learned("/", &[("set-cookie", "SID=; Path=/")]), expired());
        let renewed = learned("/", &[("set-cookie", "SID=x; Max-Age=0; Path=/old"), ("set-cookie", "SID=y")]);
        assert_eq!(renewed, issued(&["y"]));
        let renewed = learned("/", &[("set-cookie", "SID=x; Max-Age=0"), ("set-cookie", "SID=y; Path=/")]);
        assert_eq!(renewed, issued(&["y"]));
    }

    #[test]
    fn only_the_cookie_that_the_request_carried_ends_its_session() {
        for other in ["SID=; Path=/old; Max-Age=0", "SID=; Domain=example.com; Max-Age=0", "SID=x; Domain=other.org"] {
            assert_eq!(learned("/page", &[("set-cookie", other)]), LearnedIds::default(), "{other}");
        }
        assert_eq!(learned("/old/page", &[("set-cookie", "SID=; Path=/old; Max-Age=0")]), expired());
        assert_eq!(learned("/page", &[("set-cookie", "SID=; Domain=.example.org; Max-Age=0")]), expired());
        let elsewhere = learned("/login", &[("set-cookie", "SID=x; Path=/app")]);
        assert_eq!(elsewhere, LearnedIds { current: None, ..issued(&["x"]) });
        let both = learned("/login", &[("set-cookie", "SID=x; Path=/app"), ("set-cookie", "SID=; Path=/; Max-Age=0")]);
        assert_eq!(both, LearnedIds { current: None, expired: true, ..issued(&["x"]) });
        let taken_back = learned("/", &[("set-cookie", "SID=x; Path=/"), ("set-cookie", "SID=x; Path=/; Max-Age=0")]);
        assert_eq!(taken_back, expired());
    }

    #[test]
    fn a_session_ends_on_the_methods_that_say_so() {
        assert!(source().ends_on(&Method::DELETE));
        assert!(!source().ends_on(&Method::GET));
    }
}
