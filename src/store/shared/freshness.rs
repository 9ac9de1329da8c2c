//! How fresh each table entry is relative to the shared store: when the store was last read for a session, and whether it
//! holds a record of it. Kept only where a store is shared.
//!
//! About 90 bytes a session. When full, the least recently used are dropped, which only costs another read of the store.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use crate::session::key::BuildKeyHasher;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;

/// Whether a table entry may be used without reading the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The store was read within `near_ttl`.
    Fresh,
    /// Older than that: to be used, and refreshed in the background.
    Stale {
        /// This caller is the one that refreshes it.
        fetch: bool,
        /// An announcement may have been missed. Otherwise the refresh only checks that none was, and can wait.
        urgent: bool,
    },
    /// The store was never read, or too long ago.
    Unknown,
}

/// What to do for a session that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreshnessCheck {
    pub(super) freshness: Freshness,
    /// This caller extends the lifetime of the store's record.
    pub(super) touch: bool,
    /// The store is known to hold a record.
    pub(super) stored: bool,
}

/// When the lifetime of the store's record is extended.
#[derive(Debug, Clone, Copy)]
pub(super) struct TouchPolicy {
    /// At most this often.
    pub(super) interval: Duration,
    /// Even without a known record: the store may hold session data.
    pub(super) without_record: bool,
}

struct Entry {
    /// When the store was last read or written for the session.
    synced: UnixMillis,
    /// When the lifetime of its record was last extended.
    touched: UnixMillis,
    /// The generation at `synced`.
    generation: u32,
    stored: bool,
    /// A refresh is under way.
    fetching: bool,
}

impl Entry {
    /// Whether the lifetime is due to be extended; if so, the caller does it.
    fn touch_if_due(&mut self, now: UnixMillis, TouchPolicy { interval, without_record }: TouchPolicy) -> bool {
        let due = (self.stored || without_record) && now.since(self.touched) >= interval;
        if due {
            self.touched = now;
        }
        due
    }
}

type Shard = Mutex<LruCache<SessionKey, Entry, BuildKeyHasher>>;

pub(super) struct FreshnessTable {
    shards: Box<[Shard]>,
    shard_capacity: usize,
    ttl: Duration,
    /// How long reads that can wait are gathered. Zero where that saves nothing.
    gathering: Duration,
    /// Incremented when announcements may have been missed. Relaxed: seeing it late only delays a read a little.
    generation: AtomicU32,
}

/// A power of two; each is locked for some fifty nanoseconds.
const SHARDS: usize = 256;

