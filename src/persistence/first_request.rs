//! Concurrent first requests of one client are pinned to one server.
//!
//! A client that carries a key (its address) binds it with its first request: the first of many parallel requests decides,
//! in one step of the table, and the others follow. A client that carries nothing goes where the last new client of its
//! address went, where the pool is configured so.

use crate::pool::ServerIndex;
use crate::pool::server::Server;
use crate::session::key::SessionKey;

use super::outcome::Outcome;
use super::resolve::hint;
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;

impl Sessions {
    /// Binds the key of a first request; `chosen` is the server that the pool would give to a new session. Returns the
    /// server of the new session, or `None` when another request bound the key: the request has a session now.
    pub(super) async fn bind(
        &self,
        key: SessionKey,
        chosen: ServerIndex,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) -> Option<ServerIndex> {
        state.has_asked_store |= self.shared.is_some();
        match self.claim(key, chosen, scope, state).await {
            Some(bound) if bound.home.is_some_and(|home| state.history.failure_of(home).is_none()) => {
                state.lookup.session = Some(bound);
                None
            }
            // Bound to a server that just failed this very request, so no client was served there and no session moves
            // yet. The consistent hash chooses, as it does for the requests that wait for the same server.
            Some(mut bound) => {
                let failed = state.history.servers();
                let next = state.runtime(scope).and_then(|one| one.pool.pick_moved(&key.to_bytes(), &failed));
                let next = next.unwrap_or(chosen);
                if self.rebind(&mut bound, next, None, scope, state).await {
                    begin(state);
                    return Some(next);
                }
                state.lookup.session = Some(bound);
                None
            }
            None => {
                begin(state);
                Some(chosen)
            }
        }
    }
}

fn begin(state: &mut RequestSession) {
    state.created = state.lookup.unknown_address;
    state.outcome = Some(Outcome::New);
}

/// The server of the last new client of the client's address, if it may still take new sessions.
pub(super) fn hinted(
    sessions: &Sessions,
    chosen: ServerIndex,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
) -> Option<ServerIndex> {
    // With a carried key the consistent hash makes parallel requests agree, and other proxies with them.
    let runtime = state.runtime(scope).filter(|_| state.carried_key().is_none())?;
    let address = hint(runtime, scope)?;
    let chosen = runtime.persistence.as_ref()?.targets.get(chosen)?;
    let may_take = |server: &ServerIndex| {
        let takes_new = runtime.pool.servers.get(*server).is_some_and(Server::accepts_new);
        takes_new && state.history.failure_of(*server).is_none()
    };
    let server = |target| runtime.pool.find(sessions.table.target_at(target)?.id()).filter(may_take);
    let first = sessions.first_requests.claim(address, chosen, scope.now)?;
    server(first).or_else(|| server(sessions.first_requests.replace(address, first, chosen, scope.now)?))
}
