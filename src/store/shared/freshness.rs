//! What is known of how well the table knows the store: when the store was last asked for a session, and whether it keeps
//! one. The session itself is in the table; this is beside it, and only where a store is shared.
//!
//! About 90 bytes a session. It forgets the longest idle when it is full, and nothing is lost by that but a question to
//! the store.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use crate::session::key::BuildKeyHasher;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;

/// Whether what the table says of a session may be used without asking the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The store was asked within `near_ttl`.
    Fresh,
    /// It was asked before that: to be used, and to be asked for anew behind the request.
    Stale {
        /// This caller is the one that asks.
        fetch: bool,
    },
    /// The store was never asked, or too long ago.
    Unknown,
}

/// What there is to do for a session that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) freshness: Freshness,
    /// What the store keeps of it is to live longer, and this caller says so.
    pub(super) touch: bool,
    /// The store is known to keep a record of it.
    pub(super) stored: bool,
}

/// One session.
struct Copied {
    /// When the store was asked for it, or told of it.
    asked: UnixMillis,
    /// When the store was last told that it was here.
    touched: UnixMillis,
    /// The generation in which it was asked.
    generation: u32,
    /// The store keeps a record of it.
    stored: bool,
    /// Somebody asks the store anew.
    fetching: bool,
}

/// When the store is to be told that a session was here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touch {
    /// No more often than this.
    pub(super) every: Duration,
    /// Also when the store keeps no record of it: it may keep its data.
    pub(super) anyway: bool,
}

impl Copied {
    /// Whether it is time to tell the store that it was here, and the caller does.
    fn touch(&mut self, now: UnixMillis, Touch { every, anyway }: Touch) -> bool {
        let touch = (self.stored || anyway) && now.since(self.touched) >= every;
        if touch {
            self.touched = now;
        }
        touch
    }
}

/// All sessions that the store was asked for. Share it by reference.
pub(super) struct Near {
    shards: Box<[Mutex<LruCache<SessionKey, Copied, BuildKeyHasher>>]>,
    /// Most sessions of one shard.
    share: usize,
    ttl: Duration,
    /// Raised when announcements may have been missed. Relaxed: who sees it late asks a little later.
    generation: AtomicU32,
}

/// A power of two; each is held for some fifty nanoseconds.
const SHARDS: usize = 256;