impl FreshnessTable {
    /// `gathers`: the refresh of an announced entry begins at half of `ttl`, and waits for others until `ttl`.
    pub(super) fn new(capacity: usize, ttl: Duration, gathers: bool) -> Self {
        let shard = || Mutex::new(LruCache::unbounded_with_hasher(BuildKeyHasher));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            shard_capacity: capacity.div_ceil(SHARDS).max(1),
            ttl,
            gathering: if gathers { ttl / 2 } else { Duration::ZERO },
            generation: AtomicU32::new(0),
        }
    }

    /// How long reads that can wait are gathered, if at all.
    pub(super) fn gathering(&self) -> Option<Duration> {
        Some(self.gathering).filter(|time| !time.is_zero())
    }

    /// For a request of this session. `announced` = every move is announced, so an entry of any age is correct unless an
    /// announcement was missed.
    pub(super) fn check(
        &self,
        key: &SessionKey,
        now: UnixMillis,
        policy: TouchPolicy,
        announced: bool,
    ) -> FreshnessCheck {
        let mut shard = self.shard(key).lock();
        let Some(entry) = shard.get_mut(key) else {
            return FreshnessCheck { freshness: Freshness::Unknown, touch: false, stored: false };
        };
        let nothing_missed = entry.generation == self.generation.load(Relaxed);
        let age = now.since(entry.synced);
        let urgent = !(announced && nothing_missed);
        let fresh_for = if urgent { self.ttl } else { self.ttl.saturating_sub(self.gathering) };
        let freshness = if nothing_missed && age < fresh_for {
            Freshness::Fresh
        } else if !urgent || age < self.ttl.saturating_mul(2) {
            let fetch = !entry.fetching;
            entry.fetching = true;
            Freshness::Stale { fetch, urgent }
        } else {
            Freshness::Unknown
        };
        FreshnessCheck { freshness, touch: entry.touch_if_due(now, policy), stored: entry.stored }
    }

    /// The same for a session that had no entry at [`check`](Self::check).
    pub(super) fn touch_if_due(&self, key: &SessionKey, now: UnixMillis, policy: TouchPolicy) -> bool {
        self.shard(key).lock().peek_mut(key).is_some_and(|entry| entry.touch_if_due(now, policy))
    }

    /// The session was written to the store.
    pub(super) fn record_write(&self, key: SessionKey, now: UnixMillis) {
        self.insert(key, Entry { touched: now, ..self.synced_entry(now, true) });
    }

    /// The session was read from the store. Returns whether a record was known before.
    pub(super) fn record_read(&self, key: SessionKey, now: UnixMillis, stored: bool) -> bool {
        self.insert(key, self.synced_entry(now, stored))
    }

    fn synced_entry(&self, now: UnixMillis, stored: bool) -> Entry {
        let generation = self.generation.load(Relaxed);
        Entry { synced: now, touched: UnixMillis(0), generation, stored, fetching: false }
    }

    fn insert(&self, key: SessionKey, entry: Entry) -> bool {
        let mut shard = self.shard(&key).lock();
        let Some(former) = shard.get_mut(&key) else {
            shard.put(key, entry);
            if shard.len() > self.shard_capacity {
                shard.pop_lru();
            }
            return false;
        };
        // A read does not extend any lifetime.
        let (was_stored, touched) = (former.stored, former.touched.max(entry.touched));
        *former = Entry { touched, ..entry };
        was_stored
    }

    /// Another proxy has announced a write.
    pub(super) fn record_announcement(&self, key: &SessionKey) {
        if let Some(entry) = self.shard(key).lock().peek_mut(key) {
            entry.stored = true;
        }
    }

    /// A refresh was not done: another request may try.
    pub(super) fn release_fetch(&self, key: &SessionKey) {
        if let Some(entry) = self.shard(key).lock().peek_mut(key) {
            entry.fetching = false;
        }
    }

    /// Whether the store is known to hold a record.
    pub(super) fn is_stored(&self, key: &SessionKey) -> bool {
        self.shard(key).lock().peek(key).is_some_and(|entry| entry.stored)
    }

    pub(super) fn remove(&self, key: &SessionKey) {
        self.shard(key).lock().pop(key);
    }

    /// Announcements may have been missed: no entry is fresh any more.
    pub(super) fn invalidate_all(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of the length, which is not zero")]
    fn shard(&self, key: &SessionKey) -> &Shard {
        // Keys are uniformly distributed; the map within a shard uses their lower half.
        let high = usize::try_from(key.0 >> 96).unwrap_or(0);
        &self.shards[high % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);
    const NEVER: TouchPolicy = TouchPolicy { interval: Duration::MAX, without_record: false };
    const KEY: SessionKey = SessionKey(7);

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis(1_790_000_000_000 + seconds * 1000)
    }

    fn freshness(table: &FreshnessTable, seconds: u64, announced: bool) -> Freshness {
        table.check(&KEY, at(seconds), NEVER, announced).freshness
    }

    #[test]
    fn an_entry_is_fresh_then_stale_then_unknown() {
        let table = FreshnessTable::new(100, TTL, false);
        assert_eq!(freshness(&table, 0, false), Freshness::Unknown);
        table.record_read(KEY, at(0), true);
        assert_eq!(freshness(&table, 9, false), Freshness::Fresh);
        assert_eq!(
            freshness(&table, 10, false),
            Freshness::Stale { fetch: true, urgent: true },
            "the first to find it stale fetches"
        );
        assert_eq!(freshness(&table, 10, false), Freshness::Stale { fetch: false, urgent: true }, "and no other");
        assert_eq!(freshness(&table, 20, false), Freshness::Unknown);
        table.record_read(KEY, at(20), true);
        assert_eq!(freshness(&table, 29, false), Freshness::Fresh);
    }

    #[test]
    fn a_fetch_that_failed_is_tried_by_another() {
        let table = FreshnessTable::new(100, TTL, false);
        table.record_read(KEY, at(0), true);
        assert_eq!(freshness(&table, 11, false), Freshness::Stale { fetch: true, urgent: true });
        table.release_fetch(&KEY);
        assert_eq!(freshness(&table, 12, false), Freshness::Stale { fetch: true, urgent: true });
    }

    #[test]
    fn where_moves_are_announced_an_old_entry_is_used_until_one_may_have_been_missed() {
        let table = FreshnessTable::new(100, TTL, false);
        table.record_read(KEY, at(0), true);
        assert_eq!(freshness(&table, 3600, true), Freshness::Stale { fetch: true, urgent: false });
        table.invalidate_all();
        assert_eq!(freshness(&table, 3600, true), Freshness::Unknown);
        table.record_read(KEY, at(3600), true);
        table.invalidate_all();
        let stale = Freshness::Stale { fetch: true, urgent: true };
        assert_eq!(freshness(&table, 3601, true), stale, "recent, but possibly outdated");
    }

    #[test]
    fn where_reads_are_gathered_they_are_done_when_an_entry_gets_old() {
        let table = FreshnessTable::new(100, TTL, true);
        table.record_read(KEY, at(0), true);
        assert_eq!(freshness(&table, 5, false), Freshness::Fresh, "without announcements a read cannot wait");
        assert_eq!(freshness(&table, 4, true), Freshness::Fresh);
        assert_eq!(freshness(&table, 5, true), Freshness::Stale { fetch: true, urgent: false });
        assert_eq!(table.gathering(), Some(TTL / 2));
    }

    #[test]
    fn a_record_is_touched_at_most_once_an_interval() {
        let table = FreshnessTable::new(100, TTL, false);
        let every_minute = |without_record| TouchPolicy { interval: Duration::from_secs(60), without_record };
        let touch = |seconds| table.check(&KEY, at(seconds), every_minute(false), true).touch;
        table.record_write(KEY, at(0));
        assert!(!touch(59));
        assert!(touch(60));
        assert!(!touch(61), "once");
        table.record_read(KEY, at(100), true);
        assert!(touch(120), "a read is no touch");
        table.record_read(KEY, at(121), false);
        assert!(!touch(1000), "there is no record to extend");
        assert!(table.check(&KEY, at(1000), every_minute(true), true).touch, "unless the store may hold its data");
        table.remove(&KEY);
        table.record_read(KEY, at(1000), true);
        assert!(touch(1000), "when it was last touched is unknown");
    }

    #[test]
    fn it_never_exceeds_its_capacity() {
        let table = FreshnessTable::new(1000, TTL, false);
        for n in 0..100_000_u128 {
            table.record_read(SessionKey(n << 96 | n), at(0), true);
        }
        let kept: usize = table.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!((900..=1024).contains(&kept), "{kept}");
    }
}
