//! How sessions leave the table: by a visit that finds them over, by the sweep, by a smaller capacity.

use std::sync::atomic::Ordering::Relaxed;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::EndReason;
use crate::store::Found;
use crate::store::expiry::Tick;
use crate::store::memory::Departed;
use crate::store::memory::Table;
use crate::store::memory::expired;
use crate::store::memory::record::Record;
use crate::store::memory::shard::is_roomy;
use crate::store::memory::shard::rebuild;

impl Table {
    /// Changes how many sessions there may be. If there are more, the longest idle leave now, shard by shard: a tenth
    /// of a microsecond each, so not for a thread that serves requests. Shards stay as many as they were made.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Relaxed);
        // Whoever comes meanwhile finds the table full and takes the place of another, perhaps in a shard that was
        // looked at already; so look again until nobody is over.
        for _ in 0..MOST_PASSES {
            let sessions = self.len();
            let surplus = sessions.saturating_sub(self.capacity());
            if surplus == 0 {
                break;
            }
            for shard in 0..self.shards() {
                self.evict_share(shard, surplus, sessions);
            }
        }
    }

    /// Looks at the next shard, and lets go who is beyond their limits and the memory they no longer need. Returns how
    /// many left. To be called at the [`Table::pace`] of the day.
    pub fn sweep_step(&self, now: UnixMillis) -> usize {
        let now = self.ticks.at(now);
        let shards = self.map.shards();
        let Some(shard) = shards.get(self.sweep_next.fetch_add(1, Relaxed) % shards.len()) else {
            return 0;
        };
        // Looks under the lock that lets visits in, and then removes one by one: nobody waits for a whole shard.
        let due: Vec<SessionKey> = {
            let shard = shard.read();
            let over = |record: &Record| self.verdict(record, now).is_some();
            shard.iter().filter(|(_, record)| over(record.get())).map(|(key, _)| *key).collect()
        };
        let left = due.iter().filter(|key| self.remove_if_over(key, now, |_| ()).is_some()).count();
        let roomy = {
            let shard = shard.read();
            is_roomy(shard.len(), shard.capacity())
        };
        if roomy {
            let mut shard = shard.write();
            let len = shard.len();
            rebuild(&mut *shard, |shard| shard.reserve(len + len / 2));
        }
        left
    }

    /// A visit found this session to be over: what is to be said of it. It may have come back to life since.
    #[cold]
    pub(super) fn expire(&self, key: &SessionKey, now: Tick) -> Found {
        let mut found = Found::Absent;
        let over = self.remove_if_over(key, now, |record| {
            found = Found::Live(self.known(record));
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
                self.forget(record.place);
            } else {
                alive(record);
            }
            over.is_some()
        })?;
        let reason = over?;
        self.report(&[(record.place, reason)]);
        Some(reason)
    }

    /// Evicts a shard's share of a surplus of sessions, the longest idle first, unless there is no surplus any more.
    fn evict_share(&self, shard: usize, surplus: usize, sessions: usize) {
        let Some(shard) = self.map.shards().get(shard) else { return };
        let mut departed = Departed::new();
        {
            let mut shard = shard.write();
            let left = self.len().saturating_sub(self.capacity());
            let quota = (shard.len() * surplus).div_ceil(sessions.max(1)).min(left);
            if quota == 0 {
                return;
            }
            let mut by_age: Vec<_> = shard.iter().map(|(key, record)| (record.get().last_seen(), *key)).collect();
            by_age.sort_unstable_by_key(|(last_seen, _)| *last_seen);
            for (_, key) in by_age.iter().take(quota) {
                if let Some(record) = shard.remove(key) {
                    let place = record.into_inner().place;
                    self.forget(place);
                    departed.push((place, EndReason::Evicted));
                }
            }
        }
        self.report(&departed);
    }
}

/// After so many passes over all shards whoever still is over the capacity is left to those who come.
const MOST_PASSES: usize = 64;
