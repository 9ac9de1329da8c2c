//! Which session a request names: the sources of its pool are read in their order, and the first that names a session
//! that lives decides.
//!
//! One loop, whether a store is shared or not: where the table does not know well enough what a source names, the loop
//! stops and says what the store must be asked; when the table has the store's word, it goes on from there.

pub(super) mod lookup;
pub(super) mod session_lookup;
mod store_query;

use crate::config::{OnError, OnForged};
use crate::routing::Split;
use crate::session::binding::Lookup;
use crate::session::key::SessionKey;
use crate::session::source::{SessionClaim, Source};
use crate::telemetry::metrics::Rejection;

use super::hash_key::hash_key;
use super::pool::{PoolPersistence, PoolRuntime};
use super::scope::{RequestSession, Scope};
use super::sessions::Sessions;

use self::session_lookup::Resolver;

#[cfg(test)]
pub(super) use self::lookup::tests::{NOW, World};
pub use self::lookup::{IdentifiedBy, PoolSessions, Recognition, ResolvedSession, UnboundKey, recognize};
pub use self::session_lookup::{PendingLookup, SessionLookup};
pub use self::store_query::{StoreQueries, store_queries};

/// Why the loop stopped.
enum Stop {
    /// The shared store must be asked. In a box, so that the usual results stay small.
    Ask(Box<StoreQueries>),
    /// The request is refused.
    Refuse(Rejection),
}

