//! The sealed token in a cookie: a separate one, or the application's, before or in place of its value.

use http::header::COOKIE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::{SessionClaim, SourceInput};
use super::definition::{Carriers, PoolContext, SessionSource, SourceDefinition};
use crate::config::check_context::NodeRef;
use crate::config::cookie::{Cookie, CookieMode};
use crate::config::diagnostics::Diagnostics;
use crate::message::{RequestEdits, RequestView};
use crate::session::cookie::read::{joined, without, without_matching};
use crate::session::cookie::{overflow, prefix};
use crate::session::token::codec::PoolCodec;
use crate::session::token::has_token_shape;

/// The sealed token in the pool's cookie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{}]))]
pub struct CookieSettings {}

impl SourceDefinition for CookieSettings {
    type Source = CookieSource;
    const READS_TOKEN: bool = true;

    fn check(&self, _at: NodeRef<'_>, _diagnostics: &mut Diagnostics) -> Self {
        *self
    }

    fn carriers<'a>(&'a self, cookie: &'a Cookie) -> Carriers<'a> {
        Carriers { cookie: Some(&cookie.name), ..Carriers::default() }
    }

    fn build(&self, pool: &PoolContext<'_>) -> CookieSource {
        CookieSource::new(&pool.cookie.name, pool.cookie.mode)
    }
}

/// Reads tokens from the cookie of one name.
#[derive(Debug, Clone)]
pub struct CookieSource {
    name: Box<str>,
    mode: CookieMode,
    /// A separate cookie that carries the token when the application's has no room for it.
    overflow: Option<Box<str>>,
}

impl CookieSource {
    /// From the cookie of this name.
    #[must_use]
    pub fn new(name: &str, mode: CookieMode) -> Self {
        let overflow = (mode != CookieMode::Insert).then(|| overflow::name_for(name).into());
        Self { name: name.into(), mode, overflow }
    }
}

