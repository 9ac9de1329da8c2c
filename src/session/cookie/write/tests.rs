//! What we write, read back by the `cookie` crate.

use cookie::Expiration;
use cookie::time::OffsetDateTime;

use super::*;
use crate::session::binding::Binding;
use crate::session::key::{ServerId, SessionId};
use crate::session::token::codec::PoolCodec;
use crate::session::token::keyring::Keyring;

const DAY: Duration = Duration::from_secs(86_400);
const NOW: UnixMillis = UnixMillis(1_790_000_000_999);

fn defaults() -> Cookie {
    Cookie {
        name: "SESSIONID".into(),
        mode: crate::config::CookieMode::Insert,
        path: "/".into(),
        domain: None,
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        partitioned: false,
        lifetime: Lifetime::Session,
        hide_from_server: true,
        cache_control: None,
    }
}

fn token() -> TokenText {
    let codec = PoolCodec::new(&Keyring::random([1; 32]).unwrap(), "shop");
    codec.seal(&Binding::new(ServerId(1), NOW).token(SessionId::from_random([2; 16]), NOW), [3; 24])
}

fn written(cookie: &Cookie, secure: bool) -> String {
    let value = SetCookie::new(cookie, DAY).unwrap().value(&token(), secure, NOW);
    value.to_str().unwrap().to_owned()
}

#[test]
fn the_default_cookie_is_a_session_cookie_kept_from_scripts() {
    let expected = format!("SESSIONID={}; Path=/; HttpOnly; SameSite=Lax", token().as_str());
    assert_eq!(written(&defaults(), false), expected);
    let expected = format!("SESSIONID={}; Path=/; Secure; HttpOnly; SameSite=Lax", token().as_str());
    assert_eq!(written(&defaults(), true), expected);
}

#[test]
fn a_permanent_cookie_has_max_age_and_expires() {
    let value = written(&Cookie { lifetime: Lifetime::Permanent, ..defaults() }, false);
    assert!(value.contains("; Max-Age=86400; "), "{value}");
    assert!(value.ends_with("; Expires=Tue, 22 Sep 2026 14:13:20 GMT"), "{value}");
}

#[test]
fn a_lifetime_without_end_does_not_overflow() {
    let forever = SetCookie::new(&Cookie { lifetime: Lifetime::Permanent, ..defaults() }, Duration::MAX).unwrap();
    let value = forever.value(&token(), true, UnixMillis(u64::MAX));
    assert!(value.to_str().unwrap().ends_with("Expires=Fri, 31 Dec 9999 23:59:59 GMT"));
}

#[test]
fn cookies_that_browsers_would_drop_are_secure_whatever_is_configured() {
    let never = Cookie { secure: Secure::Never, ..defaults() };
    assert!(!written(&never, true).contains("Secure"));
    for forced in [
        Cookie { same_site: SameSite::None, ..never.clone() },
        Cookie { partitioned: true, ..never.clone() },
        Cookie { name: "__Host-id".into(), ..never.clone() },
        Cookie { name: "__secure-id".into(), ..never },
    ] {
        assert!(written(&forced, false).contains("; Secure;"), "{forced:?}");
    }
}

#[test]
fn names_and_attributes_cannot_smuggle_anything_in() {
    let refused = |cookie| SetCookie::new(&cookie, DAY).unwrap_err();
    for name in ["", "a b", "a=b", "a;b", "a\r\nb", "a\"", "ä", "a,b", "a/b"] {
        assert_eq!(refused(Cookie { name: name.into(), ..defaults() }), InvalidCookie("name"), "{name:?}");
    }
    for text in ["/; Secure", "/\r\nX: y", "/ä", "\0", "\x7f"] {
        assert_eq!(refused(Cookie { path: text.into(), ..defaults() }), InvalidCookie("path"));
        assert_eq!(refused(Cookie { domain: Some(text.into()), ..defaults() }), InvalidCookie("domain"));
    }
}

/// Every combination of what can be configured.
fn every_cookie() -> Vec<Cookie> {
    let mut all = Vec::new();
    for bits in 0..32_u32 {
        let on = |bit: u32| bits & (1 << bit) != 0;
        for secure in [Secure::Always, Secure::Never, Secure::Auto] {
            for same_site in [SameSite::Strict, SameSite::Lax, SameSite::None] {
                all.push(Cookie {
                    path: if on(0) { "/" } else { "/shop/a b" }.into(),
                    domain: on(1).then(|| "shop.example.org".into()),
                    http_only: on(2),
                    partitioned: on(3),
                    lifetime: if on(4) { Lifetime::Permanent } else { Lifetime::Session },
                    secure,
                    same_site,
                    ..defaults()
                });
            }
        }
    }
    all
}

