//! The application's own session id: learned when a server sets it, looked up when a client sends it.
//!
//! Only keyed hashes of ids leave this file. An id that no server has set is not adopted: an invented id would otherwise
//! create a session and fill the store.

use http::{HeaderName, Method, header};
use smallvec::SmallVec;

use super::{ExternalId, MAX_TRIED, SessionClaim, SourceInput};
use crate::config;
use crate::message::Fields;
use crate::session::cookie::jar;
use crate::session::cookie::scope::RequestUri;
use crate::session::external_id::{ExternalIdHasher, ExternalIdKind};
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::session::token::keyring::Keyring;

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

impl LearnSource {
    /// As configured, for a pool.
    #[must_use]
    pub fn new(learn: &config::Learn, pool: &str, keys: &Keyring) -> Self {
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

    /// The query and path parameter that it reads, if any.
    #[must_use]
    pub fn parameter(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The ids in a request's query and path, header and cookies, in this order: a URL belongs to one request, while all tabs
    /// of a browser share a cookie. Allocates nothing with one id and one key.
    #[must_use]
    pub fn claim(&self, input: &SourceInput<'_>) -> SessionClaim {
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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::session::source::tests::input;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn source() -> LearnSource {
        let learn = config::Learn {
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
        match source().claim(&input(&headers(fields), path, query)) {
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
