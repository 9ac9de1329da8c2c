//! How sessions leave the table: by a visit that finds them expired, by the sweep, by a smaller capacity.

use std::collections::BinaryHeap;
use std::sync::atomic::Ordering::Relaxed;

use dashmap::SharedValue;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::EndReason;
use crate::store::TableLookup;
use crate::store::expiry::Tick;
use crate::store::local::table::Table;
use crate::store::local::table::expired;
use crate::store::local::table::record::Record;
use crate::store::local::table::shard::empty_like;
use crate::store::local::table::shard::is_roomy;
use crate::store::local::table::shard::move_into;

impl Table {
    /// Changes the capacity. If there are more sessions, the longest idle are evicted now: a tenth of a microsecond and
    /// temporarily four bytes each, so not on a thread that serves requests. The number of shards stays.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Relaxed);
        // Concurrent inserts and visits may leave a surplus, so repeat until there is none.
        for _ in 0..MAX_PASSES {
            let surplus = self.len().saturating_sub(self.capacity());
            let Some(until) = self.idle_since(surplus) else { break };
            // First the sessions seen before that, then as many as necessary of those seen at that tick.
            for until in [until.saturating_sub(1), until] {
                (0..self.shards()).for_each(|shard| self.evict_surplus(shard, until));
            }
        }
    }

    /// The last visit of the `count`th longest idle session. `None` for none.
    fn idle_since(&self, count: usize) -> Option<Tick> {
        let last = count.checked_sub(1)?;
        let mut seen = Vec::with_capacity(self.len());
        for shard in self.map.shards() {
            let count = shard.read().len();
            seen.reserve(count);
            seen.extend(shard.read().values().map(|record| record.get().last_seen()).take(count));
        }
        let last = last.min(seen.len().checked_sub(1)?);
        Some(*seen.select_nth_unstable(last).1)
    }

    /// Removes the expired sessions of the next shard, and frees the memory it no longer needs. Returns how many. To be called
    /// at the [`Table::pace`].
    pub fn sweep_step(&self, now: UnixMillis) -> usize {
        let now = self.ticks.at(now);
        let shards = self.map.shards();
        let index = self.sweep_next.fetch_add(1, Relaxed) % shards.len();
        let Some(shard) = shards.get(index) else { return 0 };
        // Scans under the read lock, which lets visits in, and then removes one by one, so no request waits for a whole shard.
        // Counts first, so that no memory is allocated under the lock.
        let over = |record: &Record| self.verdict(record, now).is_some();
        let count = {
            let shard = shard.read();
            let (mut count, mut first) = (0, None);
            for record in shard.values().map(SharedValue::get) {
                if over(record) {
                    count += 1;
                } else {
                    first = Some(first.map_or(record.last_seen(), |first: Tick| first.min(record.last_seen())));
                }
            }
            self.eviction.set(index, first);
            count
        };
        let mut due: Vec<SessionKey> = Vec::with_capacity(count);
        if count > 0 {
            let shard = shard.read();
            due.extend(shard.iter().filter(|(_, record)| over(record.get())).map(|(key, _)| *key).take(count));
        }
        let alive = |record: &Record| self.eviction.lower(index, record.last_seen());
        let left = due.iter().filter(|key| self.remove_if_expired(key, now, alive).is_some()).count();
        self.shrink(index);
        left
    }

    /// Frees the memory that a shard no longer needs: allocates before the lock and frees after it.
    fn shrink(&self, shard: usize) {
        let Some(shard) = self.map.shards().get(shard) else { return };
        let (len, mut smaller) = {
            let shard = shard.read();
            if !is_roomy(shard.len(), shard.capacity()) {
                return;
            }
            (shard.len(), empty_like(&*shard))
        };
        smaller.reserve(len + len / 2);
        let old = {
            let mut shard = shard.write();
            // Unless it would have to grow, after inserts meanwhile.
            if shard.len() > smaller.capacity() {
                smaller
            } else {
                move_into(smaller, &mut *shard, |from, to| to.extend(from.drain()))
            }
        };
        drop(old);
    }

    /// The lookup of a session that a visit found expired. It may have been inserted again since.
    #[cold]
    pub(super) fn expire(&self, key: &SessionKey, now: Tick) -> TableLookup {
        let mut found = TableLookup::Absent;
        let over = self.remove_if_expired(key, now, |record| {
            found = TableLookup::Live(self.entry(record));
            record.touch(now);
        });
        over.map_or(found, expired)
    }

    /// Removes an expired session and returns the reason; otherwise calls `alive`.
    fn remove_if_expired(&self, key: &SessionKey, now: Tick, alive: impl FnOnce(&Record)) -> Option<EndReason> {
        let mut over = None;
        let (_, record) = self.map.remove_if(key, |_, record| {
            over = self.verdict(record, now);
            if over.is_some() {
                self.forget(record.target);
            } else {
                alive(record);
            }
            over.is_some()
        })?;
        let reason = over?;
        self.report(&[(record.target, reason)]);
        Some(reason)
    }

    /// Evicts sessions of a shard that were last seen at `until` or before, as long as there are too many.
    fn evict_surplus(&self, shard: usize, until: Tick) {
        for idle in self.longest_idle(shard, |here| here, until) {
            if self.len() <= self.capacity() {
                self.eviction.lower(shard, idle.0);
            } else if self.evict(&idle) {
                self.count.0.fetch_sub(1, Relaxed);
            }
        }
    }

    /// The longest idle sessions of a shard, last seen at `until` or before: at most as many as `few` computes from its size.
    /// The index counts them as removed, so [`evict`](Self::evict) them.
    ///
    /// Scanned under the read lock, so some may have been visited by the time they are evicted.
    pub(super) fn longest_idle(&self, index: usize, few: impl FnOnce(usize) -> usize, until: Tick) -> Vec<Idle> {
        let Some(shard) = self.map.shards().get(index) else { return Vec::new() };
        let few = few(shard.read().len());
        // The latest is on top, to be replaced by a longer idle one. One more than needed: the first that stays.
        let mut longest = BinaryHeap::with_capacity(few + 1);
        let shard = shard.read();
        for (key, record) in shard.iter() {
            let idle = (record.get().last_seen(), *key);
            if longest.len() <= few {
                longest.push(idle);
            } else if let Some(mut latest) = longest.peek_mut()
                && idle < *latest
            {
                *latest = idle;
            }
        }
        let mut longest = longest.into_sorted_vec();
        let leave = longest.partition_point(|(last_seen, _)| *last_seen <= until).min(few);
        self.eviction.set(index, longest.get(leave).map(|(last_seen, _)| *last_seen));
        drop(shard);
        longest.truncate(leave);
        longest
    }

    /// Evicts a session, unless it was visited meanwhile. The caller uses or frees its capacity.
    pub(super) fn evict(&self, (last_seen, key): &Idle) -> bool {
        let removed = self.map.remove_if(key, |_, record| {
            let still_idle = record.last_seen() == *last_seen;
            if still_idle {
                self.count_out(record.target);
            } else {
                self.eviction.lower(self.map.determine_map(key), record.last_seen());
            }
            still_idle
        });
        if let Some((_, record)) = &removed {
            self.report(&[(record.target, EndReason::Evicted)]);
        }
        removed.is_some()
    }
}

/// A session with its last visit.
pub(super) type Idle = (Tick, SessionKey);

/// Passes over all shards, after which a remaining surplus is left to evictions by inserts.
const MAX_PASSES: usize = 64;
