//! What a request says of its session, and how far the search for it has come.

use smallvec::SmallVec;

use crate::persistence::pool::{PoolPersistence, PoolRuntime};
use crate::session::binding::Lookup;
use crate::session::key::SessionKey;
use crate::session::source::{SessionClaim, Source};

use super::lookup::ResolvedSession;
use super::store_query::StoreQueries;

/// What a request says of its session, in one pool.
#[derive(Debug, Default)]
pub struct SessionLookup {
    /// The result of the source that says most: of a session that lives, else the first that is not "none".
    pub result: Option<Lookup>,
    /// Index of that source; `None` when no source named anything.
    pub source: Option<usize>,
    /// The session, when it lives.
    pub session: Option<ResolvedSession>,
    /// An application's id that is not bound.
    pub unknown_id: Option<SessionKey>,
    /// An address that is not bound.
    pub unknown_address: Option<SessionKey>,
    /// The result of each source that was read.
    pub(super) results: SmallVec<[Lookup; 4]>,
}

/// Where a lookup goes on, and what the shared store must be asked first.
pub struct PendingLookup {
    pub(super) resolver: Resolver,
    pub(super) queries: Box<StoreQueries>,
}

/// Progress through pools and sources.
#[derive(Default)]
pub(super) struct Resolver {
    /// How many pools of a split have been tried.
    pub(super) tried: usize,
    /// The pool of a split that was chosen; no further questions to the store.
    pub(super) chosen: Option<usize>,
    /// Index of the source that is read next.
    pub(super) source: usize,
    /// What that source presents, once the store was asked for it.
    pub(super) claim: Option<SessionClaim>,
    /// A key that the client carries, though no session of it lives.
    pub(super) carried: Option<SessionKey>,
}

impl SessionLookup {
    /// Whether a token in a cookie is among what does not open. The cookie is removed then, also when it is the
    /// application's: it would be refused with every request.
    pub fn cookie_is_forged(&self, persistence: &PoolPersistence) -> bool {
        let mut results = persistence.sources.iter().zip(&self.results);
        results.any(|(source, result)| matches!(source, Source::Cookie(_)) && *result == Lookup::Forged)
    }

    /// Results count in the pool that serves the request.
    pub(super) fn count(&self, runtime: &PoolRuntime) {
        for (counters, result) in runtime.metrics.lookups.iter().zip(&self.results) {
            counters.inc(*result as usize);
        }
    }
}
