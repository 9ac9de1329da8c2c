//! Removes the token from a request, in whatever it is carried: the application need not know of it, and what it does not
//! see it cannot log.

use http::{HeaderValue, header};

use crate::config::CookieMode;
use crate::message::{CookieEdit, RequestEdits, RequestView, WrittenName};
use crate::persistence::PoolPersistence;
use crate::session::cookie::prefix;
use crate::session::cookie::read::{CookieRewrite, joined, without, without_matching};
use crate::session::source::Source;
use crate::session::token::has_token_shape;
use crate::session::url_params;

static REFERER: WrittenName = WrittenName::new("Referer", "referer");

/// What is removed from a request to a pool that keeps sessions so.
pub(crate) fn strip_token<'a>(
    request: &RequestView<'_>,
    persistence: Option<&'a PoolPersistence>,
    edits: &mut RequestEdits<'a>,
) {
    let hidden = persistence.filter(|persistence| persistence.policy.cookie.hide_from_server);
    for source in hidden.iter().flat_map(|persistence| &persistence.sources) {
        match source {
            Source::Header(source) => {
                if let Some(name) = &source.name {
                    edits.remove(name.name.clone());
                }
            }
            Source::Query(source) => {
                from_target(request, &source.name, edits);
                from_referer(request, &source.name, edits);
            }
            Source::Cookie(_) | Source::Learn(_) | Source::Route(_) | Source::ClientIp(_) => {}
        }
    }
    edits.cookie = cookies(request, persistence);
}

/// Several sources may each remove a parameter.
fn from_target(request: &RequestView<'_>, name: &str, edits: &mut RequestEdits<'_>) {
    let target = edits.target.as_deref().or_else(|| std::str::from_utf8(request.target).ok());
    if let Some(clean) = target.and_then(|target| url_params::without(target, name)) {
        edits.target = Some(clean);
    }
}

/// The page before had the token in its URL.
fn from_referer(request: &RequestView<'_>, name: &str, edits: &mut RequestEdits<'_>) {
    let earlier = edits.set.iter().find(|(set, _)| set.name == REFERER.name).and_then(|(_, value)| value.to_str().ok());
    let referer = earlier.or_else(|| request.fields.get_str(&header::REFERER));
    let clean = referer.and_then(|referer| url_params::without(referer, name));
    if let Some(clean) = clean.and_then(|clean| HeaderValue::try_from(clean).ok()) {
        edits.set(&REFERER, clean);
    }
}

/// Removes the proxy's cookie, and makes one Cookie field of several: HTTP/2 clients split theirs, and HTTP/1 servers read
/// only the first.
fn cookies(request: &RequestView<'_>, persistence: Option<&PoolPersistence>) -> CookieEdit {
    let fields = request.fields.all(&header::COOKIE);
    let carrier = persistence.filter(|persistence| persistence.reads_cookie());
    let rewritten = match carrier.map(|persistence| &persistence.policy.cookie) {
        Some(cookie) if cookie.mode == CookieMode::Prefix => prefix::strip_token(fields, cookie.name.as_bytes()),
        // A value that is no token is the application's own, from a time before the proxy's.
        Some(cookie) if cookie.hide_from_server && cookie.mode == CookieMode::Rewrite => {
            without_matching(fields, cookie.name.as_bytes(), has_token_shape)
        }
        Some(cookie) if cookie.hide_from_server => without(fields, cookie.name.as_bytes()),
        _ => joined(fields),
    };
    // Made of what was a header's value before, so it is one.
    let value = match rewritten {
        CookieRewrite::Unchanged => return CookieEdit::Keep,
        CookieRewrite::Remove => None,
        CookieRewrite::Slice(cookies) => HeaderValue::from_bytes(cookies).ok(),
        CookieRewrite::Replace(cookies) => HeaderValue::from_maybe_shared(bytes::Bytes::from(cookies)).ok(),
    };
    value.map_or(CookieEdit::Remove, CookieEdit::Set)
}
