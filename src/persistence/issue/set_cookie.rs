//! The token in a cookie: the proxy's own, or the application's, before or in place of its value.

use http::{HeaderValue, header};

use crate::config::CookieMode;
use crate::message::{ResponseEdits, ResponseView, WrittenName};
use crate::persistence::pool::PoolPersistence;
use crate::persistence::scope::{RequestSession, Scope};
use crate::session::cookie::prefix;
use crate::session::cookie::read::written_values;
use crate::session::cookie::upstream_set_cookie::UpstreamSetCookie;
use crate::session::token::TokenText;
use crate::telemetry::metrics::TokenReason;

use super::cache_control::keep_private;
use super::due_token::{DueToken, current_token, seal};

static SET_COOKIE: WrittenName = WrittenName::new("Set-Cookie", "set-cookie");

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
    let Some(token) = current_token(due, scope, state) else { return false };
    let cookie = &persistence.policy.cookie;
    let (name, prefixed) = (cookie.name.as_bytes(), cookie.mode == CookieMode::Prefix);
    if sets_cookie(response, name) {
        let token = seal(&token, persistence, scope);
        let given = rewrite_lines(response, name, &token, prefixed, scope, edits);
        if given {
            keep_private(response, persistence, edits);
        }
        return given;
    }
    if due.is_none_or(|due| due.reason == TokenReason::New) {
        return false;
    }
    let token = seal(&token, persistence, scope);
    let value = if prefixed {
        let fields = scope.request.fields.all(&header::COOKIE);
        let again = written_values(fields, name).find_map(|value| prefix::with_token(value, &token));
        let Some(again) = again else { return false };
        persistence.set_cookie.with(&again, scope.secure, scope.now)
    } else {
        persistence.set_cookie.value(&token, scope.secure, scope.now)
    };
    edits.append.push((&SET_COOKIE, value));
    keep_private(response, persistence, edits);
    true
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

/// Puts the token before, or in place of, every value that the application gives the cookie. A cookie that it takes away
/// goes as it is. True when one was given.
fn rewrite_lines(
    response: &ResponseView<'_>,
    name: &[u8],
    token: &TokenText,
    prefixed: bool,
    scope: &Scope<'_, '_>,
    edits: &mut ResponseEdits<'_>,
) -> bool {
    let mut given = false;
    edits.remove.push(header::SET_COOKIE);
    for field in response.fields.all_values(&header::SET_COOKIE) {
        let set = UpstreamSetCookie::named(field.as_bytes(), name).filter(|set| !set.deletes_cookie(scope.now));
        let with_token = set.map(|set| {
            if prefixed {
                set.with_prefix(&[token.as_bytes(), prefix::SEPARATOR])
            } else {
                set.with_value(token.as_bytes())
            }
        });
        // Made of a header's value and a token, so it is one.
        let with_token = with_token.and_then(|field| HeaderValue::try_from(field).ok());
        given |= with_token.is_some();
        edits.append.push((&SET_COOKIE, with_token.unwrap_or(field)));
    }
    given
}
