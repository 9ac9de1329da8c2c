//! Insertion, and eviction when the table is full.

use std::sync::atomic::Ordering::Relaxed;
use std::thread::yield_now;

use dashmap::SharedValue;

use crate::session::key::SessionKey;
use crate::store::TableEntry;
use crate::store::expiry::Tick;
use crate::store::local::table::EndedSessions;
use crate::store::local::table::Table;
use crate::store::local::table::eviction::SAMPLE;
use crate::store::local::table::record::Binding;
use crate::store::local::table::record::Record;
use crate::store::local::table::shard::empty_like;
use crate::store::local::table::shard::move_into;
use crate::store::local::table::shard::room_for_one_more;

impl Table {
    /// Inserts a session, or lets `merge` change the existing one and returns the result. In both cases its last visit is
    /// `now`. A session beyond its limits counts as absent, whether it has been swept or not.
    pub(super) fn upsert(
        &self,
        key: SessionKey,
        binding: Binding,
        now: Tick,
        mut merge: impl FnMut(&mut Record),
    ) -> Option<TableEntry> {
        let mut ended_sessions = EndedSessions::new();
        let mut merge_existing = |record: &mut Record| {
            let was_seen = self.ticks.millis(record.last_seen());
            if let Some(reason) = self.verdict(record, now) {
                ended_sessions.push((record.target, reason));
                self.bind_to(record, binding);
                record.reset_last_seen(now);
                self.eviction.lower(self.map.determine_map(&key), now);
                None
            } else {
                record.touch(now);
                merge(record);
                Some(TableEntry { last_seen: was_seen, ..self.entry(record) })
            }
        };
        // The guard is released with this line; the next steps lock again.
        let existing = self.map.get_mut(&key).map(|mut record| merge_existing(&mut record));
        let result = existing.unwrap_or_else(|| self.insert(key, binding, now, merge_existing));
        self.report(&ended_sessions);
        result
    }

    /// Inserts a session that was absent; if it is present by now, calls `merge_existing`.
    ///
    /// With a capacity of zero, the session is not inserted.
    fn insert(
        &self,
        key: SessionKey,
        binding: Binding,
        now: Tick,
        mut merge_existing: impl FnMut(&mut Record) -> Option<TableEntry>,
    ) -> Option<TableEntry> {
        let home = self.map.determine_map(&key);
        // Before the shard is locked: the evicted session may be in another one, and two inserts must not deadlock.
        if !self.make_room(&key, home, now) {
            return None;
        }
        let shard = self.map.shards().get(home)?;
        // Memory for a full shard, neither allocated nor freed under the lock: an allocator may take milliseconds.
        let mut spare = None;
        loop {
            let mut shard = shard.write();
            if let Some(record) = shard.get_mut(&key) {
                self.count.0.fetch_sub(1, Relaxed);
                return merge_existing(record.get_mut());
            }
            let len = shard.len();
            let mut emptied = None;
            if len == shard.capacity() {
                let mut larger = spare.take().unwrap_or_else(|| empty_like(&*shard));
                if larger.capacity() <= len {
                    drop(shard);
                    larger.reserve(room_for_one_more(len));
                    spare = Some(larger);
                    continue;
                }
                emptied = Some(move_into(larger, &mut *shard, |from, to| to.extend(from.drain())));
            }
            shard.insert(key, SharedValue::new(Record::new(binding, now)));
            self.eviction.lower(home, now);
            self.count_in(binding.target);
            drop(shard);
            drop(emptied);
            return None;
        }
    }

    /// Reserves capacity for one session, by an eviction when there is none.
    fn make_room(&self, key: &SessionKey, home: usize, now: Tick) -> bool {
        for _ in 0..MAX_ATTEMPTS {
            if self.reserve_one() {
                return true;
            }
            if self.capacity() == 0 {
                break;
            }
            if self.evict_longest_idle(key, home, now) {
                return true;
            }
            // Full of reservations: their inserts are a few instructions from done.
            yield_now();
        }
        false
    }

    /// Reserves capacity for one session, if there is any.
    pub(super) fn reserve_one(&self) -> bool {
        let capacity = self.capacity();
        self.count.0.fetch_update(Relaxed, Relaxed, |count| (count < capacity).then_some(count + 1)).is_ok()
    }

    /// Evicts the longest idle session, from the shard that seems to have it, and reserves its room for `key`; false when there
    /// was none. If all of that shard have been visited meanwhile, tries another one.
    fn evict_longest_idle(&self, key: &SessionKey, home: usize, now: Tick) -> bool {
        let [.., high, low] = key.to_bytes();
        let step = usize::from(u16::from_be_bytes([high, low]));
        let each = self.capacity() / self.shards() + 1;
        for _ in 0..(MAX_READ / each).clamp(1, SAMPLE) {
            let Some((shard, since)) = self.eviction.longest_idle(home, step) else { return false };
            let nearly_as_long = since + now.saturating_sub(since) / NEARLY;
            if self.evict_from(shard, MAX_EVICTED, nearly_as_long) {
                return true;
            }
        }
        self.eviction.longest_idle(home, step).is_some_and(|(shard, _)| self.evict_from(shard, 1, Tick::MAX))
    }

    /// Evicts the longest idle session of a shard, of those last seen at `until` or before.
    ///
    /// Finding it reads the whole shard, so a large shard evicts a few more in the same pass, at most `most`: the next inserts
    /// find free capacity, and in a flood each costs a fraction of a pass.
    fn evict_from(&self, shard: usize, most: usize, until: Tick) -> bool {
        let mut kept = false;
        for idle in self.longest_idle(shard, |sessions| (sessions / ONE_IN).clamp(1, most), until) {
            let evicted = self.evict(&idle);
            if evicted && kept {
                self.count.0.fetch_sub(1, Relaxed);
            }
            kept |= evicted;
        }
        kept
    }
}

/// Attempts of an insert into a full table. Only a table of very few sessions can exceed it.
const MAX_ATTEMPTS: usize = 64;
/// One session is evicted for this many in the shard: of a small shard only the longest idle.
const ONE_IN: usize = 64;
/// More at once saves little, and leaves the table emptier than necessary.
const MAX_EVICTED: usize = 16;
/// Sessions idle for seven eighths as long as the longest idle may be evicted with it: enough for a flood, and too few to
/// include sessions in use.
const NEARLY: u32 = 8;
/// Sessions read for one insert, some 100 µs, before one is evicted although others may have been idle for longer. Rare,
/// since every sweep corrects the index.
const MAX_READ: usize = 16_384;
