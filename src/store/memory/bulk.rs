//! The whole table at once: copied shard by shard while requests go on, and put back before there are any.

use std::sync::atomic::Ordering::Relaxed;

use dashmap::SharedValue;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::Known;
use crate::store::memory::Table;
use crate::store::memory::record::Binding;
use crate::store::memory::record::Record;

impl Table {
    /// Appends the sessions of a shard, ended ones too, in no order. Under the lock that lets visits in, and for no longer
    /// than it takes to copy them: memory is asked for before.
    ///
    /// Who goes from key to key between two shards (a learned id, after keys were rotated) may be missed or seen twice.
    pub fn copy_shard(&self, shard: usize, into: &mut Vec<(SessionKey, Known)>) {
        let Some(shard) = self.map.shards().get(shard) else { return };
        let count = shard.read().len();
        into.reserve(count);
        let shard = shard.read();
        into.extend(shard.iter().map(|(key, record)| (*key, self.known(record.get()))).take(count));
    }

    /// Makes room for so many sessions, at most the capacity, so that shards need not grow while they are put back.
    pub fn reserve(&self, sessions: usize) {
        let shards = self.map.shards();
        let each = sessions.min(self.capacity()).div_ceil(shards.len().max(1));
        for shard in shards {
            let mut shard = shard.write();
            let missing = each.saturating_sub(shard.len());
            shard.reserve(missing);
        }
    }

    /// Puts a session back as it was; of two with one key the higher epoch stays, then the later visit. Says whether it is
    /// in: not when it is beyond its limits `now`, and not when the table is full, since nobody goes for it.
    ///
    /// Times from the future count as `now`: a clock that was set back must not make sessions immortal.
    pub fn put_back(&self, key: SessionKey, known: &Known, now: UnixMillis) -> bool {
        let created = self.ticks.at(known.created.min(now));
        let last_seen = self.ticks.at(known.last_seen.min(now));
        let record = Record::new(Binding { place: known.place, epoch: known.epoch, created }, last_seen);
        if self.places.at(known.place).is_none() || self.verdict(&record, self.ticks.at(now)).is_some() {
            return false;
        }
        let Some(shard) = self.map.shards().get(self.map.determine_map(&key)) else { return false };
        let mut shard = shard.write();
        if let Some(there) = shard.get_mut(&key) {
            let there = there.get_mut();
            if (there.epoch, there.last_seen()) < (record.epoch, record.last_seen()) {
                self.left(there.place);
                self.arrived(record.place);
                *there = record;
            }
            return true;
        }
        let capacity = self.capacity();
        if self.count.0.fetch_update(Relaxed, Relaxed, |count| (count < capacity).then_some(count + 1)).is_err() {
            return false;
        }
        shard.insert(key, SharedValue::new(record));
        self.arrived(known.place);
        true
    }

    /// Empties the table and tells nobody: what was in it was not to be believed.
    pub fn forget_all(&self) {
        for shard in self.map.shards() {
            for (_, record) in shard.write().drain() {
                self.forget(record.get().place);
            }
        }
    }
}
