//! The last moves of each session, of those that moved last. A session that never moved takes no memory.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// Moves kept for each session.
const MOVES: usize = 4;
/// Sessions whose moves are kept. Some 12 MiB when each has moved once.
const SESSIONS: usize = 1 << 16;

/// A move of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionMove {
    /// Milliseconds since 1970.
    pub at: u64,
    /// The server before.
    pub from: Arc<str>,
    /// The server after.
    pub to: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

/// The moves, by the sessions' keys.
pub struct MoveHistory {
    moves: Mutex<LruCache<u128, SmallVec<[SessionMove; 1]>>>,
    most_sessions: usize,
}

impl Default for MoveHistory {
    fn default() -> Self {
        Self::with_room_for(SESSIONS)
    }
}

impl MoveHistory {
    fn with_room_for(most_sessions: usize) -> Self {
        // Grows as sessions move.
        Self { moves: Mutex::new(LruCache::unbounded()), most_sessions }
    }

    /// Adds a move. The session's oldest goes when it has too many, and the session that moved longest ago when too many moved.
    pub fn record(&self, key: u128, made: SessionMove) {
        let mut sessions = self.moves.lock();
        let moves = sessions.get_or_insert_mut(key, SmallVec::new);
        if moves.len() >= MOVES {
            moves.remove(0);
        }
        moves.push(made);
        if sessions.len() > self.most_sessions {
            sessions.pop_lru();
        }
    }

    /// The session's moves since that time, oldest first. A key that is made of an address may have been another session's before.
    pub fn of(&self, key: u128, since: u64) -> Vec<SessionMove> {
        let sessions = self.moves.lock();
        let moves = sessions.peek(&key).into_iter().flatten();
        moves.filter(|made| made.at >= since).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(at: u64) -> SessionMove {
        SessionMove { at, from: "a".into(), to: "b".into(), reason: "down".into() }
    }

    fn times(history: &MoveHistory, key: u128, since: u64) -> Vec<u64> {
        history.of(key, since).iter().map(|made| made.at).collect()
    }

    #[test]
    fn the_last_four_moves_of_a_session_are_kept() {
        let history = MoveHistory::default();
        for at in 1..=6 {
            history.record(7, made(at));
        }
        history.record(8, made(100));
        assert_eq!(times(&history, 7, 0), [3, 4, 5, 6]);
        assert_eq!(times(&history, 7, 5), [5, 6], "of this session only");
        assert_eq!(times(&history, 8, 0), [100]);
        assert!(history.of(9, 0).is_empty());
    }

    #[test]
    fn memory_is_bounded_and_what_moved_last_stays() {
        let history = MoveHistory::with_room_for(2);
        for n in 1..10 {
            history.record(n, made(1));
            history.record(0, made(2));
        }
        assert_eq!(times(&history, 0, 0), [2; MOVES], "it moved again and again");
        assert_eq!(times(&history, 9, 0), [1]);
        assert!((1..9).all(|n| history.of(n, 0).is_empty()));
    }
}
