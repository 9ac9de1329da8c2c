//! A server has responded: a session that moved belongs to it from now on, and the ids that it issues are learned. The
//! shared store gets a binding before this proxy relies on it.

use futures_util::FutureExt;

use crate::message::ResponseView;
use crate::pool::ServerIndex;
use crate::session::key::SessionKey;
use crate::store::engine::Kind;
use crate::store::shared::{Move, SharedStore};

use super::moves::{self, server_of};
use super::outcome::Outcome;
use super::resolve::ResolvedSession;
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;
use super::{handoff, learn, split};

impl Sessions {
    /// Commits the first final response head as far as that goes without waiting; false: await [`commit`](Self::commit).
    pub fn try_commit(
        &self,
        response: &ResponseView<'_>,
        server: ServerIndex,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) -> bool {
        if state.outcome == Some(Outcome::Moved) {
            let alone = self.shared.is_none();
            return alone && self.commit(response, server, scope, state).now_or_never().is_some();
        }
        learn::learn(self, response, server, scope, state);
        state.learned.is_empty()
    }

    /// Commits the first final response head.
    pub async fn commit(
        &self,
        response: &ResponseView<'_>,
        server: ServerIndex,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) {
        if state.learned.is_empty() {
            if state.outcome == Some(Outcome::Moved) {
                self.commit_move(response, server, scope, state).await;
            }
            learn::learn(self, response, server, scope, state);
        }
        // Before the client has its id: its next request may come to another proxy.
        let learned = std::mem::take(&mut state.learned);
        self.assign(&learned, server, scope, state).await;
    }

    async fn commit_move(
        &self,
        response: &ResponseView<'_>,
        server: ServerIndex,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) {
        let Some(mut session) = state.lookup.session.take() else { return split::settle(self, server, scope, state) };
        let undelivered = handoff::undelivered(self, response.status, state);
        let from = state.runtime(scope).map(|runtime| server_of(&session, runtime, self));
        let moved = self.rebind(&mut session, server, undelivered.as_deref(), scope, state).await;
        state.lookup.session = Some(session);
        if let (true, Some(from)) = (moved, from) {
            moves::note(&from, server, scope, state);
        }
    }

    /// The session moves to `chosen` on all proxies, or this proxy learns that another has moved it. True when it was this
    /// request that moved it. `undelivered`: the moved header that the server still has to be given.
    pub(super) async fn rebind(
        &self,
        session: &mut ResolvedSession,
        chosen: ServerIndex,
        undelivered: Option<&str>,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) -> bool {
        if let (Some(store), Some(persistence)) = (self.store_for(state), state.persistence(scope))
            && let Some(target) = persistence.targets.get(chosen)
        {
            let epoch = session.binding.epoch.saturating_add(1);
            let created = session.binding.created;
            let change = Move { key: session.key, to: target, epoch, created, moved_header: undelivered };
            state.store_unavailable |= store.rebind(change, scope.now).await.is_err();
        }
        let Some(sessions) = state.runtime(scope).and_then(|runtime| self.of(runtime)) else { return false };
        let moved = session.settle(chosen, &sessions, scope.now);
        if moved && state.store_unavailable {
            self.write_behind(session.key);
        }
        moved
    }

    /// The first request of a key is about to be sent to `chosen`: binds it there on all proxies, unless another request
    /// was first; then the session is returned.
    pub(super) async fn claim(
        &self,
        key: SessionKey,
        chosen: ServerIndex,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) -> Option<ResolvedSession> {
        if let (Some(store), Some(persistence)) = (self.store_for(state), state.persistence(scope))
            && let Some(target) = persistence.targets.get(chosen)
        {
            state.store_unavailable |= store.claim(key, target, scope.now).await.is_err();
        }
        let bound = self.of(state.runtime(scope)?)?.claim(key, chosen, scope.now);
        if bound.is_none() && state.store_unavailable {
            self.write_behind(key);
        }
        bound
    }

    /// The server that responds has issued these ids.
    async fn assign(
        &self,
        keys: &[SessionKey],
        server: ServerIndex,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) {
        let Some(shared) = &self.shared else { return };
        let target = state.persistence(scope).and_then(|persistence| persistence.targets.get(server));
        for key in keys {
            match (self.store_for(state), target) {
                (Some(store), Some(target)) => {
                    state.store_unavailable |= store.assign(*key, target, scope.now).await.is_err();
                }
                _ => shared.assign_behind(*key),
            }
        }
    }

    /// The shared store, unless it has not responded to this request before.
    pub(super) fn store_for(&self, state: &RequestSession) -> Option<&SharedStore> {
        self.shared.as_deref().filter(|_| !state.store_unavailable)
    }

    fn write_behind(&self, key: SessionKey) {
        if let Some(store) = &self.shared {
            store.write_behind(key, Kind::Binding);
        }
    }
}
