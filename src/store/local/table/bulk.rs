//! The whole table: copied shard by shard while requests go on, and imported before there are any.

use std::mem::replace;

use dashmap::SharedValue;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::expiry::Tick;
use crate::store::local::table::Table;
use crate::store::local::table::record::Binding;
use crate::store::local::table::record::Record;
use crate::store::local::table::shard::empty_like;

impl Table {
    /// Appends the sessions of a shard, tombstones included, in no order. Holds a read lock only while copying: memory is
    /// reserved before, and again when too many sessions were added meanwhile.
    ///
    /// A session that moves to another key between two shards (a learned id, after a key rotation) may be missed or copied
    /// twice.
    pub fn copy_shard(&self, shard: usize, into: &mut Vec<(SessionKey, TableEntry)>) {
        let Some(shard) = self.map.shards().get(shard) else { return };
        loop {
            let count = shard.read().len();
            into.reserve(count + count / 8 + 8);
            let shard = shard.read();
            if shard.len() <= into.capacity() - into.len() {
                into.extend(shard.iter().map(|(key, record)| (*key, self.entry(record.get()))));
                return;
            }
        }
    }

    /// Reserves memory for so many sessions, at most the capacity, so that shards do not grow during an import.
    pub fn reserve(&self, sessions: usize) {
        let shards = self.map.shards();
        let each = sessions.min(self.capacity()).div_ceil(shards.len().max(1));
        for shard in shards {
            let mut shard = shard.write();
            let missing = each.saturating_sub(shard.len());
            shard.reserve(missing);
        }
    }

    /// Imports sessions; of two with one key the higher epoch stays, then the later visit. Returns how many were imported:
    /// not those beyond their limits `now`, and none above the capacity, since nothing is evicted for them.
    ///
    /// Times in the future count as `now`: a clock that was set back must not make sessions immortal.
    ///
    /// A shard stays locked while consecutive sessions belong to it, so the order in which they were copied is the fastest.
    pub fn import(&self, sessions: impl Iterator<Item = (SessionKey, TableEntry)>, now: UnixMillis) -> u64 {
        let now = self.ticks.at(now);
        let (mut locked, mut imported) = (None, 0);
        for (key, entry) in sessions {
            let home = self.map.determine_map(&key);
            if locked.as_ref().is_none_or(|(at, _)| *at != home) {
                // Released first: two shards are never locked at once.
                drop(locked.take());
                locked = self.map.shards().get(home).map(|shard| (home, shard.write()));
            }
            let Some(((_, shard), record)) = locked.as_mut().zip(self.record_of(&entry, now)) else { continue };
            if let Some(existing) = shard.get_mut(&key) {
                self.eviction.lower(home, record.last_seen());
                self.replace_older(existing.get_mut(), record);
            } else if self.take_room() {
                self.eviction.lower(home, record.last_seen());
                shard.insert(key, SharedValue::new(record));
                self.count_in(entry.target);
            } else {
                continue;
            }
            imported += 1;
        }
        imported
    }

    /// `None` when the session has expired.
    fn record_of(&self, entry: &TableEntry, now: Tick) -> Option<Record> {
        let created = self.ticks.at(entry.created).min(now);
        let last_seen = self.ticks.at(entry.last_seen).min(now);
        let record = Record::new(Binding { target: entry.target, epoch: entry.epoch, created }, last_seen);
        let target = self.targets.at(entry.target)?;
        target.limits.verdict(created, last_seen, now).is_none().then_some(record)
    }

    fn replace_older(&self, existing: &mut Record, record: Record) {
        if (existing.epoch, existing.last_seen()) < (record.epoch, record.last_seen()) {
            self.count_out(existing.target);
            self.count_in(record.target);
            *existing = record;
        }
    }

    /// Removes all sessions without reporting their end.
    pub fn clear(&self) {
        for (index, shard) in self.map.shards().iter().enumerate() {
            let mut shard = shard.write();
            self.eviction.set(index, None);
            let none = empty_like(&*shard);
            for (_, record) in replace(&mut *shard, none) {
                self.forget(record.get().target);
            }
        }
    }
}
