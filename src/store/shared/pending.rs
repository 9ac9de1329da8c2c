//! Pending writes: the sessions that must still be written to the store, not their records. A record is taken from the table
//! when it is written, so a session that changed ten times during an outage is written once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;

use crate::session::key::SessionKey;
use crate::store::engine::Kind;

/// A session whose latest binding or data is not in the store yet.
pub(super) type PendingKey = (SessionKey, Kind);

/// In no order. Locked for the time of a hash, and only by requests whose session changed.
pub(super) struct PendingWrites(Mutex<HashMap<PendingKey, WriteState>>);

#[derive(Debug, Clone, Copy, Default)]
struct WriteState {
    /// A server has assigned the session to itself, so a tombstone in the store is older.
    assigned: bool,
    in_progress: bool,
    /// Changed while in progress.
    changed: bool,
}

/// A write in progress. Stays pending when it is dropped before [`complete`](Self::complete).
pub(super) struct PendingWrite<'a> {
    pending: &'a PendingWrites,
    pub(super) key: PendingKey,
    pub(super) assigned: bool,
}

/// About 4 MiB. A session beyond that is only in the table, and is written with its next change.
const CAPACITY: usize = 65_536;

impl PendingWrites {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// False when full.
    pub(super) fn add(&self, key: SessionKey, kind: Kind, assigned: bool) -> bool {
        let mut all = self.0.lock();
        let full = all.len() >= CAPACITY;
        match all.entry((key, kind)) {
            Entry::Occupied(mut entry) => {
                let state = entry.get_mut();
                state.changed |= state.in_progress;
                state.assigned |= assigned;
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(entry) => {
                entry.insert(WriteState { assigned, ..WriteState::default() });
            }
        }
        true
    }

    pub(super) fn contains(&self, key: SessionKey, kind: Kind) -> bool {
        self.0.lock().contains_key(&(key, kind))
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Begins up to `count` writes.
    pub(super) fn begin(&self, count: usize) -> Vec<PendingWrite<'_>> {
        let mut all = self.0.lock();
        let waiting = all.iter_mut().filter(|(_, state)| !state.in_progress).take(count);
        let begun = waiting.map(|(key, state)| {
            state.in_progress = true;
            PendingWrite { pending: self, key: *key, assigned: state.assigned }
        });
        begun.collect()
    }
}

impl PendingWrite<'_> {
    /// The store has it, unless the session has changed meanwhile.
    pub(super) fn complete(self) {
        let mut all = self.pending.0.lock();
        if all.get(&self.key).is_some_and(|state| !state.changed) {
            all.remove(&self.key);
        }
    }
}

impl Drop for PendingWrite<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.pending.0.lock().get_mut(&self.key) {
            (state.in_progress, state.changed) = (false, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PendingKey = (SessionKey(1), Kind::Binding);

    fn add(pending: &PendingWrites, key: u128) -> bool {
        pending.add(SessionKey(key), Kind::Binding, false)
    }

    #[test]
    fn a_session_is_pending_once_however_often_it_changes() {
        let pending = PendingWrites::new();
        for _ in 0..10 {
            assert!(add(&pending, 1));
        }
        let mut writes = pending.begin(100);
        assert_eq!(writes.len(), 1);
        assert!(pending.begin(100).is_empty() && pending.contains(ONE.0, ONE.1), "pending until it is written");
        writes.remove(0).complete();
        assert_eq!((pending.begin(100).len(), pending.len()), (0, 0));
    }

    #[test]
    fn a_write_that_fails_or_is_outdated_stays_pending() {
        let pending = PendingWrites::new();
        add(&pending, 1);
        drop(pending.begin(1));
        let write = pending.begin(1).remove(0);
        add(&pending, 1);
        write.complete();
        assert_eq!(pending.begin(1).remove(0).key, ONE);
        pending.add(SessionKey(1), Kind::Binding, true);
        assert!(pending.begin(1).remove(0).assigned);
    }

    #[test]
    fn it_is_bounded() {
        let pending = PendingWrites::new();
        for n in 0..CAPACITY as u128 {
            assert!(add(&pending, n));
        }
        assert!(!add(&pending, u128::MAX));
        assert!(add(&pending, 3), "a pending session stays pending");
        for write in pending.begin(1000) {
            write.complete();
        }
        assert_eq!(pending.len(), CAPACITY - 1000);
    }
}
