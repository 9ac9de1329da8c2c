//! Our cookie in answers.

use std::time::Duration;

use http::HeaderValue;

use super::date;
use crate::config::{Cookie, SameSite, Secure};
use crate::session::token::{TokenText, UnixMillis};

/// Writes `Set-Cookie` values. All that does not change from answer to answer is made once.
#[derive(Debug, Clone)]
pub struct SetCookie {
    /// `NAME=`
    start: Box<[u8]>,
    /// How long the client keeps the cookie; `None` = until it closes.
    lifetime: Option<Duration>,
    plain: Variant,
    secure: Variant,
    policy: Secure,
}

/// What follows the value, on connections that are secure or are not.
#[derive(Debug, Clone)]
struct Variant {
    /// `; Path=/; …`, to which `Expires` is added.
    attributes: Box<[u8]>,
    clear: HeaderValue,
}

/// A cookie that cannot be written into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cookie's {0} has characters that a Set-Cookie header cannot carry")]
pub struct InvalidCookie(pub &'static str);

impl SetCookie {
    /// For a pool's cookie and the absolute timeout of its sessions.
    ///
    /// The cookie is `Secure` whatever the configuration says if browsers would drop it otherwise: with
    /// `SameSite=None`, with `Partitioned`, and with names that begin with `__Host-` or `__Secure-`.
    ///
    /// # Errors
    /// When the name is not an RFC 6265 token, or path or domain contain `;` or anything but visible ASCII and spaces.
    /// Such would let a configuration write headers of its own.
    pub fn new(cookie: &Cookie, absolute: Duration) -> Result<Self, InvalidCookie> {
        if cookie.name.is_empty() || !cookie.name.bytes().all(is_token) {
            return Err(InvalidCookie("name"));
        }
        if !cookie.path.bytes().all(is_attribute) {
            return Err(InvalidCookie("path"));
        }
        if !cookie.domain.as_deref().unwrap_or_default().bytes().all(is_attribute) {
            return Err(InvalidCookie("domain"));
        }
        let lifetime = cookie.permanent.then_some(absolute);
        let variant = |secure| Variant::new(cookie, lifetime, secure);
        Ok(Self {
            start: format!("{}=", cookie.name).into_bytes().into(),
            lifetime,
            plain: variant(false)?,
            secure: variant(true)?,
            policy: if needs_secure(cookie) { Secure::Always } else { cookie.secure },
        })
    }

    /// The value that gives the client its token. `secure`: the client came by TLS. Allocates once.
    #[must_use]
    pub fn value(&self, token: &TokenText, secure: bool, now: UnixMillis) -> HeaderValue {
        self.with(token.as_bytes(), secure, now)
    }

    /// The same with any value: a token and what the application put beside it.
    #[must_use]
    pub fn with(&self, cookie: &[u8], secure: bool, now: UnixMillis) -> HeaderValue {
        const EXPIRES: &[u8] = b"; Expires=";
        let attributes = &self.variant(secure).attributes;
        let expires = self.lifetime.map(|lifetime| now.plus(lifetime));
        let date = expires.map_or(0, |_| EXPIRES.len() + date::LEN);
        let mut value = Vec::with_capacity(self.start.len() + cookie.len() + attributes.len() + date);
        value.extend_from_slice(&self.start);
        value.extend_from_slice(cookie);
        value.extend_from_slice(attributes);
        if let Some(expires) = expires {
            value.extend_from_slice(EXPIRES);
            date::push(&mut value, expires);
        }
        // Every part is visible ASCII and spaces, as `new` has seen to, or came in a header itself.
        HeaderValue::try_from(value).unwrap_or_else(|_| self.clear(secure))
    }

    /// The value that makes the client forget the cookie.
    #[must_use]
    pub fn clear(&self, secure: bool) -> HeaderValue {
        self.variant(secure).clear.clone()
    }

    const fn variant(&self, secure: bool) -> &Variant {
        match (self.policy, secure) {
            (Secure::Always, _) | (Secure::Auto, true) => &self.secure,
            (Secure::Never, _) | (Secure::Auto, false) => &self.plain,
        }
    }
}

impl Variant {
    fn new(cookie: &Cookie, lifetime: Option<Duration>, secure: bool) -> Result<Self, InvalidCookie> {
        let place = place(cookie);
        let flags = flags(cookie, secure);
        let max_age = lifetime.map(|lifetime| format!("; Max-Age={}", lifetime.as_secs())).unwrap_or_default();
        let clear = format!("{}={place}; Max-Age=0{flags}; Expires=Thu, 01 Jan 1970 00:00:00 GMT", cookie.name);
        let clear = HeaderValue::try_from(clear).ok().ok_or(InvalidCookie("text"))?;
        Ok(Self { attributes: format!("{place}{max_age}{flags}").into_bytes().into(), clear })
    }
}

/// The attributes that say which cookie this is: a cookie is only replaced or cleared by one with the same.
fn place(cookie: &Cookie) -> String {
    let mut place = String::new();
    if !cookie.path.is_empty() {
        place.push_str("; Path=");
        place.push_str(&cookie.path);
    }
    if let Some(domain) = &cookie.domain {
        place.push_str("; Domain=");
        place.push_str(domain);
    }
    place
}

fn flags(cookie: &Cookie, secure: bool) -> String {
    let same_site = match cookie.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    };
    let either = |on: bool, flag: &'static str| if on { flag } else { "" };
    [
        either(secure, "; Secure"),
        either(cookie.http_only, "; HttpOnly"),
        same_site,
        either(cookie.partitioned, "; Partitioned"),
    ]
    .concat()
}

/// Whether browsers drop the cookie unless it is `Secure`.
fn needs_secure(cookie: &Cookie) -> bool {
    // RFC 6265bis compares these prefixes without regard to case.
    let begins = |prefix: &str| cookie.name.get(..prefix.len()).is_some_and(|name| name.eq_ignore_ascii_case(prefix));
    cookie.same_site == SameSite::None || cookie.partitioned || begins("__Host-") || begins("__Secure-")
}

/// A `tchar` of RFC 9110.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Any character of an attribute's value, by RFC 6265.
const fn is_attribute(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b';'
}

#[cfg(test)]
mod tests;
