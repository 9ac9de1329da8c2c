//! What is still to be written to the store: which sessions, not what. When a session's turn comes, what the table says
//! *then* is written, so a session that changed ten times while the store was away is written once.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::session::key::SessionKey;
use crate::store::engine::Kind;

/// A session of which the store does not know the latest.
pub(super) type Unwritten = (SessionKey, Kind);

/// All of them, in no order. Locked for the time of a hash, and never by a request whose session did not change.
pub(super) struct Pending(Mutex<All>);

#[derive(Default)]
struct All {
    waiting: HashSet<Unwritten>,
    /// So many were taken, and are being written.
    taken: usize,
}

/// About 3 MiB. A session that does not fit stays as it is in the table; the store learns of it with its next change.
const MOST: usize = 65_536;

impl Pending {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// False when there are too many already.
    pub(super) fn add(&self, key: SessionKey, kind: Kind) -> bool {
        let waiting = &mut self.0.lock().waiting;
        let fits = waiting.len() < MOST || waiting.contains(&(key, kind));
        if fits {
            waiting.insert((key, kind));
        }
        fits
    }

    pub(super) fn contains(&self, key: SessionKey, kind: Kind) -> bool {
        self.0.lock().waiting.contains(&(key, kind))
    }

    /// Those that wait, and those that are being written.
    pub(super) fn len(&self) -> usize {
        let all = self.0.lock();
        all.waiting.len() + all.taken
    }

    /// Whether some wait for their turn.
    pub(super) fn any_waits(&self) -> bool {
        !self.0.lock().waiting.is_empty()
    }

    /// Some of them, to be written now, each with a word to [`done`](Self::done).
    pub(super) fn take(&self, most: usize) -> Vec<Unwritten> {
        let mut all = self.0.lock();
        let some: Vec<_> = all.waiting.iter().take(most).copied().collect();
        for one in &some {
            all.waiting.remove(one);
        }
        all.taken += some.len();
        some
    }

    /// One that was taken has been written, or waits again.
    pub(super) fn done(&self) {
        let mut all = self.0.lock();
        all.taken = all.taken.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_waits_once_however_often_it_changes() {
        let pending = Pending::new();
        for _ in 0..10 {
            assert!(pending.add(SessionKey(1), Kind::Binding));
        }
        assert_eq!(pending.take(100), [(SessionKey(1), Kind::Binding)]);
        assert_eq!(pending.take(100), []);
    }

    #[test]
    fn what_is_being_written_is_not_written_yet() {
        let pending = Pending::new();
        pending.add(SessionKey(1), Kind::Binding);
        pending.take(100);
        assert_eq!((pending.len(), pending.any_waits()), (1, false));
        pending.done();
        assert_eq!((pending.len(), pending.any_waits()), (0, false));
    }

    #[test]
    fn it_is_bounded() {
        let pending = Pending::new();
        for n in 0..MOST as u128 {
            assert!(pending.add(SessionKey(n), Kind::Binding));
        }
        assert!(!pending.add(SessionKey(u128::MAX), Kind::Binding));
        assert!(pending.add(SessionKey(3), Kind::Binding), "who waits already goes on waiting");
        assert_eq!((pending.take(1000).len(), pending.len()), (1000, MOST));
    }
}
