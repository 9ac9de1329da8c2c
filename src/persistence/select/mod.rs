//! Which server gets the next attempt of a request.

pub(super) mod placement;
mod rebalance;

use futures_util::FutureExt;

use crate::pool::ServerIndex;
use crate::session::key::SessionKey;
use crate::session::source::Source;

use super::first_request::hinted;
use super::outcome::{Outcome, Reason};
use super::pool::PoolRuntime;
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;
use super::split;

pub use self::placement::{Choice, FailureKind, History, Placement, choose};

/// What becomes of the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// It goes to this server.
    Server(ServerIndex),
    /// The session's server may come back in a moment: wait for it, then select again.
    Hold(ServerIndex),
    /// The pool refuses to serve the session elsewhere.
    Refuse {
        /// The status for the client.
        status: u16,
        /// Why the session's server cannot serve.
        reason: Reason,
        /// The client's token is worthless and is removed.
        clear_token: bool,
    },
    /// The session's server closed the connection before it responded, and the pool wants its sessions nowhere else.
    Fail,
    /// No server has room for a new session: wait for the first that has, then [`place`](Sessions::place) it.
    Full,
    /// No server may take the request now.
    NoServer,
}

/// One step of a selection.
enum Step {
    Done(Selection),
    /// A first request binds its key to this server, unless a parallel one was faster.
    Bind(SessionKey, ServerIndex),
    /// Another pool of the split has the request now.
    OtherPool,
}

impl Sessions {
    /// Selects a server as far as that goes without waiting; `None`: await [`select`](Self::select).
    pub fn try_select(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Option<Selection> {
        loop {
            match self.step(scope, state) {
                Step::Done(selection) => return Some(selection),
                Step::OtherPool => {}
                Step::Bind(key, server) => {
                    state.pending_bind = Some((key, server));
                    let alone = self.shared.is_none();
                    return if alone { self.select(scope, state).now_or_never() } else { None };
                }
            }
        }
    }

    /// Selects a server. Called once for each attempt, and again after [`Selection::Hold`].
    pub async fn select(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Selection {
        loop {
            if let Some((key, server)) = state.pending_bind.take()
                && let Some(server) = self.bind(key, server, scope, state).await
            {
                split::arrive(state);
                return Selection::Server(server);
            }
            match self.step(scope, state) {
                Step::Done(selection) => return selection,
                Step::OtherPool => {}
                Step::Bind(key, server) => state.pending_bind = Some((key, server)),
            }
        }
    }

    fn step(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Step {
        let Some(runtime) = state.runtime(scope) else { return Step::Done(Selection::NoServer) };
        let policy = runtime.persistence.as_ref().map(|persistence| &persistence.policy);
        let placement = state.carried_key().map_or(Placement::Balanced(&state.hash_key), Placement::ByKey);
        let choice = choose(&runtime.pool, policy, state.session(), &state.history, placement, scope.now);
        match self.rebalanced(choice, runtime, scope, state) {
            Choice::To { server, outcome, reason } => {
                (state.outcome, state.reason) = (Some(issuable(outcome, runtime, scope)), reason);
                self.place_at(server, scope, state)
            }
            Choice::Full(outcome) => {
                (state.outcome, state.reason) = (Some(issuable(outcome, runtime, scope)), None);
                Step::Done(Selection::Full)
            }
            Choice::Hold(home) => Step::Done(Selection::Hold(home)),
            Choice::Refuse(reason) => {
                (state.outcome, state.reason) = (Some(Outcome::Refused), Some(reason));
                let status = policy.map_or(503, |policy| policy.refuse_status);
                let clear_token = self.end_refused(scope, state);
                Step::Done(Selection::Refuse { status, reason, clear_token })
            }
            Choice::Fail => Step::Done(Selection::Fail),
            Choice::NoServer { outcome, reason } => {
                let outcome = issuable(outcome, runtime, scope);
                (state.outcome, state.reason) = (Some(outcome), reason);
                if split::leave(self, scope, state, outcome, reason) {
                    Step::OtherPool
                } else {
                    Step::Done(Selection::NoServer)
                }
            }
        }
    }

    /// A request that waited for any server has a place at this one. Another is returned when parallel requests have decided so.
    pub async fn place(&self, server: ServerIndex, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Selection {
        match self.place_at(server, scope, state) {
            Step::Done(selection) => selection,
            Step::Bind(key, server) => {
                state.pending_bind = Some((key, server));
                self.select(scope, state).await
            }
            Step::OtherPool => self.select(scope, state).await,
        }
    }

    fn place_at(&self, server: ServerIndex, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Step {
        if state.lookup.session.is_some() {
            return Step::Done(Selection::Server(server));
        }
        if let Some(address) = state.lookup.unknown_address {
            return Step::Bind(address, server);
        }
        let server = hinted(self, server, scope, state).unwrap_or(server);
        split::arrive(state);
        Step::Done(Selection::Server(server))
    }

    /// A refused session is over, so that its client begins a new one with the next request. True when that is done by
    /// taking the proxy's own cookie away.
    fn end_refused(&self, scope: &Scope<'_, '_>, state: &RequestSession) -> bool {
        let (Some(runtime), Some(session)) = (state.runtime(scope), state.session()) else { return false };
        let Some(persistence) = &runtime.persistence else { return false };
        if persistence.owns_cookie() && matches!(state.source(persistence), Some(Source::Cookie(_))) {
            self.data.forget(&session.key);
            return true;
        }
        self.end(session, runtime, scope.now);
        false
    }
}

/// A request whose response cannot carry the token begins no session.
fn issuable(outcome: Outcome, runtime: &PoolRuntime, scope: &Scope<'_, '_>) -> Outcome {
    match &runtime.persistence {
        Some(persistence) if outcome == Outcome::New && !persistence.can_issue(|| scope.uri()) => Outcome::Balanced,
        _ => outcome,
    }
}
