//! Moves that requests of this proxy are making. The store announces a move to all its proxies, to the one that makes it
//! too, and often before the request has its answer: heard then, it would look like another proxy's, and nobody would
//! have made the move.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::session::key::SessionKey;

use super::SharedStore;

/// Sessions that move now, and the epochs that they come to. Parallel requests of one session stand here each.
#[derive(Default)]
pub(super) struct Moves(Mutex<Vec<(SessionKey, u32)>>);

impl Moves {
    pub(super) fn contains(&self, key: SessionKey, epoch: u32) -> bool {
        self.0.lock().contains(&(key, epoch))
    }
}

/// A request moves a session, from before it tells the store until its table knows what came of it. Meanwhile an
/// announcement of that epoch, its own or the one it lost against, is left to it.
#[must_use]
pub struct Moving {
    store: Arc<SharedStore>,
    key: SessionKey,
    epoch: u32,
    done: bool,
}

impl Moving {
    /// The session is about to move, with this epoch.
    pub fn begin(store: &Arc<SharedStore>, key: SessionKey, epoch: u32) -> Self {
        store.moves.0.lock().push((key, epoch));
        Self { store: Arc::clone(store), key, epoch, done: false }
    }

    /// The table knows what came of it.
    pub fn end(mut self) {
        self.done = true;
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        {
            let mut all = self.store.moves.0.lock();
            if let Some(at) = all.iter().position(|one| *one == (self.key, self.epoch)) {
                all.swap_remove(at);
            }
        }
        // The client went away in the middle: nobody knows here what the store has now.
        if !self.done {
            self.store.near.forget(&self.key);
        }
    }
}
