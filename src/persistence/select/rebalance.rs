//! A session that was idle leaves a crowded server for an emptier one.

use crate::persistence::outcome::{Outcome, Reason};
use crate::persistence::pool::PoolRuntime;
use crate::persistence::resolve::lookup::IdentifiedBy;
use crate::persistence::scope::{RequestSession, Scope};
use crate::persistence::sessions::Sessions;
use crate::pool::ServerIndex;
use crate::pool::rebalance::Rebalance;

use super::placement::Choice;

impl Sessions {
    /// `choice`, or a move where the session's server is crowded. One test of a flag where it is not.
    pub(super) fn rebalanced(
        &self,
        choice: Choice,
        runtime: &PoolRuntime,
        scope: &Scope<'_, '_>,
        state: &RequestSession,
    ) -> Choice {
        let (Some(rebalance), Choice::To { server, outcome: Outcome::Kept, .. }) = (&runtime.pool.rebalance, choice)
        else {
            return choice;
        };
        if !rebalance.is_crowded(server) {
            return choice;
        }
        let emptier = self.emptier(server, rebalance, runtime, scope, state);
        let moved = |server| Choice::To { server, outcome: Outcome::Moved, reason: Some(Reason::Rebalance) };
        emptier.map_or(choice, moved)
    }

    /// Where the session goes, if it may leave now. The place of a move is taken last.
    fn emptier(
        &self,
        home: ServerIndex,
        rebalance: &Rebalance,
        runtime: &PoolRuntime,
        scope: &Scope<'_, '_>,
        state: &RequestSession,
    ) -> Option<ServerIndex> {
        let session = state.session()?;
        // Only the application can change a route id. A request that was sent somewhere before is not the time to move.
        let may = session.identified_by != IdentifiedBy::RouteId
            && state.history.failed.is_empty()
            && rebalance.is_idle(session.last_seen, scope.now);
        if !may {
            return None;
        }
        let targets = &runtime.persistence.as_ref()?.targets;
        let sessions = |server: ServerIndex| targets.get(server).map_or(0, |target| target.sessions());
        if !rebalance.is_above(home, sessions(home)) {
            return None;
        }
        let server = runtime.pool.pick_moved(&session.key.to_bytes(), &rebalance.full(sessions))?;
        // Every request of a pool that rebalances is listed: this one, and others of the session that are in flight.
        let others = self.open.count(session.key) > state.open.len();
        (!others && rebalance.take(scope.now)).then_some(server)
    }
}
