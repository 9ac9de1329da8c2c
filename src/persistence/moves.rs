//! A session has moved: counted by reason and by servers, logged, and in the event list.

use std::sync::Arc;

use crate::pool::ServerIndex;
use crate::telemetry::events::{self, Change, EventKind, cause};
use crate::telemetry::log_limit::LogLimit;

use super::outcome::Reason;
use super::pool::PoolRuntime;
use super::resolve::ResolvedSession;
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;

/// When a server dies, all its sessions move. The log shows some of them; the metrics count all.
static LOG: LogLimit = LogLimit::new(10, 1);

/// Counts and logs a move within the request's pool. `from`: the name of the server before.
pub(super) fn note(from: &str, to: ServerIndex, scope: &Scope<'_, '_>, state: &RequestSession) {
    if let (Some(runtime), Some(reason)) = (state.runtime(scope), state.reason)
        && let Some(server) = runtime.pool.servers.get(to)
    {
        record(runtime, (from, &server.name), reason, state.session(), scope);
    }
}

/// Counts and logs a move to another pool, for the pool that the session leaves.
pub(super) fn note_departure(
    from: &str,
    left: &PoolRuntime,
    reason: Reason,
    to: ServerIndex,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
) {
    let server = |runtime: &PoolRuntime| {
        let server = runtime.pool.servers.get(to)?;
        Some(format!("{}/{}", runtime.pool.name, server.name))
    };
    if let Some(to) = state.runtime(scope).and_then(server) {
        record(left, (from, &to), reason, state.split.as_ref().and_then(|split| split.session.as_ref()), scope);
    }
}

fn record(
    runtime: &PoolRuntime,
    (from, to): (&str, &str),
    reason: Reason,
    session: Option<&ResolvedSession>,
    scope: &Scope<'_, '_>,
) {
    runtime.metrics.moves.inc(reason as usize);
    runtime.metrics.server_moves.inc(from, to);
    let mut change = Change::new(EventKind::Move).pool(&runtime.pool.name).values(from, to).reason(reason.label());
    change.session = session.map(|session| session.key.0);
    events::record(if reason == Reason::Rebalance { change.who(cause::REBALANCE) } else { change });
    if let Some(suppressed) = LOG.admit(scope.now.0 / 1000) {
        let (pool, reason) = (&runtime.pool.name, reason.label());
        tracing::info!(%pool, from, to, reason, suppressed, "session moved");
    }
}

/// The name of the session's server. If the configuration no longer has it, the table may remember it.
pub(super) fn server_of(session: &ResolvedSession, runtime: &PoolRuntime, sessions: &Sessions) -> Arc<str> {
    if let Some(server) = session.home.and_then(|home| runtime.pool.servers.get(home)) {
        return Arc::clone(&server.name);
    }
    let former = sessions.table.server_name(&runtime.pool.name, session.binding.server);
    former.unwrap_or_else(|| Arc::from("unknown"))
}
