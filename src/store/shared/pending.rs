//! What is still to be written to the store: which sessions, not what. When a session's turn comes, what the table says
//! *then* is written, so a session that changed ten times while the store was away is written once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;

use crate::session::key::SessionKey;
use crate::store::engine::Kind;

/// A session of which the store does not know the latest.
pub(super) type Unwritten = (SessionKey, Kind);

/// All of them, in no order. Locked for the time of a hash, and never by a request whose session did not change.
pub(super) struct Pending(Mutex<HashMap<Unwritten, State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Its server has called it its own: what says that it has ended is older.
    insists: bool,
    /// It is being written.
    taken: bool,
    /// And has changed since.
    again: bool,
}

/// One that is being written. Waits on when it is dropped before it is [`written`](Self::written).
pub(super) struct Taken<'a> {
    pending: &'a Pending,
    pub(super) unwritten: Unwritten,
    pub(super) insists: bool,
}

/// About 4 MiB. A session that does not fit stays as it is in the table; the store learns of it with its next change.
const MOST: usize = 65_536;

impl Pending {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// False when there are too many already.
    pub(super) fn add(&self, key: SessionKey, kind: Kind, insists: bool) -> bool {
        let mut all = self.0.lock();
        let full = all.len() >= MOST;
        match all.entry((key, kind)) {
            Entry::Occupied(mut there) => {
                let state = there.get_mut();
                state.again |= state.taken;
                state.insists |= insists;
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(free) => {
                free.insert(State { insists, ..State::default() });
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

    /// Some of them, to be written now.
    pub(super) fn take(&self, most: usize) -> Vec<Taken<'_>> {
        let mut all = self.0.lock();
        let free = all.iter_mut().filter(|(_, state)| !state.taken).take(most);
        free.map(|(unwritten, state)| {
            state.taken = true;
            Taken { pending: self, unwritten: *unwritten, insists: state.insists }
        })
        .collect()
    }
}

impl Taken<'_> {
    /// The store knows it, unless it has changed meanwhile.
    pub(super) fn written(self) {
        let mut all = self.pending.0.lock();
        if all.get(&self.unwritten).is_some_and(|state| !state.again) {
            all.remove(&self.unwritten);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.pending.0.lock().get_mut(&self.unwritten) {
            (state.taken, state.again) = (false, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Unwritten = (SessionKey(1), Kind::Binding);

    fn add(pending: &Pending, key: u128) -> bool {
        pending.add(SessionKey(key), Kind::Binding, false)
    }

    #[test]
    fn a_session_waits_once_however_often_it_changes() {
        let pending = Pending::new();
        for _ in 0..10 {
            assert!(add(&pending, 1));
        }
        let mut taken = pending.take(100);
        assert_eq!(taken.len(), 1);
        assert!(pending.take(100).is_empty() && pending.contains(ONE.0, ONE.1), "it waits until it is written");
        taken.remove(0).written();
        assert_eq!((pending.take(100).len(), pending.len()), (0, 0));
    }

    #[test]
    fn what_is_not_written_or_changes_meanwhile_waits_on() {
        let pending = Pending::new();
        add(&pending, 1);
        drop(pending.take(1));
        let taken = pending.take(1).remove(0);
        add(&pending, 1);
        taken.written();
        assert_eq!(pending.take(1).remove(0).unwritten, ONE);
        pending.add(SessionKey(1), Kind::Binding, true);
        assert!(pending.take(1).remove(0).insists);
    }

    #[test]
    fn it_is_bounded() {
        let pending = Pending::new();
        for n in 0..MOST as u128 {
            assert!(add(&pending, n));
        }
        assert!(!add(&pending, u128::MAX));
        assert!(add(&pending, 3), "who waits already goes on waiting");
        for taken in pending.take(1000) {
            taken.written();
        }
        assert_eq!(pending.len(), MOST - 1000);
    }
}
