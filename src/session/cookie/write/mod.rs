//! Our cookie in responses.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use httpdate::HttpDate;

use crate::config::cookie::{Cookie, Lifetime, SameSite, Secure};
use crate::session::cookie::scope::RequestUri;
use crate::session::token::{TokenText, UnixMillis};

/// 31 December 9999, 23:59:59 UTC.
const LAST_HTTP_DATE: u64 = 253_402_300_799;
/// Bytes of `; Expires=` and a date.
const EXPIRES_LEN: usize = 10 + 29;

/// Builds `Set-Cookie` values. The parts that are the same in every response are built once.
#[derive(Debug, Clone)]
pub struct SetCookie {
    /// `NAME=`
    start: Box<[u8]>,
    /// How long the client keeps the cookie; `None` = until it closes.
    lifetime: Option<Duration>,
    plain: Variant,
    secure: Variant,
    policy: Secure,
    /// Path and domain; `None` = it belongs to every request that it is set with.
    scope: Option<Box<CookieScope>>,
}

/// Which requests carry the cookie.
#[derive(Debug, Clone)]
struct CookieScope {
    path: Box<[u8]>,
    domain: Option<Box<[u8]>>,
}

/// What follows the value, for TLS connections or for plain ones.
#[derive(Debug, Clone)]
struct Variant {
    /// `; Path=/; …`, followed by `Expires`.
    attributes: Box<[u8]>,
    clear: HeaderValue,
}

/// A configured cookie that cannot be written into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cookie's {0} has characters that a Set-Cookie header cannot carry")]
pub struct InvalidCookie(pub &'static str);

impl SetCookie {
    /// For a pool's cookie and the absolute timeout of its sessions.
    ///
    /// The cookie is always `Secure` where browsers would otherwise drop it: with `SameSite=None`, with `Partitioned`, and
    /// with names that begin with `__Host-` or `__Secure-`.
    ///
    /// # Errors
    /// When the name is not an RFC 6265 token, or path or domain contain `;` or anything but visible ASCII and spaces.
    /// Such text could inject other attributes or headers.
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
        let lifetime = (cookie.lifetime == Lifetime::Permanent).then_some(absolute);
        let variant = |secure| Variant::new(cookie, lifetime, secure);
        Ok(Self {
            start: format!("{}=", cookie.name).into_bytes().into(),
            lifetime,
            plain: variant(false)?,
            secure: variant(true)?,
            scope: CookieScope::new(cookie).map(Box::new),
            policy: if needs_secure(cookie) { Secure::Always } else { cookie.secure },
        })
    }

    /// The value that sets the client's token. `secure`: the client is connected by TLS. Allocates once.
    #[must_use]
    pub fn value(&self, token: &TokenText, secure: bool, now: UnixMillis) -> HeaderValue {
        self.with(token.as_bytes(), secure, now)
    }

    /// The same with any value: a token and the application's own value after it.
    #[must_use]
    pub fn with(&self, cookie: &[u8], secure: bool, now: UnixMillis) -> HeaderValue {
        let attributes = &self.variant(secure).attributes;
        let expires = self.lifetime.map(|lifetime| now.plus(lifetime));
        let date = expires.map_or(0, |_| EXPIRES_LEN);
        let mut value = Vec::with_capacity(self.start.len() + cookie.len() + attributes.len() + date);
        value.extend_from_slice(&self.start);
        value.extend_from_slice(cookie);
        value.extend_from_slice(attributes);
        if let Some(expires) = expires {
            // Writing to a `Vec` cannot fail.
            let _ = write!(value, "; Expires={}", http_date(expires));
        }
        // Every part is visible ASCII and spaces, which `new` has checked, or was a header's value before.
        HeaderValue::try_from(value).unwrap_or_else(|_| self.clear(secure))
    }

    /// Whether a browser sends the cookie with requests like this one: otherwise it is of no use to set it here.
    #[must_use]
    pub fn belongs_to<'a>(&self, uri: impl FnOnce() -> RequestUri<'a>) -> bool {
        self.scope.as_ref().is_none_or(|scope| {
            let uri = uri();
            uri.is_under(&scope.path) && scope.domain.as_ref().is_none_or(|domain| uri.is_in_domain(domain))
        })
    }

    /// The value that makes the client delete the cookie.
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

impl CookieScope {
    fn new(cookie: &Cookie) -> Option<Self> {
        let domain = cookie.domain.as_deref().map(|domain| domain.strip_prefix('.').unwrap_or(domain));
        let domain = domain.filter(|domain| !domain.is_empty());
        // What does not begin with a slash is no path, and browsers take the default path of the request.
        let path = Some(&*cookie.path).filter(|path| path.starts_with('/') && *path != "/");
        (path.is_some() || domain.is_some()).then(|| Self {
            path: path.unwrap_or("/").as_bytes().into(),
            domain: domain.map(|domain| domain.as_bytes().into()),
        })
    }
}

impl Variant {
    fn new(cookie: &Cookie, lifetime: Option<Duration>, secure: bool) -> Result<Self, InvalidCookie> {
        let scope = scope(cookie);
        let flags = flags(cookie, secure);
        let max_age = lifetime.map(|lifetime| format!("; Max-Age={}", lifetime.as_secs())).unwrap_or_default();
        let clear = format!("{}={scope}; Max-Age=0{flags}; Expires=Thu, 01 Jan 1970 00:00:00 GMT", cookie.name);
        let clear = HeaderValue::try_from(clear).ok().ok_or(InvalidCookie("text"))?;
        Ok(Self { attributes: format!("{scope}{max_age}{flags}").into_bytes().into(), clear })
    }
}

/// The attributes that identify a cookie: it is only replaced or cleared by one with the same path and domain.
fn scope(cookie: &Cookie) -> String {
    let mut scope = String::new();
    if !cookie.path.is_empty() {
        scope.push_str("; Path=");
        scope.push_str(&cookie.path);
    }
    if let Some(domain) = &cookie.domain {
        scope.push_str("; Domain=");
        scope.push_str(domain);
    }
    scope
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

/// The moment as an IMF-fixdate (RFC 9110), at the latest the last second that a year of four digits can name.
fn http_date(time: UnixMillis) -> HttpDate {
    HttpDate::from(UNIX_EPOCH + Duration::from_secs(time.as_secs().min(LAST_HTTP_DATE)))
}

/// A `tchar` of RFC 9110.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// A character of an attribute's value (RFC 6265).
const fn is_attribute(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b';'
}

#[cfg(test)]
mod tests;