impl SessionSource for CookieSource {
    /// The token in the request's cookies. Allocates nothing.
    ///
    /// In an application's cookie, a value without a token is the application's own, from before the proxy, and not forged.
    fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
        let values = input.cookies(&self.name);
        let overflow = self.overflow.iter().flat_map(|name| input.cookies(name));
        match self.mode {
            CookieMode::Insert => SessionClaim::first_that_opens(values, codec),
            CookieMode::Prefix => {
                let tokens = values.filter_map(|value| Some(prefix::split(value)?.0));
                SessionClaim::first_that_opens(tokens.chain(overflow), codec)
            }
            CookieMode::Rewrite => {
                SessionClaim::first_that_opens(values.filter(|value| has_token_shape(value)).chain(overflow), codec)
            }
        }
    }

    fn strip(&self, request: &RequestView<'_>, hidden: bool, edits: &mut RequestEdits<'_>) {
        let (fields, name) = (request.fields.all(&COOKIE), self.name.as_bytes());
        let rewrite = match (self.mode, &self.overflow) {
            (CookieMode::Prefix, Some(overflow)) => prefix::strip_token(fields, name, overflow.as_bytes()),
            _ if !hidden => joined(fields),
            // A value that is no token is the application's own, from a time before the proxy's.
            (_, Some(overflow)) => without_matching(fields, name, overflow.as_bytes(), has_token_shape),
            (_, None) => without(fields, name),
        };
        edits.cookie = rewrite.into();
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::session::key::{ServerId, SessionId};
    use crate::session::source::claim::tests::input;
    use crate::session::token::keyring::Keyring;
    use crate::session::token::{Token, TokenError, TokenText, UnixMillis};

    fn token(session: u8) -> Token {
        Token {
            session: SessionId::from_random([session; 16]),
            server: ServerId::of("a"),
            epoch: 0,
            created: UnixMillis(1),
            issued: UnixMillis(1),
        }
    }

    fn codec(pool: &str) -> PoolCodec {
        PoolCodec::new(&Keyring::random([1; 32]).unwrap(), pool)
    }

    fn sealed(pool: &str, session: u8) -> String {
        codec(pool).seal(&token(session), [session; 24]).as_str().to_owned()
    }

    fn claim(fields: &[String]) -> SessionClaim {
        claim_in(CookieMode::Insert, fields)
    }

    fn claim_in(mode: CookieMode, fields: &[String]) -> SessionClaim {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::try_from(field).unwrap());
        }
        let input = input(&headers, "/", None);
        CookieSource::new("SESSIONID", mode).claim(&input, &codec("shop"))
    }

    fn named(session: u8) -> SessionClaim {
        SessionClaim::Token { token: token(session), sealed_by_first: true }
    }

    #[test]
    fn a_request_without_our_cookie_names_no_session() {
        assert_eq!(claim(&[]), SessionClaim::Nothing);
        assert_eq!(claim(&["a=1; SESSIONIDS=2".into()]), SessionClaim::Nothing);
    }

    #[test]
    fn the_first_token_that_opens_counts() {
        let (one, two) = (sealed("shop", 1), sealed("shop", 2));
        assert_eq!(claim(&[format!("a=1; SESSIONID={one}; SESSIONID={two}")]), named(1));
        assert_eq!(claim(&[format!("SESSIONID=stale; SESSIONID={two}; SESSIONID={one}")]), named(2));
        assert_eq!(claim(&["SESSIONID=stale".into(), format!("SESSIONID=\"{one}\"")]), named(1));
    }

    #[test]
    fn four_tokens_are_tried_and_no_fifth() {
        let garbage = format!("SESSIONID=AQ{}; ", "x".repeat(TokenText::LEN - 2));
        let cookies = |count: usize| format!("{}SESSIONID={}", garbage.repeat(count), sealed("shop", 1));
        assert_eq!(claim(&[cookies(3)]), named(1));
        assert!(matches!(claim(&[cookies(4)]), SessionClaim::Forged(_)));
    }

    #[test]
    fn values_that_cannot_be_tokens_do_not_count_among_the_four() {
        let cookies = format!("{}SESSIONID={}", "SESSIONID=x; SESSIONID=; ".repeat(100), sealed("shop", 1));
        assert_eq!(claim(&[cookies]), named(1));
        assert_eq!(claim(&["SESSIONID=x; ".repeat(100)]), SessionClaim::Forged(TokenError::Length));
    }

    #[test]
    fn a_token_of_another_pool_is_not_forged() {
        let (other, ours) = (sealed("api", 1), sealed("shop", 2));
        assert_eq!(claim(&[format!("SESSIONID={other}")]), SessionClaim::OtherPool);
        assert_eq!(claim(&[format!("SESSIONID={other}; SESSIONID={ours}")]), named(2));
        assert_eq!(claim(&[format!("SESSIONID={other}; SESSIONID=x")]), SessionClaim::Forged(TokenError::Length));
        assert_eq!(claim(&[format!("SESSIONID=x; SESSIONID={other}")]), SessionClaim::Forged(TokenError::Length));
    }

    #[test]
    fn an_applications_cookie_carries_the_token_before_or_in_place_of_its_value() {
        let token = sealed("shop", 1);
        let in_mode = |mode, value: &str| claim_in(mode, &[format!("SESSIONID={value}")]);
        assert_eq!(in_mode(CookieMode::Prefix, &format!("{token}~abc")), named(1));
        assert_eq!(in_mode(CookieMode::Prefix, &format!("{token}~")), named(1));
        assert_eq!(in_mode(CookieMode::Rewrite, &token), named(1));
        for own in ["abc", "", "abc~def", token.as_str()] {
            assert_eq!(in_mode(CookieMode::Prefix, own), SessionClaim::Nothing, "{own}");
        }
        for own in ["abc", "", &format!("{token}~abc")] {
            assert_eq!(in_mode(CookieMode::Rewrite, own), SessionClaim::Nothing, "{own}");
        }
        for mode in [CookieMode::Prefix, CookieMode::Rewrite] {
            let beside = format!("SESSIONID=too-large; SESSIONID~homing={token}");
            assert_eq!(claim_in(mode, &[beside]), named(1), "in the overflow cookie");
        }
        let broken: String = token.chars().take(20).chain(token.chars().rev().take(95)).collect();
        assert!(matches!(in_mode(CookieMode::Rewrite, &broken), SessionClaim::Forged(_)));
        assert!(matches!(in_mode(CookieMode::Prefix, &format!("{broken}~abc")), SessionClaim::Forged(_)));
    }
}