/// Checks everything but value and lifetime.
fn assert_attributes(parsed: &cookie::Cookie<'_>, configured: &Cookie, tls: bool) {
    let forced = configured.partitioned || configured.same_site == SameSite::None;
    let secure = match configured.secure {
        Secure::Always => true,
        Secure::Never => forced,
        Secure::Auto => forced || tls,
    };
    let same_site = match configured.same_site {
        SameSite::Strict => cookie::SameSite::Strict,
        SameSite::Lax => cookie::SameSite::Lax,
        SameSite::None => cookie::SameSite::None,
    };
    assert_eq!(parsed.name(), configured.name);
    assert_eq!(parsed.path(), Some(configured.path.as_str()));
    assert_eq!(parsed.domain(), configured.domain.as_deref());
    assert_eq!(parsed.secure().unwrap_or_default(), secure, "{configured:?}, TLS: {tls}");
    assert_eq!(parsed.http_only().unwrap_or_default(), configured.http_only);
    assert_eq!(parsed.partitioned().unwrap_or_default(), configured.partitioned);
    assert_eq!(parsed.same_site(), Some(same_site));
}

#[test]
fn every_combination_reads_back_as_configured() {
    let mut read = 0;
    for configured in every_cookie() {
        let set_cookie = SetCookie::new(&configured, DAY).unwrap();
        for tls in [false, true] {
            let value = set_cookie.value(&token(), tls, NOW);
            let parsed = cookie::Cookie::parse(value.to_str().unwrap()).unwrap();
            assert_eq!(parsed.value(), token().as_str());
            assert_attributes(&parsed, &configured, tls);
            if configured.lifetime == Lifetime::Permanent {
                let end = OffsetDateTime::from_unix_timestamp(1_790_000_000 + 86_400).unwrap();
                assert_eq!(parsed.max_age().unwrap().whole_seconds(), 86_400);
                assert_eq!(parsed.expires(), Some(Expiration::DateTime(end)));
            } else {
                assert_eq!((parsed.max_age(), parsed.expires()), (None, None));
            }
            read += 1;
        }
    }
    assert_eq!(read, 32 * 9 * 2);
}

#[test]
fn clearing_names_the_same_cookie_and_ends_it() {
    for configured in every_cookie() {
        let set_cookie = SetCookie::new(&configured, DAY).unwrap();
        for tls in [false, true] {
            let value = set_cookie.clear(tls);
            let parsed = cookie::Cookie::parse(value.to_str().unwrap()).unwrap();
            assert_eq!(parsed.value(), "");
            assert_attributes(&parsed, &configured, tls);
            assert_eq!(parsed.max_age().unwrap().whole_seconds(), 0);
            assert_eq!(parsed.expires(), Some(Expiration::DateTime(OffsetDateTime::UNIX_EPOCH)));
        }
    }
}

#[test]
fn a_cookie_belongs_to_requests_under_its_path_and_in_its_domain() {
    let belongs = |path: &str, domain: Option<&str>, host: &str, at: &str| {
        let cookie = Cookie { path: path.into(), domain: domain.map(Into::into), ..Cookie::default() };
        let cookie = SetCookie::new(&cookie, Duration::from_secs(1)).unwrap();
        cookie.belongs_to(|| RequestUri::new(host, at))
    };
    for (path, domain, host, at) in [
        ("/", None, "any.example", "/anything"),
        ("", None, "any.example", "/anything"),
        ("/shop", None, "any.example", "/shop"),
        ("/shop", None, "any.example", "/shop/cart"),
        ("/", Some("example.org"), "shop.example.org:8443", "/"),
        ("/", Some(".example.org"), "example.org", "/"),
        ("/", Some("example.org"), "", "/"),
    ] {
        assert!(belongs(path, domain, host, at), "{path} {domain:?} {host} {at}");
    }
    for (path, domain, host, at) in [
        ("/shop", None, "any.example", "/favicon.ico"),
        ("/shop", None, "any.example", "/shopping"),
        ("/", Some("example.org"), "example.com", "/"),
        ("/", Some("example.org"), "127.0.0.1", "/"),
        ("/shop", Some("example.org"), "example.org", "/"),
    ] {
        assert!(!belongs(path, domain, host, at), "{path} {domain:?} {host} {at}");
    }
}
