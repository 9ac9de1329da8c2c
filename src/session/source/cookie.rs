//! The sealed token in the pool's cookie.

use http::{HeaderMap, HeaderValue, header};

use super::Presented;
use crate::session::cookie::read;
use crate::session::token::codec::PoolCodec;

/// Reads tokens from the cookie of one name.
#[derive(Debug, Clone)]
pub struct CookieSource {
    name: Box<str>,
}

impl CookieSource {
    /// From the cookie of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// Whom the request's cookies name. Allocates nothing.
    #[must_use]
    pub fn presented(&self, headers: &HeaderMap, codec: &PoolCodec) -> Presented {
        let fields = headers.get_all(header::COOKIE).into_iter().map(HeaderValue::as_bytes);
        Presented::first_that_opens(read::values(fields, self.name.as_bytes()), codec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::key::{ServerId, SessionId};
    use crate::session::token::keyring::Keyring;
    use crate::session::token::{Flaw, Token, UnixMillis};

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

    fn presented(fields: &[String]) -> Presented {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, HeaderValue::try_from(field).unwrap());
        }
        CookieSource::new("SESSIONID").presented(&headers, &codec("shop"))
    }

    fn named(session: u8) -> Presented {
        Presented::Token { token: token(session), sealed_by_first: true }
    }

    #[test]
    fn a_request_without_our_cookie_names_nobody() {
        assert_eq!(presented(&[]), Presented::Nobody);
        assert_eq!(presented(&["a=1; SESSIONIDS=2".into()]), Presented::Nobody);
    }

    #[test]
    fn the_first_token_that_opens_counts() {
        let (one, two) = (sealed("shop", 1), sealed("shop", 2));
        assert_eq!(presented(&[format!("a=1; SESSIONID={one}; SESSIONID={two}")]), named(1));
        assert_eq!(presented(&[format!("SESSIONID=stale; SESSIONID={two}; SESSIONID={one}")]), named(2));
        assert_eq!(presented(&["SESSIONID=stale".into(), format!("SESSIONID=\"{one}\"")]), named(1));
    }

    #[test]
    fn four_tokens_are_tried_and_no_fifth() {
        let cookies = |garbage: usize| format!("{}SESSIONID={}", "SESSIONID=x; ".repeat(garbage), sealed("shop", 1));
        assert_eq!(presented(&[cookies(3)]), named(1));
        assert_eq!(presented(&[cookies(4)]), Presented::Forged(Flaw::Length));
    }

    #[test]
    fn a_token_of_another_pool_is_not_forged() {
        let (other, ours) = (sealed("api", 1), sealed("shop", 2));
        assert_eq!(presented(&[format!("SESSIONID={other}")]), Presented::OtherPool);
        assert_eq!(presented(&[format!("SESSIONID={other}; SESSIONID={ours}")]), named(2));
        assert_eq!(presented(&[format!("SESSIONID={other}; SESSIONID=x")]), Presented::Forged(Flaw::Length));
        assert_eq!(presented(&[format!("SESSIONID=x; SESSIONID={other}")]), Presented::Forged(Flaw::Length));
    }
}
