//! How sessions come into the table, and who goes for them when it is full.

use std::sync::atomic::Ordering::Relaxed;
use std::thread::yield_now;

use dashmap::SharedValue;

use crate::session::key::SessionKey;
use crate::store::TableEntry;
use crate::store::expiry::Tick;
use crate::store::local::table::EndedSessions;
use crate::store::local::table::Table;
use crate::store::local::table::eviction::ASKED;
use crate::store::local::table::record::Binding;
use crate::store::local::table::record::Record;
use crate::store::local::table::shard::empty_like;
use crate::store::local::table::shard::move_into;
use crate::store::local::table::shard::room_for_one_more;

impl Table {
    /// Puts a session in, or, if it is there, lets `merge` change it and returns what then stands. In both cases it was
    /// here `now`. A session beyond its limits is as good as absent, whether the sweep has come by or not.
    pub(super) fn upsert(
        &self,
        key: SessionKey,
        binding: Binding,
        now: Tick,
        mut merge: impl FnMut(&mut Record),
    ) -> Option<TableEntry> {
        let mut ended_sessions = EndedSessions::new();
        let mut met = |record: &mut Record| {
            let was_seen = self.ticks.millis(record.last_seen());
            if let Some(reason) = self.verdict(record, now) {
                ended_sessions.push((record.target, reason));
                self.bind_to(record, binding);
                record.seen_first(now);
                self.eviction.lower(self.map.determine_map(&key), now);
                None
            } else {
                record.touch(now);
                merge(record);
                Some(TableEntry { last_seen: was_seen, ..self.entry(record) })
            }
        };
        // The guard ends with this line; the next steps lock again.
        let known_already = self.map.get_mut(&key).map(|mut record| met(&mut record));
        let stands = known_already.unwrap_or_else(|| self.admit(key, binding, now, met));
        self.report(&ended_sessions);
        stands
    }

    /// Puts a session in that was not there when last looked; if it is there now, it is `met`.
    ///
    /// In a table without room for a single one (a capacity of zero) the newcomer is not kept.
    fn admit(
        &self,
        key: SessionKey,
        binding: Binding,
        now: Tick,
        mut met: impl FnMut(&mut Record) -> Option<TableEntry>,
    ) -> Option<TableEntry> {
        let home = self.map.determine_map(&key);
        // Before the shard is locked: who goes may be in another one, and two newcomers must not wait for each other.
        if !self.make_room(&key, home, now) {
            return None;
        }
        let shard = self.map.shards().get(home)?;
        // New memory for a full shard. Neither is it taken nor the old given back under the lock: allocators tidy up when
        // they are asked, and that can take milliseconds.
        let mut spare = None;
        loop {
            let mut shard = shard.write();
            if let Some(record) = shard.get_mut(&key) {
                self.count.0.fetch_sub(1, Relaxed);
                return met(record.get_mut());
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

    /// Takes room for one session out of the capacity; when it is used up, out of the place of the longest idle.
    fn make_room(&self, key: &SessionKey, home: usize, now: Tick) -> bool {
        for _ in 0..MOST_TRIES {
            if self.take_room() {
                return true;
            }
            if self.capacity() == 0 {
                break;
            }
            if self.evict_longest_idle(key, home, now) {
                return true;
            }
            // Full of sessions that are not in yet: those who bring them are a few instructions from done.
            yield_now();
        }
        false
    }

    /// Takes room for one session out of the capacity, if there is any.
    pub(super) fn take_room(&self) -> bool {
        let capacity = self.capacity();
        self.count.0.fetch_update(Relaxed, Relaxed, |count| (count < capacity).then_some(count + 1)).is_ok()
    }

    /// Takes the longest idle session out of the shard that seems to have it, and keeps its room for `key`; whether there was
    /// one. If all there have been visited since, another shard seems to have it.
    fn evict_longest_idle(&self, key: &SessionKey, home: usize, now: Tick) -> bool {
        let [.., high, low] = key.to_bytes();
        let step = usize::from(u16::from_be_bytes([high, low]));
        let each = self.capacity() / self.shards() + 1;
        for _ in 0..(MOST_READ / each).clamp(1, ASKED) {
            let Some((shard, since)) = self.eviction.longest_idle(home, step) else { return false };
            let nearly_as_long = since + now.saturating_sub(since) / NEARLY;
            if self.evict_from(shard, MOST_AT_ONCE, nearly_as_long) {
                return true;
            }
        }
        self.eviction.longest_idle(home, step).is_some_and(|(shard, _)| self.evict_from(shard, 1, Tick::MAX))
    }

    /// Takes the longest idle session out of a shard, of those who were last seen `until` then.
    ///
    /// To find it all of the shard is read, so a large shard lets a few more go in the same pass, at `most` so many:
    /// newcomers find their room free for the next few times, and a flood costs each of them a fraction of a pass.
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

/// A newcomer to a full table gives up after so many tries: it can happen only to a table of very few sessions.
const MOST_TRIES: usize = 64;
/// Of so many sessions in a shard one goes when room is needed: the longest idle of a small shard and nobody else.
const ONE_IN: usize = 64;
/// More at once save little, and leave the table emptier than it need be.
const MOST_AT_ONCE: usize = 16;
/// Who has been idle for seven eighths as long as the longest idle may go with it: enough to fill a pass of a flood, and too
/// few to meet those who keep coming back.
const NEARLY: u32 = 8;
/// For one newcomer about so many sessions are looked at, some 100 µs, before somebody goes although others may have been
/// idle for longer. Rare, since every sweep finds out again since when those of each shard are idle.
const MOST_READ: usize = 16_384;
