//! How sessions leave the table: by a visit that finds them over, by the sweep, by a smaller capacity.

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
    /// Changes how many sessions there may be. If there are more, the longest idle leave now: a tenth of a microsecond and,
    /// while it lasts, four bytes each, so not for a thread that serves requests. Shards stay as many as they were made.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Relaxed);
        // Whoever comes or is visited meanwhile may keep somebody here; so look again until nobody is over.
        for _ in 0..MOST_PASSES {
            let surplus = self.len().saturating_sub(self.capacity());
            let Some(until) = self.idle_since(surplus) else { break };
            // First whoever was seen before that, then as many as need be of those who were seen just then.
            for until in [until.saturating_sub(1), until] {
                (0..self.shards()).for_each(|shard| self.evict_surplus(shard, until));
            }
        }
    }

    /// Since when the least idle is, of so many who have been idle the longest. `None` for none.
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

    /// Looks at the next shard, and lets go who is beyond their limits and the memory they no longer need. Returns how
    /// many left. To be called at the [`Table::pace`] of the day.
    pub fn sweep_step(&self, now: UnixMillis) -> usize {
        let now = self.ticks.at(now);
        let shards = self.map.shards();
        let index = self.sweep_next.fetch_add(1, Relaxed) % shards.len();
        let Some(shard) = shards.get(index) else { return 0 };
        // Looks under the lock that lets visits in, and then removes one by one: nobody waits for a whole shard. Counts
        // first, so that no memory is asked for under the lock.
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
        let left = due.iter().filter(|key| self.remove_if_over(key, now, alive).is_some()).count();
        self.shrink(index);
        left
    }

    /// Gives back the memory that a shard no longer needs. The new is taken before and the old given back after the lock.
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
            // Unless so many came meanwhile that it would have to grow.
            if shard.len() > smaller.capacity() {
                smaller
            } else {
                move_into(smaller, &mut *shard, |from, to| to.extend(from.drain()))
            }
        };
        drop(old);
    }

    /// A visit found this session to be over: what is to be said of it. It may have come back to life since.
    #[cold]
    pub(super) fn expire(&self, key: &SessionKey, now: Tick) -> TableLookup {
        let mut found = TableLookup::Absent;
        let over = self.remove_if_over(key, now, |record| {
            found = TableLookup::Live(self.entry(record));
            record.touch(now);
        });
        over.map_or(found, expired)
    }

    /// Removes a session that is beyond its limits, and says by which; one that is not is shown to `alive`.
    fn remove_if_over(&self, key: &SessionKey, now: Tick, alive: impl FnOnce(&Record)) -> Option<EndReason> {
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

    /// Evicts those of a shard who were last seen `until` then, as long as there are too many.
    fn evict_surplus(&self, shard: usize, until: Tick) {
        for idle in self.longest_idle(shard, |here| here, until) {
            if self.len() <= self.capacity() {
                self.eviction.lower(shard, idle.0);
            } else if self.evict(&idle) {
                self.count.0.fetch_sub(1, Relaxed);
            }
        }
    }

    /// Those of a shard who have been idle the longest: as many as `few` makes of how many there are, and of them who was
    /// last seen `until` then. For the others' sake they count as gone, so [`evict`](Self::evict) them.
    ///
    /// Read under the lock that lets visits in, so by the time it is used some may have come back.
    pub(super) fn longest_idle(&self, index: usize, few: impl FnOnce(usize) -> usize, until: Tick) -> Vec<Idle> {
        let Some(shard) = self.map.shards().get(index) else { return Vec::new() };
        let few = few(shard.read().len());
        // The latest of them on top, to give way to one who is idle for longer. And one more: the first of those who stay.
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

    /// Sends a session away, unless it came back meanwhile. Its room is the caller's, to give to another or to free.
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

/// A session and when it was last here.
pub(super) type Idle = (Tick, SessionKey);

/// After so many passes over all shards whoever still is over the capacity is left to those who come.
const MOST_PASSES: usize = 64;