impl Sessions {
    /// Finds the request's session, and the pool that serves it, as far as that goes without waiting; `None`: await
    /// [`resolve`](Self::resolve).
    pub fn try_resolve(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Option<Result<(), Rejection>> {
        let mut resolver = Resolver::default();
        match resolver.run(self, scope, state) {
            Ok(()) => Some(Ok(())),
            Err(Stop::Refuse(rejection)) => Some(Err(rejection)),
            Err(Stop::Ask(queries)) => {
                state.pending_lookup = Some(Box::new(PendingLookup { resolver, queries }));
                None
            }
        }
    }

    /// Finds the request's session, and the pool that serves it.
    ///
    /// # Errors
    /// When the pool refuses the request.
    pub async fn resolve(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Result<(), Rejection> {
        let (mut resolver, mut queries) = match state.pending_lookup.take() {
            Some(pending) => (pending.resolver, Some(pending.queries)),
            None => (Resolver::default(), None),
        };
        loop {
            if let (Some(queries), Some(store)) = (queries.take(), &self.shared) {
                state.has_asked_store = true;
                state.store_unavailable |= store.query(&queries, scope.now).await.is_err();
                if state.store_unavailable && store.on_error == OnError::Refuse {
                    return Err(resolver.refuse_for_store(scope, state));
                }
            }
            match resolver.run(self, scope, state) {
                Ok(()) => return Ok(()),
                Err(Stop::Refuse(rejection)) => return Err(rejection),
                Err(Stop::Ask(next)) => queries = Some(next),
            }
        }
    }

    /// The same in another pool of a split, when the first cannot serve. What is known here is enough.
    pub(super) fn resolve_in(&self, pool: usize, scope: &Scope<'_, '_>, state: &mut RequestSession) {
        enter(pool, scope, state);
        state.lookup = SessionLookup::default();
        let mut resolver = Resolver { chosen: Some(pool), ..Resolver::default() };
        // A chosen pool never stops.
        let _ = resolver.read_sources(pool, self, scope, state);
    }
}

impl Resolver {
    fn run(&mut self, sessions: &Sessions, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Result<(), Stop> {
        let pool = match (scope.split(), self.chosen) {
            (Some(split), None) => self.choose_pool(split, sessions, scope, state)?,
            (_, chosen) => {
                let pool = chosen.or(state.pool).unwrap_or_default();
                self.read_sources(pool, sessions, scope, state)?;
                pool
            }
        };
        enter(pool, scope, state);
        let Some(runtime) = state.runtime(scope) else { return Ok(()) };
        state.lookup.count(runtime);
        let refuses = runtime.persistence.as_ref().is_some_and(|one| one.policy.on_forged == OnForged::Refuse);
        let forged = state.lookup.results.contains(&Lookup::Forged);
        if refuses && forged { Err(Stop::Refuse(Rejection::ForgedToken)) } else { Ok(()) }
    }

    /// A session keeps its version of the application, whatever the weights have become. A client that carries a key gets
    /// a version by that key, so that its parallel requests agree; else by chance.
    fn choose_pool(
        &mut self,
        split: &Split,
        sessions: &Sessions,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) -> Result<usize, Stop> {
        while let Some(pool) = split.pools().nth(self.tried) {
            self.read_sources(pool, sessions, scope, state)?;
            if state.lookup.session.is_some() {
                state.point = scope.random_number();
                return Ok(pool);
            }
            let hint = || hint(scope.pools.get(pool)?, scope);
            self.carried = self.carried.or(state.lookup.unknown_id).or(state.lookup.unknown_address).or_else(hint);
            (self.tried, self.source, state.lookup) = (self.tried + 1, 0, SessionLookup::default());
        }
        let carried = self.carried.map(|key| u64::try_from(key.0 >> 64).unwrap_or_default());
        state.point = carried.unwrap_or_else(|| scope.random_number());
        let pool = split.pick(state.point);
        self.chosen = Some(pool);
        self.read_sources(pool, sessions, scope, state)?;
        Ok(pool)
    }

    /// Reads the sources of a pool, from where it stopped.
    fn read_sources(
        &mut self,
        pool: usize,
        sessions: &Sessions,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) -> Result<(), Stop> {
        let runtime = scope.pools.get(pool);
        if let Some((persistence, view)) = runtime.and_then(|one| one.persistence.as_ref().zip(sessions.of(one))) {
            while let Some(source) = persistence.sources.get(self.source) {
                let claim = self.present(source, persistence, &view, scope, state)?;
                self.note(recognize(&claim, &view, scope.now), state);
                self.source += 1;
                if state.lookup.session.is_some() {
                    break;
                }
            }
        }
        state.lookup.result = state.lookup.result.or(Some(Lookup::None));
        Ok(())
    }

    /// What the next source presents, once the table knows of it what the store knows.
    fn present(
        &mut self,
        source: &Source,
        persistence: &PoolPersistence,
        sessions: &PoolSessions<'_>,
        scope: &Scope<'_, '_>,
        state: &mut RequestSession,
    ) -> Result<SessionClaim, Stop> {
        if let Some(claim) = self.claim.take() {
            return Ok(claim);
        }
        let claim = persistence.claim(source, scope);
        let Some(store) = sessions.shared.filter(|_| self.chosen.is_none() && !state.store_unavailable) else {
            return Ok(claim);
        };
        if store.on_error == OnError::Refuse && store.is_unavailable() && claim.names_session() {
            return Err(Stop::Refuse(self.refuse_for_store(scope, state)));
        }
        let queries = store_queries(&claim, store, sessions, scope.now);
        if queries.is_empty() {
            return Ok(claim);
        }
        self.claim = Some(claim);
        Err(Stop::Ask(Box::new(queries)))
    }

    fn note(&mut self, recognition: Recognition, state: &mut RequestSession) {
        let Recognition { mut lookup, session, unbound } = recognition;
        if state.store_unavailable && lookup == Lookup::Unknown && unbound.is_some() {
            lookup = Lookup::StoreError;
        }
        let found = &mut state.lookup;
        found.results.push(lookup);
        if session.is_some() || (found.source.is_none() && lookup != Lookup::None) {
            (found.result, found.source) = (Some(lookup), Some(self.source));
        }
        match unbound {
            Some(UnboundKey::Id(key)) => found.unknown_id = found.unknown_id.or(Some(key)),
            Some(UnboundKey::Address(key)) => found.unknown_address = found.unknown_address.or(Some(key)),
            None => {}
        }
        found.session = session;
    }

    /// The store cannot be asked for what the current source names, and such requests are refused.
    fn refuse_for_store(&self, scope: &Scope<'_, '_>, state: &mut RequestSession) -> Rejection {
        let pool = scope.split().map_or(state.pool, |split| split.pools().nth(self.tried));
        let lookups = pool.and_then(|pool| scope.pools.get(pool)).map(|runtime| &runtime.metrics.lookups);
        if let Some(counters) = lookups.and_then(|lookups| lookups.get(self.source)) {
            counters.inc(Lookup::StoreError as usize);
        }
        // What the sources before it named does not count.
        state.lookup = SessionLookup::default();
        Rejection::StoreUnavailable
    }
}

/// This pool serves the request.
fn enter(pool: usize, scope: &Scope<'_, '_>, state: &mut RequestSession) {
    state.pool = Some(pool);
    let Some(runtime) = scope.pools.get(pool) else { return };
    runtime.pool.budget.pay_in();
    if let Some(hash_on) = &runtime.hash_on {
        state.hash_key = hash_key(&scope.request, scope.client, hash_on);
    }
}

/// The key of the client's address where new clients of one address go to one server.
pub(super) fn hint(runtime: &PoolRuntime, scope: &Scope<'_, '_>) -> Option<SessionKey> {
    Some(runtime.persistence.as_ref()?.hint.as_ref()?.key_of(scope.client?))
}
