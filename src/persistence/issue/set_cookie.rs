//! The token in a cookie: the proxy's own, or the application's, before or in place of its value.

use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderValue, header};

use crate::config::{Cookie, CookieMode};
use crate::message::{ResponseEdits, ResponseView};
use crate::persistence::pool::{OverflowCookie, PoolPersistence};
use crate::persistence::scope::{RequestSession, Scope};
use crate::session::cookie::overflow::{self, MAX_LEN};
use crate::session::cookie::read::{unquoted, written_values};
use crate::session::cookie::upstream_set_cookie::UpstreamSetCookie;
use crate::session::cookie::{jar, prefix};
use crate::session::token::{Token, TokenText, has_token_shape};
use crate::telemetry::metrics::TokenReason;

use super::cache_control::keep_private;
use super::due_token::{DueToken, current_token, seal};
use super::guest_cookies::{SET_COOKIE, is_guest, is_sent_by_client, sends_cookie};

/// Sets the cookie when it must be. True when the response carries the token.
pub(super) fn put(
    response: &ResponseView<'_>,
    due: Option<&DueToken>,
    persistence: &PoolPersistence,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
    edits: &mut ResponseEdits<'_>,
) -> bool {
    if !persistence.owns_cookie() {
        return put_into_application_cookie(response, due, persistence, scope, state, edits);
    }
    let Some(due) = due else { return false };
    let token = seal(&due.token, persistence, scope);
    // Appended, never set: the application's own cookies stay, each on its line.
    let cookie = persistence.set_cookie.value(&token, scope.secure, scope.now);
    edits.append.push((&SET_COOKIE, cookie));
    keep_private(response, persistence, edits);
    true
}

/// The application's cookie carries the token. When the application sets it, every time; when it does not, a session that
/// must have another token is given the cookie again as the application last set it. A new session has to wait for it.
fn put_into_application_cookie(
    response: &ResponseView<'_>,
    due: Option<&DueToken>,
    persistence: &PoolPersistence,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
    edits: &mut ResponseEdits<'_>,
) -> bool {
    let (Some(token), Some(overflow)) = (current_token(due, scope, state), &persistence.overflow) else { return false };
    let name = persistence.policy.cookie.name.as_bytes();
    if sets_cookie(response, name) && !(is_guest(scope, state) && sends_cookie(name, scope)) {
        return put_where_set(response, &token, persistence, scope, state, edits);
    }
    if due.is_none_or(|due| due.reason == TokenReason::New) {
        return false;
    }
    // In each place in which the client has it.
    let token = seal(&token, persistence, scope);
    let cookie = &persistence.policy.cookie;
    let fields = scope.request.fields.all(&header::COOKIE);
    let again = written_values(fields, cookie.name.as_bytes()).find_map(|value| match cookie.mode {
        CookieMode::Prefix => prefix::with_token(value, &token),
        _ => has_token_shape(unquoted(value)).then(|| token.as_bytes().to_vec()),
    });
    let again = again.map(|value| persistence.set_cookie.with(&value, scope.secure, scope.now));
    let beside = sends_cookie(overflow.name.as_bytes(), scope);
    let beside = beside.then(|| overflow.set_cookie.value(&token, scope.secure, scope.now));
    if again.is_none() && beside.is_none() {
        return false;
    }
    edits.append.extend(again.into_iter().chain(beside).map(|cookie| (&SET_COOKIE, cookie)));
    keep_private(response, persistence, edits);
    true
}

