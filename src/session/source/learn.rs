//! The application's own session id: learned when a server sets it, looked up when a client sends it.
//!
//! Only keyed hashes of ids leave this file. An id that no server has set is not adopted: an invented id would otherwise
//! create a session and fill the store.

use http::{HeaderName, Method, header};
use smallvec::SmallVec;

use super::{ExternalId, MAX_TRIED, SessionClaim, SourceInput};
use crate::config;
use crate::message::Fields;
use crate::session::cookie::upstream_set_cookie::UpstreamSetCookie;
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
    /// Ids that the server issues.
    pub issued: SmallVec<[SessionKey; 1]>,
    /// The response expires the client's id.
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

    /// The name of the cookie or header that it learns from, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cookie.as_deref().or(self.header.as_ref().map(HeaderName::as_str)).unwrap_or_default()
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

    /// What a response says. Allocates nothing with one id.
    #[must_use]
    pub fn learned(&self, response: Fields<'_>, now: UnixMillis) -> LearnedIds {
        let mut learned = LearnedIds::default();
        if let Some(name) = &self.cookie {
            for set in
                response.all(&header::SET_COOKIE).filter_map(|field| UpstreamSetCookie::named(field, name.as_bytes()))
            {
                if set.deletes_cookie(now) || set.value().is_empty() {
                    learned.expired = true;
                } else {
                    learned.issued.push(self.hasher.key(set.value()));
                }
            }
        }
        if let Some(name) = &self.header {
            let ids = response.all(name).map(<[u8]>::trim_ascii);
            learned.issued.extend(ids.filter(|id| !id.is_empty()).map(|id| self.hasher.key(id)));
        }
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

    #[test]
    fn what_a_server_hands_out_is_learned_and_what_it_takes_back_is_forgotten() {
        let learned = |fields: &[(&'static str, &str)]| source().learned(Fields::Map(&headers(fields)), NOW);
        let issued = |ids: &[&str]| LearnedIds { issued: ids.iter().map(|id| key(id)).collect(), expired: false };
        assert_eq!(learned(&[]), LearnedIds::default());
        assert_eq!(learned(&[("set-cookie", "SID=x; Path=/"), ("set-cookie", "SIDX=y")]), issued(&["x"]));
        assert_eq!(learned(&[("mcp-session-id", "x")]), issued(&["x"]));
        let expired = LearnedIds { issued: SmallVec::new(), expired: true };
        assert_eq!(learned(&[("set-cookie", "SID=x; Max-Age=0")]), expired);
        assert_eq!(learned(&[("set-cookie", "SID=; Path=/")]), expired);
        let renewed = learned(&[("set-cookie", "SID=x; Max-Age=0; Path=/old"), ("set-cookie", "SID=y")]);
        assert_eq!(renewed, LearnedIds { expired: true, ..issued(&["y"]) });
    }

    #[test]
    fn a_session_ends_on_the_methods_that_say_so() {
        assert!(source().ends_on(&Method::DELETE));
        assert!(!source().ends_on(&Method::GET));
    }
}
