//! The sessions of requests in flight. A WebSocket, a stream or a long wait is use of its session for as long as it lasts,
//! but it brings no visit to the table; so the background extends the sessions that are listed here.
//!
//! A request is listed by every thread in a shard of its own, so that the list costs a request some dozens of instructions
//! and no waiting.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::targets::TargetIndex;

/// A session that a request in flight uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenSession {
    /// Its key in the table.
    pub key: SessionKey,
    /// Where it is bound.
    pub target: TargetIndex,
    /// How often it has moved.
    pub epoch: u32,
    /// When it began.
    pub created: UnixMillis,
    /// The client names it by a token, which no visit can extend while the request is under way: then the table must
    /// remember it.
    pub has_token: bool,
    /// Servers hand data over for it.
    pub has_handoff: bool,
}

/// A place in the list. Given back once.
#[derive(Debug)]
pub struct OpenSlot {
    shard: u32,
    index: u32,
}

/// The places of one request: few requests use more than one session.
pub type OpenSlots = SmallVec<[OpenSlot; 2]>;

struct Entry {
    session: OpenSession,
    /// The last visit of the session by this request: its start, or what the background noted since.
    seen: UnixMillis,
    /// The background has extended the session.
    extended: bool,
}

#[derive(Default)]
struct Shard {
    entries: Vec<Option<Entry>>,
    /// Indices of entries that are empty.
    free: Vec<u32>,
}

/// The list. Share it in an `Arc`.
pub struct OpenRequests {
    /// Each is locked for a few instructions by a request, and for a pass over its entries by the background.
    shards: Box<[Mutex<Shard>]>,
}

/// Some threads share one when there are more.
const SHARDS: usize = 64;

/// Which shard the next new thread uses. Relaxed: any number is right.
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = Cell::new(NEXT_SHARD.fetch_add(1, Relaxed) % SHARDS);
}

impl OpenRequests {
    /// An empty list.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Lists a session for a request that is under way since `now`.
    pub fn insert(&self, session: OpenSession, now: UnixMillis) -> Option<OpenSlot> {
        let index = SHARD.get();
        let mut shard = self.shards.get(index)?.lock();
        let entry = Some(Entry { session, seen: now, extended: false });
        let slot = shard.insert(entry)?;
        Some(OpenSlot { shard: u32::try_from(index).ok()?, index: slot })
    }

    /// The request is over. Returns the session if the background has extended it meanwhile: then its last visit is now.
    pub fn remove(&self, slot: &OpenSlot) -> Option<OpenSession> {
        let mut shard = self.shards.get(slot.shard as usize)?.lock();
        let entry = shard.entries.get_mut(slot.index as usize)?.take()?;
        shard.free.push(slot.index);
        entry.extended.then_some(entry.session)
    }

    /// Calls `extend` for every session whose last visit is longer ago than `interval` says for its target. No lock is held
    /// meanwhile.
    pub fn extend_due(
        &self,
        now: UnixMillis,
        interval: impl Fn(TargetIndex) -> Duration,
        mut extend: impl FnMut(&OpenSession),
    ) {
        let mut due = Vec::new();
        for shard in &self.shards {
            due.extend(
                shard
                    .lock()
                    .entries
                    .iter_mut()
                    .flatten()
                    .filter(|entry| now.since(entry.seen) >= interval(entry.session.target))
                    .map(|entry| {
                        (entry.seen, entry.extended) = (now, true);
                        entry.session
                    }),
            );
            due.drain(..).for_each(|session| extend(&session));
        }
    }

    /// How many requests of a session are listed. Looks at all of them, each thread's under its lock.
    pub fn count(&self, key: SessionKey) -> usize {
        let of_session = |entry: &&Entry| entry.session.key == key;
        self.shards.iter().map(|shard| shard.lock().entries.iter().flatten().filter(of_session).count()).sum()
    }

    /// How many sessions are listed.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for OpenRequests {
    fn default() -> Self {
        Self::new()
    }
}

impl Shard {
    fn insert(&mut self, entry: Option<Entry>) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            *self.entries.get_mut(index as usize)? = entry;
            return Some(index);
        }
        let index = u32::try_from(self.entries.len()).ok()?;
        self.entries.push(entry);
        Some(index)
    }

    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis(1_790_000_000_000 + seconds * 1000)
    }

    fn session(key: u128) -> OpenSession {
        let (target, created) = (TargetIndex(0), at(0));
        OpenSession { key: SessionKey(key), target, epoch: 0, created, has_token: true, has_handoff: false }
    }

    fn extended(open: &OpenRequests, seconds: u64) -> Vec<u128> {
        let mut keys = Vec::new();
        open.extend_due(at(seconds), |_| MINUTE, |session| keys.push(session.key.0));
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_session_is_extended_once_an_interval_for_as_long_as_its_request_lasts() {
        let open = OpenRequests::new();
        let slot = open.insert(session(1), at(0)).unwrap();
        let _other = open.insert(session(2), at(30)).unwrap();
        assert_eq!(extended(&open, 59), [0_u128; 0]);
        assert_eq!(extended(&open, 60), [1]);
        assert_eq!(extended(&open, 90), [2]);
        assert_eq!(extended(&open, 120), [1]);
        assert_eq!(open.remove(&slot), Some(session(1)), "its last visit is the end of the request");
        assert_eq!(extended(&open, 1000), [2]);
    }

    #[test]
    fn a_short_request_leaves_nothing_to_do() {
        let open = OpenRequests::new();
        let slot = open.insert(session(1), at(0)).unwrap();
        assert_eq!(open.remove(&slot), None);
        assert!(open.is_empty());
    }

    #[test]
    fn places_are_used_again() {
        let open = OpenRequests::new();
        for n in 0..1000 {
            let slots: Vec<_> = (0..3).map(|m| open.insert(session(n * 3 + m), at(0)).unwrap()).collect();
            assert_eq!(open.len(), 3);
            for slot in &slots {
                open.remove(slot);
            }
        }
        assert!(open.is_empty());
        let places: usize = open.shards.iter().map(|shard| shard.lock().entries.len()).sum();
        assert_eq!(places, 3);
    }

    #[test]
    fn a_request_may_end_on_another_thread() {
        let open = OpenRequests::new();
        let slots: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn({
                        let open = &open;
                        move || open.insert(session(n), at(0)).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(open.len(), 8);
        for slot in &slots {
            assert_eq!(open.remove(slot), None);
        }
        assert!(open.is_empty());
    }
}
