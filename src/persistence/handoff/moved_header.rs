//! The moved header: `Homing-Session-Moved: from=<server>; reason=<reason>; epoch=<n>`.

use http::HeaderValue;

use crate::persistence::moves::server_of;
use crate::persistence::pool::PoolRuntime;
use crate::persistence::resolve::ResolvedSession;
use crate::persistence::scope::{RequestSession, Scope};
use crate::persistence::sessions::Sessions;

/// The session of a request that does not go to the session's server, and its pool. A session that had to leave its
/// version comes from the pool that it left.
pub(super) fn leaving<'a>(
    scope: &Scope<'a, '_>,
    state: &'a RequestSession,
) -> Option<(&'a ResolvedSession, &'a PoolRuntime)> {
    let (session, pool) = match &state.split {
        Some(split) => (split.session.as_ref(), Some(split.pool)),
        None => (state.session(), state.pool),
    };
    session.zip(scope.pools.get(pool?))
}

/// The header's value for a session that moves.
pub(super) fn moved_header(
    session: &ResolvedSession,
    runtime: &PoolRuntime,
    sessions: &Sessions,
    state: &RequestSession,
) -> Option<HeaderValue> {
    let reason = state.reason?.label();
    let from = server_of(session, runtime, sessions);
    let epoch = session.binding.epoch.saturating_add(1);
    // Names of servers are letters, digits and a few signs.
    HeaderValue::try_from(format!("from={from}; reason={reason}; epoch={epoch}")).ok()
}
