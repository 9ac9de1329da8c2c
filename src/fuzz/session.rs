//! What clients and applications send about sessions: tokens, cookies, URL parameters, pages.

use std::sync::LazyLock;

use http::StatusCode;

use super::{choice, cut};
use crate::session::cookie::read::{self, CookieRewrite};
use crate::session::cookie::scope::RequestUri;
use crate::session::cookie::upstream_set_cookie::UpstreamSetCookie;
use crate::session::cookie::{date, jar, prefix};
use crate::session::html_rewrite::{PageRewriter, rewritable};
use crate::session::key::{ServerId, SessionId};
use crate::session::link::Base;
use crate::session::token::codec::{OpenOutcome, PoolCodec};
use crate::session::token::explain::{Explanation, open_any};
use crate::session::token::keyring::Keyring;
use crate::session::token::{Token, TokenText, UnixMillis, has_token_shape};
use crate::session::url_params;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const NAME: &[u8] = b"SID";
const OVERFLOW: &[u8] = b"SID~homing";

struct Codecs {
    keyring: Keyring,
    shop: PoolCodec,
    chat: PoolCodec,
}

static CODECS: LazyLock<Codecs> = LazyLock::new(|| {
    let keys: [(&str, &[u8]); 2] = [("k2", b"the secret of key two"), ("k1", b"the secret of key one")];
    let keyring = Keyring::new(keys).unwrap();
    Codecs { shop: PoolCodec::new(&keyring, "shop"), chat: PoolCodec::new(&keyring, "chat"), keyring }
});

/// Any text is opened alike by all readers. What is sealed opens as it was, and no change of it opens.
pub fn token(data: &[u8]) {
    let opened = CODECS.shop.open(data);
    for _ in 0..2 {
        assert_eq!(CODECS.shop.reopen(data), opened, "with and without the cache");
    }
    assert!(matches!(opened, OpenOutcome::Forged(_)) || has_token_shape(data));
    sealed(data);
}

/// The data as a nonce, a token's content, and changes of its text.
fn sealed(data: &[u8]) {
    let mut rest = data;
    let mut nonce = [0; 24];
    for byte in &mut nonce {
        *byte = u8::try_from(number(&mut rest, 1)).unwrap();
    }
    let token = Token {
        session: SessionId::from_bytes(number(&mut rest, 16).to_be_bytes()),
        server: ServerId(u64::try_from(number(&mut rest, 8)).unwrap()),
        epoch: u32::try_from(number(&mut rest, 4)).unwrap(),
        created: UnixMillis(u64::try_from(number(&mut rest, 8)).unwrap()),
        issued: UnixMillis(u64::try_from(number(&mut rest, 8)).unwrap()),
    };
    let text = CODECS.shop.seal(&token, nonce);
    let outcome = CODECS.shop.open(text.as_bytes());
    let OpenOutcome::Valid { token: opened, sealed_by_first: true, key: 0 } = outcome else {
        panic!("what was sealed does not open: {outcome:?}");
    };
    assert_eq!((opened.session, opened.server, opened.epoch), (token.session, token.server, token.epoch));
    assert!(opened.issued >= opened.created, "issued before it was created");
    assert_eq!(CODECS.shop.seal(&opened, nonce), text, "what was opened is sealed to another text");
    assert_eq!(CODECS.chat.open(text.as_bytes()), OpenOutcome::OtherPool);
    let explained = open_any(&CODECS.keyring, ["chat", "shop"], text.as_bytes());
    let valid = Explanation::Valid { token: opened, pool: "shop", key: "k2", sealed_by_first: true };
    assert_eq!(explained, valid);
    let mut changed = *text.as_bytes();
    for change in rest.as_chunks::<2>().0 {
        changed[usize::from(change[0]) % TokenText::LEN] ^= change[1];
    }
    if changed != *text.as_bytes() {
        assert!(!matches!(CODECS.shop.reopen(&changed), OpenOutcome::Valid { .. }), "a changed token opens");
    }
}