/// The application sets or deletes its cookie. True when the client is given a token.
fn put_where_set(
    response: &ResponseView<'_>,
    token: &Token,
    persistence: &PoolPersistence,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
    edits: &mut ResponseEdits<'_>,
) -> bool {
    let Some(overflow) = &persistence.overflow else { return false };
    let cookie = &persistence.policy.cookie;
    let uri = scope.uri();
    let changes = jar::changes(response.fields.all(&header::SET_COOKIE), cookie.name.as_bytes(), &uri, scope.now);
    let given = changes.iter().any(|change| !change.expires);
    let mut too_large = None;
    if given {
        let token = seal(token, persistence, scope);
        too_large = rewrite_lines(response, cookie, &token, scope, state, edits);
        if let Some(size) = too_large {
            edits.append.push((&SET_COOKIE, overflow.set_cookie.value(&token, scope.secure, scope.now)));
            note_too_large(size, overflow, scope, state);
        }
        keep_private(response, persistence, edits);
    }
    // The application's cookie of this request has the token now, or is gone and the token with it.
    let replaced = too_large.is_none() && changes.iter().any(|change| change.covers_request);
    if replaced && sends_cookie(overflow.name.as_bytes(), scope) {
        edits.append.push((&SET_COOKIE, overflow.set_cookie.clear(scope.secure)));
    }
    given
}

/// Counted each time. The warning comes once a minute for a pool: such an application sets its cookie often.
fn note_too_large(size: usize, overflow: &OverflowCookie, scope: &Scope<'_, '_>, state: &RequestSession) {
    let Some(runtime) = state.runtime(scope) else { return };
    runtime.metrics.oversized_cookies.inc();
    let minute = scope.now.0 / 60_000;
    if overflow.warned.swap(minute, Relaxed) != minute {
        tracing::warn!(
            pool = %runtime.pool.name, size, max = MAX_LEN, cookie = %overflow.name,
            "the application's cookie has no room for the token; a separate cookie carries it"
        );
    }
}

/// Whether the application sets the cookie that carries the pool's tokens.
pub(super) fn sets_cookie_of_token(response: &ResponseView<'_>, scope: &Scope<'_, '_>, state: &RequestSession) -> bool {
    state.persistence(scope).is_some_and(|persistence| {
        let of_application = persistence.reads_cookie() && !persistence.owns_cookie();
        of_application && sets_cookie(response, persistence.policy.cookie.name.as_bytes())
    })
}

fn sets_cookie(response: &ResponseView<'_>, name: &[u8]) -> bool {
    response.fields.all(&header::SET_COOKIE).any(|field| UpstreamSetCookie::named(field, name).is_some())
}

/// Puts the token before, or in place of, every value that the application gives the cookie. A cookie that it deletes, and
/// one that browsers would drop with the token in it, goes as it is; returned is the size that such a one would have had.
fn rewrite_lines(
    response: &ResponseView<'_>,
    cookie: &Cookie,
    token: &TokenText,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
    edits: &mut ResponseEdits<'_>,
) -> Option<usize> {
    let name = cookie.name.as_bytes();
    let guest = is_guest(scope, state);
    let mut too_large = None;
    edits.remove.push(header::SET_COOKIE);
    edits.append.retain(|(name, _)| name.name != header::SET_COOKIE);
    for field in response.fields.all_values(&header::SET_COOKIE) {
        if guest && is_sent_by_client(field.as_bytes(), scope) {
            continue;
        }
        let set = UpstreamSetCookie::named(field.as_bytes(), name).filter(|set| !set.deletes_cookie(scope.now));
        let with_token = set.and_then(|set| {
            let prefixed = cookie.mode == CookieMode::Prefix;
            let own = if prefixed { prefix::SEPARATOR.len() + set.written().len() } else { 0 };
            if !overflow::fits(name, TokenText::LEN + own) {
                too_large = Some(name.len() + TokenText::LEN + own);
                return None;
            }
            let with_token = if prefixed {
                set.with_prefix(&[token.as_bytes(), prefix::SEPARATOR])
            } else {
                set.with_value(token.as_bytes())
            };
            // Made of a header's value and a token, so it is one.
            HeaderValue::try_from(with_token).ok()
        });
        edits.append.push((&SET_COOKIE, with_token.unwrap_or(field)));
    }
    too_large
}