impl Near {
    pub(super) fn new(most: usize, ttl: Duration) -> Self {
        let shard = || Mutex::new(LruCache::unbounded_with_hasher(BuildKeyHasher));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            share: most.div_ceil(SHARDS).max(1),
            ttl,
            generation: AtomicU32::new(0),
        }
    }

    /// A request of this session came in. `announced` says that every move is announced, so that a copy is right however
    /// old it is, as long as nothing was missed.
    pub(super) fn look(&self, key: &SessionKey, now: UnixMillis, touch: Touch, announced: bool) -> Look {
        let mut shard = self.shard(key).lock();
        let Some(copied) = shard.get_mut(key) else {
            return Look { freshness: Freshness::Unknown, touch: false, stored: false };
        };
        let nothing_missed = copied.generation == self.generation.load(Relaxed);
        let age = now.since(copied.asked);
        let freshness = if nothing_missed && age < self.ttl {
            Freshness::Fresh
        } else if (announced && nothing_missed) || age < self.ttl.saturating_mul(2) {
            let fetch = !copied.fetching;
            copied.fetching = true;
            Freshness::Stale { fetch }
        } else {
            Freshness::Unknown
        };
        Look { freshness, touch: copied.touch(now, touch), stored: copied.stored }
    }

    /// The request at hand was not known of when it came, see [`look`](Self::look).
    pub(super) fn touch(&self, key: &SessionKey, now: UnixMillis, touch: Touch) -> bool {
        self.shard(key).lock().peek_mut(key).is_some_and(|copied| copied.touch(now, touch))
    }

    /// The store was told what stands.
    pub(super) fn told(&self, key: SessionKey, now: UnixMillis) {
        self.remember(key, Copied { touched: now, ..self.copied(now, true) });
    }

    /// The store was asked. Returns whether it was known to keep a record before.
    pub(super) fn note(&self, key: SessionKey, now: UnixMillis, stored: bool) -> bool {
        self.remember(key, self.copied(now, stored))
    }

    /// Asked for now; nobody knows when the store was told that it was here.
    fn copied(&self, now: UnixMillis, stored: bool) -> Copied {
        let generation = self.generation.load(Relaxed);
        Copied { asked: now, touched: UnixMillis(0), generation, stored, fetching: false }
    }

    fn remember(&self, key: SessionKey, copied: Copied) -> bool {
        let mut shard = self.shard(&key).lock();
        let Some(former) = shard.get_mut(&key) else {
            shard.put(key, copied);
            if shard.len() > self.share {
                shard.pop_lru();
            }
            return false;
        };
        // Asking renews nothing in the store.
        let (was_stored, touched) = (former.stored, former.touched.max(copied.touched));
        *former = Copied { touched, ..copied };
        was_stored
    }

    /// Another proxy has told the store.
    pub(super) fn heard(&self, key: &SessionKey) {
        if let Some(copied) = self.shard(key).lock().peek_mut(key) {
            copied.stored = true;
        }
    }

    /// The store was to be asked anew and did not answer: somebody else may try.
    pub(super) fn not_asked(&self, key: &SessionKey) {
        if let Some(copied) = self.shard(key).lock().peek_mut(key) {
            copied.fetching = false;
        }
    }

    /// Whether the store is known to keep a record of it.
    pub(super) fn is_stored(&self, key: &SessionKey) -> bool {
        self.shard(key).lock().peek(key).is_some_and(|copied| copied.stored)
    }

    /// Nothing is known of it any more.
    pub(super) fn forget(&self, key: &SessionKey) {
        self.shard(key).lock().pop(key);
    }

    /// Announcements may have been missed: every copy is old.
    pub(super) fn missed_announcements(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of the length, which is not zero")]
    fn shard(&self, key: &SessionKey) -> &Mutex<LruCache<SessionKey, Copied, BuildKeyHasher>> {
        // Keys are as good as random; the map within a shard goes by their lower half.
        let high = usize::try_from(key.0 >> 96).unwrap_or(0);
        &self.shards[high % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);
    const NEVER: Touch = Touch { every: Duration::MAX, anyway: false };
    const KEY: SessionKey = SessionKey(7);

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis(1_790_000_000_000 + seconds * 1000)
    }

    fn freshness(near: &Near, seconds: u64, announced: bool) -> Freshness {
        near.look(&KEY, at(seconds), NEVER, announced).freshness
    }

    #[test]
    fn a_copy_is_used_then_used_while_it_is_fetched_then_asked_for() {
        let near = Near::new(100, TTL);
        assert_eq!(freshness(&near, 0, false), Freshness::Unknown);
        near.note(KEY, at(0), true);
        assert_eq!(freshness(&near, 9, false), Freshness::Fresh);
        assert_eq!(freshness(&near, 10, false), Freshness::Stale { fetch: true }, "the first to find it old fetches");
        assert_eq!(freshness(&near, 10, false), Freshness::Stale { fetch: false }, "and nobody else");
        assert_eq!(freshness(&near, 20, false), Freshness::Unknown);
        near.note(KEY, at(20), true);
        assert_eq!(freshness(&near, 29, false), Freshness::Fresh);
    }

    #[test]
    fn a_fetch_that_failed_is_tried_by_another() {
        let near = Near::new(100, TTL);
        near.note(KEY, at(0), true);
        assert_eq!(freshness(&near, 11, false), Freshness::Stale { fetch: true });
        near.not_asked(&KEY);
        assert_eq!(freshness(&near, 12, false), Freshness::Stale { fetch: true });
    }

    #[test]
    fn where_moves_are_announced_an_old_copy_is_used_until_one_may_have_been_missed() {
        let near = Near::new(100, TTL);
        near.note(KEY, at(0), true);
        assert_eq!(freshness(&near, 3600, true), Freshness::Stale { fetch: true });
        near.missed_announcements();
        assert_eq!(freshness(&near, 3600, true), Freshness::Unknown);
        near.note(KEY, at(3600), true);
        near.missed_announcements();
        assert_eq!(freshness(&near, 3601, true), Freshness::Stale { fetch: true }, "young, but not to be trusted");
    }

    #[test]
    fn the_store_is_told_of_visits_now_and_then() {
        let near = Near::new(100, TTL);
        let often = |anyway| Touch { every: Duration::from_secs(60), anyway };
        let touch = |seconds| near.look(&KEY, at(seconds), often(false), true).touch;
        near.told(KEY, at(0));
        assert!(!touch(59));
        assert!(touch(60));
        assert!(!touch(61), "once");
        near.note(KEY, at(100), true);
        assert!(touch(120), "asking is no visit");
        near.note(KEY, at(121), false);
        assert!(!touch(1000), "what the store does not keep need not live longer");
        assert!(near.look(&KEY, at(1000), often(true), true).touch, "unless it may keep its data");
        near.forget(&KEY);
        near.note(KEY, at(1000), true);
        assert!(touch(1000), "nobody knows when it was last told");
    }

    #[test]
    fn it_never_remembers_more_than_it_may() {
        let near = Near::new(1000, TTL);
        for n in 0..100_000_u128 {
            near.note(SessionKey(n << 96 | n), at(0), true);
        }
        let kept: usize = near.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!((900..=1024).contains(&kept), "{kept}");
    }
}