/// A number of so many bytes from the front; missing ones are 0.
fn number(rest: &mut &[u8], bytes: usize) -> u128 {
    let (number, after) = rest.split_at(bytes.min(rest.len()));
    *rest = after;
    number.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Header values: one a line.
fn lines(data: &[u8]) -> Vec<&[u8]> {
    let lines = data.split(|byte| *byte == b'\n');
    lines.filter(|line| http::HeaderValue::from_bytes(line).is_ok()).collect()
}

/// Cookies are read as a plain reader reads them. Edits remove what they should and nothing else, and a second edit changes
/// nothing.
pub fn cookie(data: &[u8]) {
    let fields = lines(data);
    let written = |fields: &[&[u8]], name: &[u8]| -> Vec<Vec<u8>> {
        read::written_values(fields.iter().copied(), name).map(<[u8]>::to_vec).collect()
    };
    for name in [NAME, OVERFLOW, b"b"] {
        assert_eq!(written(&fields, name), plainly_read(&fields, name), "{}", name.escape_ascii());
    }
    let all = || fields.iter().copied();
    for (edit, removed) in [
        (read::without(all(), NAME), &[NAME][..]),
        (read::without_matching(all(), NAME, OVERFLOW, has_token_shape), &[OVERFLOW]),
        (prefix::strip_token(all(), NAME, OVERFLOW), &[OVERFLOW]),
        (read::joined(all()), &[]),
    ] {
        let after = edited(&fields, &edit);
        let after: Vec<&[u8]> = after.iter().map(Vec::as_slice).collect();
        assert!(after.len() <= 1, "one field at most");
        for name in removed {
            assert_eq!(written(&after, name), <Vec<Vec<u8>>>::new(), "{edit:?}");
        }
        for name in [&b"b"[..], b"", b"sid"] {
            assert_eq!(written(&after, name), written(&fields, name), "{edit:?}");
        }
    }
    let once = edited(&fields, &read::without(all(), NAME));
    assert_eq!(read::without(once.iter().map(Vec::as_slice), NAME), CookieRewrite::Unchanged);
    let stripped = edited(&fields, &prefix::strip_token(all(), NAME, OVERFLOW));
    let expected: Vec<_> = read::written_values(all(), NAME).map(own_value).collect();
    let stripped: Vec<_> = read::values(stripped.iter().map(Vec::as_slice), NAME).map(<[u8]>::to_vec).collect();
    assert_eq!(stripped, expected, "the application's own values");
}

/// What the application reads when the token is cut off. A blank behind the token is then around the value, where it means nothing.
fn own_value(written: &[u8]) -> Vec<u8> {
    let value = read::unquoted(written);
    let own = prefix::split(value).map_or(value, |(_, own)| own);
    if value.len() < written.len() { own.to_vec() } else { read::unquoted(own.trim_ascii()).to_vec() }
}

/// By splitting, as most servers read cookies.
fn plainly_read(fields: &[&[u8]], name: &[u8]) -> Vec<Vec<u8>> {
    let blanks = |text: &[u8]| -> Vec<u8> {
        let first = text.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(text.len());
        let last = text.iter().rposition(|byte| !b" \t".contains(byte)).map_or(first, |last| last + 1);
        text[first..last].to_vec()
    };
    let pieces = fields.iter().flat_map(|field| field.split(|byte| *byte == b';'));
    let pairs = pieces.filter_map(|piece| {
        let equals = piece.iter().position(|byte| *byte == b'=')?;
        Some((blanks(&piece[..equals]), blanks(&piece[equals + 1..])))
    });
    pairs.filter(|(found, _)| found == name).map(|(_, value)| value).collect()
}

fn edited(fields: &[&[u8]], edit: &CookieRewrite<'_>) -> Vec<Vec<u8>> {
    match edit {
        CookieRewrite::Unchanged => fields.iter().map(|field| field.to_vec()).collect(),
        CookieRewrite::Remove => Vec::new(),
        CookieRewrite::Slice(field) => vec![field.to_vec()],
        CookieRewrite::Replace(field) => vec![field.clone()],
    }
}

/// The jar judges every field, and a field with another value or with a prefix keeps its attributes.
pub fn set_cookie(data: &[u8]) {
    let fields = lines(data);
    let uri = RequestUri::new("shop.example.org", "/cart/items");
    let changes = jar::changes(fields.iter().copied(), NAME, &uri, NOW);
    assert!(changes.len() <= fields.len());
    if let Some(carried) = jar::carried(&changes) {
        assert!(carried.covers_request && !carried.expires);
    }
    for field in &fields {
        let Some(set) = UpstreamSetCookie::named(field, NAME) else { continue };
        let own = set.value();
        for (other, value) in
            [(set.with_value(b"new"), b"new".to_vec()), (set.with_prefix(&[b"token", b"~"]), [b"token~", own].concat())]
        {
            let again = UpstreamSetCookie::named(&other, NAME).expect("it sets the same cookie");
            assert_eq!(again.value(), value, "{}", other.escape_ascii());
            assert_eq!(again.deletes_cookie(NOW), set.deletes_cookie(NOW));
            let one = |field| jar::changes(std::iter::once(field), NAME, &uri, NOW);
            let (before, after) = (one(*field), one(other.as_slice()));
            assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(&after) {
                assert_eq!((before.expires, before.covers_request), (after.expires, after.covers_request));
            }
        }
    }
    if let Some(time) = std::str::from_utf8(data).ok().and_then(|text| httpdate::parse_http_date(text).ok())
        && let Some(seconds) = date::parse(data)
    {
        let expected = UnixMillis::from(time).as_secs();
        assert_eq!(u64::try_from(seconds), Ok(expected), "a date of HTTP");
    }
}

/// A parameter is set and removed wherever it stands, and all others stay.
pub fn query(data: &[u8]) {
    let Ok(reference) = std::str::from_utf8(data) else { return };
    let values = |reference: &str, name: &str| -> Vec<String> {
        let reference = reference.split('#').next().unwrap_or_default();
        let (path, query) = reference.split_once('?').map_or((reference, None), |(path, query)| (path, Some(query)));
        url_params::values(path, query, name).map(str::to_owned).collect()
    };
    let with = url_params::with(reference, "sid", "T");
    assert_eq!(values(&with, "sid"), ["T"]);
    assert_eq!(url_params::with(&with, "sid", "T"), with, "idempotent");
    let without = url_params::without(reference, "sid");
    assert_eq!(without.is_some(), !values(reference, "sid").is_empty());
    let without = without.unwrap_or_else(|| reference.to_owned());
    assert_eq!(url_params::without(&without, "sid"), None, "none is left");
    assert_eq!(url_params::without(&with, "sid").map(|bare| values(&bare, "sid")), Some(Vec::new()));
    for other in ["a", "id", "SID"] {
        assert_eq!(values(&with, other), values(reference, other));
        assert_eq!(values(&without, other), values(reference, other));
    }
    let fragment = |text: &str| text.split_once('#').map(|(_, fragment)| fragment.to_owned());
    assert_eq!(fragment(&with), fragment(reference));
    link(reference);
}

/// A link that gets the token leads to the same origin as before, and does not get it twice.
fn link(reference: &str) {
    for base in ["https://shop.example/a/b?c=1", "https://shop.example//other.example/"] {
        let (host, path) = base.strip_prefix("https://").and_then(|rest| rest.split_once('/')).unwrap();
        let base = Base::new(true, host, &format!("/{path}")).expect("a base");
        for rewritten in [base.rewrite(reference, "sid", "T"), base.rewrite_action(reference, "sid", "T")] {
            let Some(rewritten) = rewritten else { continue };
            assert!(base.leads_here(&rewritten), "{rewritten:?} leads elsewhere");
            assert_eq!(base.rewrite(&rewritten, "sid", "T"), None, "{rewritten:?} is rewritten twice");
        }
    }
}

/// A page comes out the same however it is cut, within bounds of its own length.
pub fn link_rewriting(data: &[u8]) {
    let (at, page) = choice(data);
    let content_type = ["text/html", "text/html; charset=utf-8", "application/xhtml+xml; charset=iso-8859-2"];
    let content_type = content_type[usize::from(at) % content_type.len()];
    let run = |parts: &[&[u8]]| {
        let base = Base::new(true, "h.example", "/shop/cart?a=1").expect("a base");
        let charset = rewritable(StatusCode::OK, Some(content_type), false).expect("a page");
        let mut rewriter = PageRewriter::new(base, charset, "sid", "T").expect("the selector is valid");
        let mut out = Vec::new();
        for part in parts {
            out.extend(rewriter.write(part).expect("a page is never refused"));
        }
        out.extend(rewriter.end().expect("a page is never refused"));
        out
    };
    let (first, second) = cut(page, at);
    let once = run(&[page]);
    assert_eq!(run(&[first, second]), once, "cut at {}", first.len());
    assert_eq!(run(&[&once]), once, "a page that is rewritten twice");
    let tags = page.split(|byte| *byte == b'<').count();
    // References to characters become longer, by `&quot;` at most.
    assert!(once.len() <= page.len() * 6 + tags * 100, "{} of {} bytes", once.len(), page.len());
}
