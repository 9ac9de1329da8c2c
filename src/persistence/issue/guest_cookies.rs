//! Cookies that a guest server sets while a session is served there only for now.
//!
//! The client's own server is the one that will be asked again, so a guest must not replace the cookies that the client has
//! from there: a log-in page of the guest would log it out at home.

use http::header;

use crate::config::GuestCookies;
use crate::message::{ResponseEdits, ResponseView, WrittenName};
use crate::persistence::outcome::Outcome;
use crate::persistence::pool::{PoolPersistence, PoolRuntime};
use crate::persistence::scope::{RequestSession, Scope};
use crate::session::cookie::read::values;

pub(super) static SET_COOKIE: WrittenName = WrittenName::new("Set-Cookie", "set-cookie");

/// Whether cookies of this response may be held back.
pub(in crate::persistence) fn is_guest(scope: &Scope<'_, '_>, state: &RequestSession) -> bool {
    let protects = |persistence: &PoolPersistence| persistence.policy.guest_cookies == GuestCookies::Protect;
    state.outcome == Some(Outcome::Borrowed) && state.persistence(scope).is_some_and(protects)
}

/// Whether the client sends a cookie of the name that this `Set-Cookie` has.
pub(in crate::persistence) fn is_sent_by_client(set_cookie: &[u8], scope: &Scope<'_, '_>) -> bool {
    let pair = set_cookie.split(|byte| *byte == b';').next().unwrap_or_default();
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    sends_cookie(name, scope)
}

/// Whether the client sends a cookie of this name.
pub(in crate::persistence) fn sends_cookie(name: &[u8], scope: &Scope<'_, '_>) -> bool {
    values(scope.request.fields.all(&header::COOKIE), name).next().is_some()
}

/// Holds back every `Set-Cookie` whose name the client already sends.
pub(super) fn hold_back(
    response: &ResponseView<'_>,
    runtime: &PoolRuntime,
    scope: &Scope<'_, '_>,
    edits: &mut ResponseEdits<'_>,
) {
    let held = response.fields.all(&header::SET_COOKIE).filter(|line| is_sent_by_client(line, scope)).count();
    if held == 0 {
        return;
    }
    runtime.metrics.guest_cookies_held.inc_by(held as u64);
    edits.remove.push(header::SET_COOKIE);
    for line in response.fields.all_values(&header::SET_COOKIE) {
        if !is_sent_by_client(line.as_bytes(), scope) {
            edits.append.push((&SET_COOKIE, line));
        }
    }
}
