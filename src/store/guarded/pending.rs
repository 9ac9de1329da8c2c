//! What is still to be written to the store: which sessions, not what. When a session's turn comes, what the table says
//! *then* is written, so a session that changed ten times while the store was away is written once.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::session::key::SessionKey;
use crate::store::engine::Kind;

/// A session of which the store does not know the latest.
pub(super) type Unwritten = (SessionKey, Kind);

/// All of them, in no order. Locked for the time of a hash, and never by a request whose session did not change.
pub(super) struct Pending(Mutex<HashSet<Unwritten>>);

/// About 3 MiB. A session that does not fit stays as it is in the table; the store learns of it with its next change.
const MOST: usize = 65_536;

impl Pending {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// False when there are too many already.
    pub(super) fn add(&self, key: SessionKey, kind: Kind) -> bool {
        let mut all = self.0.lock();
        let fits = all.len() < MOST || all.contains(&(key, kind));
        if fits {
            all.insert((key, kind));
        }
        fits
    }

    pub(super) fn contains(&self, key: SessionKey, kind: Kind) -> bool {
        self.0.lock().contains(&(key, kind))
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Some of them, to be written now.
    pub(super) fn take(&self, most: usize) -> Vec<Unwritten> {
        let mut all = self.0.lock();
        let some: Vec<_> = all.iter().take(most).copied().collect();
        for one in &some {
            all.remove(one);
        }
        some
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
    fn it_is_bounded() {
        let pending = Pending::new();
        for n in 0..MOST as u128 {
            assert!(pending.add(SessionKey(n), Kind::Binding));
        }
        assert!(!pending.add(SessionKey(u128::MAX), Kind::Binding));
        assert!(pending.add(SessionKey(3), Kind::Binding), "who waits already goes on waiting");
        assert_eq!((pending.take(1000).len(), pending.len()), (1000, MOST - 1000));
    }
}
