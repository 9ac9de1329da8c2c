//! The whole table at once: copied shard by shard while requests go on, and put back before there are any.

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
    /// Appends the sessions of a shard, ended ones too, in no order. Under the lock that lets visits in, and for no longer
    /// than it takes to copy them: memory is asked for before.
    ///
    /// Who goes from key to key between two shards (a learned id, after keys were rotated) may be missed or seen twice.
    pub fn copy_shard(&self, shard: usize, into: &mut Vec<(SessionKey, TableEntry)>) {
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

    /// Puts sessions back as they were; of two with one key the higher epoch stays, then the later visit. Returns how many
    /// of them are in: not who is beyond the limits `now`, and when the table is full nobody, since nobody goes for them.
    ///
    /// Times from the future count as `now`: a clock that was set back must not make sessions immortal.
    ///
    /// A shard stays locked for as long as sessions of it come, so in the order in which they were copied they cost the
    /// least; and nobody may wait for one.
    pub fn import(&self, sessions: impl Iterator<Item = (SessionKey, TableEntry)>, now: UnixMillis) -> u64 {
        let now = self.ticks.at(now);
        let (mut locked, mut back) = (None, 0);
        for (key, known) in sessions {
            let home = self.map.determine_map(&key);
            if locked.as_ref().is_none_or(|(at, _)| *at != home) {
                // The former one first: nobody has two.
                drop(locked.take());
                locked = self.map.shards().get(home).map(|shard| (home, shard.write()));
            }
            let Some(((_, shard), record)) = locked.as_mut().zip(self.as_it_was(&known, now)) else { continue };
            if let Some(there) = shard.get_mut(&key) {
                self.eviction.lower(home, record.last_seen());
                self.replace_older(there.get_mut(), record);
            } else if self.take_room() {
                self.eviction.lower(home, record.last_seen());
                shard.insert(key, SharedValue::new(record));
                self.arrived(known.target);
            } else {
                continue;
            }
            back += 1;
        }
        back
    }

    /// `None` when the session is over.
    fn as_it_was(&self, known: &TableEntry, now: Tick) -> Option<Record> {
        let created = self.ticks.at(known.created).min(now);
        let last_seen = self.ticks.at(known.last_seen).min(now);
        let record = Record::new(Binding { target: known.target, epoch: known.epoch, created }, last_seen);
        let target = self.targets.at(known.target)?;
        target.limits.verdict(created, last_seen, now).is_none().then_some(record)
    }

    fn replace_older(&self, there: &mut Record, record: Record) {
        if (there.epoch, there.last_seen()) < (record.epoch, record.last_seen()) {
            self.left(there.target);
            self.arrived(record.target);
            *there = record;
        }
    }

    /// Empties the table and tells nobody: what was in it was not to be believed.
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
