//! What a returning request costs here: reading its cookies, opening its token, taking the cookie off.

#![allow(clippy::expect_used, reason = "a bench that cannot be set up should stop")]
#![allow(clippy::indexing_slicing, reason = "as in tests")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use homing::config::{Cookie, CookieMode, SameSite, Secure};
use homing::message::{Fields, RequestView};
use homing::session::binding::{Binding, Limits, resolve};
use homing::session::cookie::{read, write::SetCookie};
use homing::session::key::{ServerId, SessionId, SessionKey};
use homing::session::source::SourceInput;
use homing::session::source::cookie::CookieSource;
use homing::session::token::codec::PoolCodec;
use homing::session::token::keyring::Keyring;
use homing::session::token::{Token, TokenText, UnixMillis};
use http::{HeaderMap, HeaderValue, Method, Version, header};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn keyring() -> Keyring {
    Keyring::random([7; 32]).expect("one key of 32 bytes is a keyring")
}

fn token() -> Token {
    Binding::new(ServerId::of("a"), NOW).token(SessionId::from_random([5; 16]), NOW)
}

/// Ten cookies as shops set them, ours in the middle: some 400 bytes.
fn ten_cookies(text: &TokenText) -> String {
    let other = |n: u32| format!("_ga_{n}=GS1.1.1790000000.{n}.0.1790000000");
    let mut cookies: Vec<String> = (0..9).map(other).collect();
    cookies.insert(5, format!("SESSIONID={}", text.as_str()));
    cookies.join("; ")
}

fn seal_and_open(c: &mut Criterion) {
    let codec = PoolCodec::new(&keyring(), "shop");
    let (token, text) = (token(), codec.seal(&token(), [9; 24]));
    let mut forged = *text.as_bytes();
    forged[60] = if forged[60] == b'A' { b'B' } else { b'A' };
    let other_pool = PoolCodec::new(&keyring(), "api").seal(&token, [9; 24]);

    c.bench_function("token/seal", |b| b.iter(|| codec.seal(black_box(&token), black_box([9; 24]))));
    c.bench_function("token/open", |b| b.iter(|| codec.open(black_box(text.as_bytes()))));
    c.bench_function("token/open the same again", |b| b.iter(|| codec.reopen(black_box(text.as_bytes()))));
    c.bench_function("token/refuse a broken seal", |b| b.iter(|| codec.open(black_box(&forged))));
    c.bench_function("token/refuse another pool's", |b| b.iter(|| codec.open(black_box(other_pool.as_bytes()))));
    c.bench_function("token/refuse garbage of its length", |b| {
        b.iter(|| codec.open(black_box(&[b'!'; TokenText::LEN])));
    });
}

fn cookies(c: &mut Criterion) {
    let codec = PoolCodec::new(&keyring(), "shop");
    let text = codec.seal(&token(), [9; 24]);
    let field = ten_cookies(&text);
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, HeaderValue::try_from(&field).expect("cookies are ASCII"));
    let source = CookieSource::new("SESSIONID", CookieMode::Insert);

    let field = field.as_bytes();
    c.bench_function("cookie/scan ten", |b| b.iter(|| read::values([black_box(field)], b"SESSIONID").count()));
    c.bench_function("cookie/take ours out of ten", |b| b.iter(|| read::without([black_box(field)], b"SESSIONID")));
    c.bench_function("cookie/none of ten is ours", |b| b.iter(|| read::without([black_box(field)], b"OTHER")));
    c.bench_function("source/cookie: from headers to a token seen before", |b| {
        let request = RequestView::http1(&Method::GET, b"/", Version::HTTP_11, Fields::Map(&headers));
        let asked = SourceInput { request, client: None };
        b.iter(|| source.claim(black_box(&asked), &codec));
    });

    let cookie = Cookie {
        name: "SESSIONID".into(),
        mode: CookieMode::Insert,
        path: "/".into(),
        domain: None,
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        partitioned: false,
        lifetime: homing::config::Lifetime::Permanent,
        hide_from_server: true,
        cache_control: None,
    };
    let set_cookie = SetCookie::new(&cookie, Duration::from_secs(86_400)).expect("the cookie is well formed");
    c.bench_function("cookie/set", |b| b.iter(|| set_cookie.value(black_box(&text), true, black_box(NOW))));
}

fn rules(c: &mut Criterion) {
    let token = token();
    let known = Binding::new(token.server, NOW);
    let limits = Limits { idle: Duration::from_secs(1800), absolute: Duration::from_secs(86_400) };
    let ring = keyring();
    let key = SessionKey::from(token.session);
    c.bench_function("binding/resolve", |b| {
        b.iter(|| resolve(black_box(&token), black_box(Some(&known)), &limits, NOW));
    });
    c.bench_function("key/session key", |b| b.iter(|| SessionKey::from(black_box(token.session))));
    c.bench_function("key/digest for logs", |b| b.iter(|| ring.log_key().digest8(black_box(key))));
}

criterion_group!(benches, seal_and_open, cookies, rules);
criterion_main!(benches);
