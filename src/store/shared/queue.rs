//! Work that is done behind requests: lifetimes to extend, entries to refresh, and how far a resync has come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::engine::{Kind, Name};
use crate::store::targets::Target;

/// A session to read from the store.
#[derive(Debug, Clone)]
pub struct StoreQuery {
    /// The session.
    pub key: SessionKey,
    /// Any target of its pool.
    pub pool: Arc<Target>,
    /// It has no token, so a binding that the table lacks is only in the store.
    pub without_token: bool,
    /// Servers hand data over for it.
    pub has_handoff: bool,
}

impl StoreQuery {
    /// The name of its binding.
    pub(super) fn name(&self) -> Name {
        Name::new(self.pool.pool(), self.key, Kind::Binding)
    }
}

/// Locked for the time of a push.
pub(super) struct Queues {
    touches: Mutex<HashMap<Name, Duration>>,
    fetches: Mutex<Vec<StoreQuery>>,
    /// Fetches that can wait until there are several of one partition.
    gathered: Mutex<Gathered>,
    pub(super) resync: ResyncCursor,
    /// Notified when there is work that should not wait for the next round.
    pub(super) wake: Notify,
}

/// Fetches that wait for others.
#[derive(Default)]
struct Gathered {
    queries: Vec<StoreQuery>,
    /// Of the first.
    since: UnixMillis,
}

/// Entries of each queue. Work beyond that is done with a later visit.
const CAPACITY: usize = 65_536;

impl Queues {
    pub(super) fn new() -> Self {
        Self {
            touches: Mutex::default(),
            fetches: Mutex::default(),
            gathered: Mutex::default(),
            resync: ResyncCursor::done(),
            wake: Notify::new(),
        }
    }

    /// False when full.
    pub(super) fn push_touches(&self, names: impl IntoIterator<Item = Name>, ttl: Duration) -> bool {
        let mut touches = self.touches.lock();
        let has_room = touches.len() < CAPACITY;
        if has_room {
            touches.extend(names.into_iter().map(|name| (name, ttl)));
        }
        has_room
    }

    /// Puts back touches that failed. A later visit of the same session takes precedence.
    pub(super) fn requeue_touches(&self, failed: &[(Name, Duration)]) {
        let mut touches = self.touches.lock();
        for (name, ttl) in failed {
            if touches.len() < CAPACITY {
                touches.entry(name.clone()).or_insert(*ttl);
            }
        }
    }

    pub(super) fn take_touches(&self) -> Vec<(Name, Duration)> {
        std::mem::take(&mut *self.touches.lock()).into_iter().collect()
    }

    /// False when full.
    pub(super) fn push_fetch(&self, query: StoreQuery) -> bool {
        let mut fetches = self.fetches.lock();
        let has_room = fetches.len() < CAPACITY;
        if has_room {
            fetches.push(query);
        }
        has_room
    }

    pub(super) fn take_fetches(&self) -> Vec<StoreQuery> {
        std::mem::take(&mut *self.fetches.lock())
    }

    /// False when full.
    pub(super) fn gather(&self, query: StoreQuery, now: UnixMillis) -> bool {
        let mut gathered = self.gathered.lock();
        if gathered.queries.is_empty() {
            gathered.since = now;
        }
        let has_room = gathered.queries.len() < CAPACITY;
        if has_room {
            gathered.queries.push(query);
        }
        has_room
    }

    /// All that was gathered, once the first has waited for so long.
    pub(super) fn take_gathered(&self, now: UnixMillis, wait: Duration) -> Vec<StoreQuery> {
        let mut gathered = self.gathered.lock();
        if now.since(gathered.since) < wait { Vec::new() } else { std::mem::take(&mut gathered.queries) }
    }

    /// What was gathered waits no longer.
    pub(super) fn stop_gathering(&self) {
        self.gathered.lock().since = UnixMillis(0);
    }

    /// Touches and fetches.
    #[cfg(test)]
    pub(super) fn lens(&self) -> (usize, usize) {
        (self.touches.lock().len(), self.fetches.lock().len() + self.gathered.lock().queries.len())
    }
}

/// The next shard of the table to resync. Relaxed: only the background task advances it, and its next step sees a restart.
pub(super) struct ResyncCursor(AtomicUsize);

impl ResyncCursor {
    /// Nothing to resync.
    fn done() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }

    pub(super) fn restart(&self) {
        self.0.store(0, Relaxed);
    }

    pub(super) fn next_shard(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Does nothing when it was restarted meanwhile.
    pub(super) fn advance(&self, from: usize, next: usize) {
        let _ = self.0.compare_exchange(from, next, Relaxed, Relaxed);
    }
}
