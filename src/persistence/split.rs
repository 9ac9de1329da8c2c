//! A pool of a split cannot serve: its policy has been applied, and now the others of the split may serve.
//!
//! Every pool seals its own tokens, so a session that leaves its pool begins a new session in the next one, on the server
//! that the consistent hash of its key says: parallel requests, and other proxies, agree.

use smallvec::SmallVec;

use crate::pool::ServerIndex;

use super::moves::{self, server_of};
use super::outcome::{Outcome, Reason};
use super::resolve::IdentifiedBy;
use super::scope::{RequestSession, Scope, SplitFailover};
use super::sessions::Sessions;

/// Goes on to the next pool of the split; false when there is none left, or no split.
pub(super) fn leave(
    sessions: &Sessions,
    scope: &Scope<'_, '_>,
    state: &mut RequestSession,
    outcome: Outcome,
    reason: Option<Reason>,
) -> bool {
    let Some((split, pool)) = scope.split().zip(state.pool) else { return false };
    let mut failover = state.split.take().unwrap_or_else(|| {
        let mut others: SmallVec<_> = split.others(pool, state.point).collect();
        others.reverse();
        Box::new(SplitFailover { pool, session: state.lookup.session.take(), outcome, reason, others })
    });
    let next = failover.others.pop();
    state.split = Some(failover);
    let Some(next) = next else { return false };
    // The servers that failed belong to the other pool.
    state.history.failed.clear();
    sessions.resolve_in(next, scope, state);
    true
}

/// The request goes to a server of another pool than that of its session: the outcome is that of the pool it left.
pub(super) fn arrive(state: &mut RequestSession) {
    if let Some(split) = &state.split
        && split.session.is_some()
    {
        (state.outcome, state.reason) = (Some(split.outcome), split.reason);
    }
}

/// A server of the other pool has responded: the session has left its pool for good.
pub(super) fn settle(sessions: &Sessions, server: ServerIndex, scope: &Scope<'_, '_>, state: &RequestSession) {
    let Some(split) = &state.split else { return };
    let (Some(session), Some(runtime)) = (&split.session, scope.pools.get(split.pool)) else { return };
    if let Some(reason) = split.reason {
        let from = server_of(session, runtime, sessions);
        moves::note_departure(&from, runtime, reason, server, scope, state);
    }
    // A token is replaced by the other pool's. A binding that only the table has would lead back.
    if matches!(session.identified_by, IdentifiedBy::Id | IdentifiedBy::Address) {
        sessions.end(session, runtime, scope.now);
    }
}
