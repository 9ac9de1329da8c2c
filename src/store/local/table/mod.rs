//! The table of sessions in this process: who is bound where, in 32 bytes a session.
//!
//! A `dashmap` of many small shards, so that whatever locks one (to expire, to evict, to grow) holds up only the few
//! requests whose sessions are in it, and only for microseconds. A visit takes its shard's *read* lock and touches by
//! an atomic in the record, so visits do not hold up each other. No guard leaves this folder: answers are copies.
//!
//! What it promises: never more sessions than its capacity; no answer about a session beyond its limits; an epoch never
//! falls while a session lives. What it does not: to remember. When it is full, the longest idle goes.
//!
//! The doors are here. How sessions come (insert, room, eviction) is in [`mod@insert`], how they go (expiry, sweep, a
//! smaller capacity) in [`expire`], how all of them are copied and put back in [`bulk`], what one is in [`record`], how
//! large a shard is in [`shard`], and which of them has the longest idle in [`eviction`].

mod bulk;
mod eviction;
mod expire;
mod insert;
mod record;
mod shard;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dashmap::DashMap;

use crate::session::key::BuildKeyHasher;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::EndReason;
use crate::store::RebindResult;
use crate::store::TableEntry;
use crate::store::TableLookup;
use crate::store::expiry::Pace;
use crate::store::expiry::Tick;
use crate::store::expiry::Ticks;
use crate::store::local::table::eviction::IdleIndex;
use crate::store::local::table::record::Binding;
use crate::store::local::table::record::Record;
use crate::store::local::table::shard::MOST_SHARDS;
use crate::store::local::table::shard::SLOT_BYTES;
use crate::store::local::table::shard::shards_for;
use crate::store::local::table::shard::slots;
use crate::store::targets::Target;
use crate::store::targets::TargetIndex;
use crate::store::targets::Targets;

/// Told of every session that leaves the table. Called after the lock is released.
pub type OnEnd = Box<dyn Fn(&Target, EndReason) + Send + Sync>;

/// The sessions this process knows. Share it in an `Arc`.
pub struct Table {
    /// Read by visits under a shard's read lock; everything else about a session happens under its write lock.
    map: DashMap<SessionKey, Record, BuildKeyHasher>,
    /// Beside `map`: which shard has the longest idle.
    eviction: IdleIndex,
    targets: Targets,
    ticks: Ticks,
    /// Sessions in `map`, plus those about to be put there: raised before an insert and lowered after a removal, so it
    /// is never less than what the map holds. Touched when a session comes or goes, never by a visit. Relaxed: it is a
    /// number that nothing is published by, and all changes of one number are in one order.
    count: Padded,
    /// Set by a reload, read when a session comes. Relaxed, as `count`.
    capacity: AtomicUsize,
    /// The shard that the next sweep step looks at. Only sweepers touch it; two of them take turns.
    sweep_next: AtomicUsize,
    on_end: OnEnd,
}

/// On a cache line of its own: the fields beside it are read by every visit.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(AtomicUsize);

/// Sessions that left while a lock was held, to be reported when it no longer is.
type EndedSessions = Vec<(TargetIndex, EndReason)>;

impl Table {
    /// The epoch that is higher than all others.
    pub const FINAL_EPOCH: u32 = u32::MAX;

    /// An empty table for at most `capacity` sessions, with shards to match. `now` sets its clock; `on_end` is told of
    /// every session that leaves.
    pub fn new(capacity: usize, now: UnixMillis, on_end: OnEnd) -> Self {
        Self::with_shards(capacity, shards_for(capacity), now, on_end)
    }

    /// The same with a number of shards of the caller's choice (made a power of two), to measure what it changes.
    pub fn with_shards(capacity: usize, shards: usize, now: UnixMillis, on_end: OnEnd) -> Self {
        let shards = shards.clamp(2, MOST_SHARDS).next_power_of_two();
        Self {
            map: DashMap::with_hasher_and_shard_amount(BuildKeyHasher, shards),
            eviction: IdleIndex::new(shards),
            targets: Targets::new(),
            ticks: Ticks::starting(now),
            count: Padded::default(),
            capacity: AtomicUsize::new(capacity),
            sweep_next: AtomicUsize::new(0),
            on_end,
        }
    }

    /// The target of that name, the same for as long as the process lives. For those who build a snapshot: requests find
    /// targets by number.
    pub fn target(&self, pool: &str, server: &str) -> Arc<Target> {
        self.targets.intern(pool, server)
    }

    /// The target with that number: no lock, no reference count. None only for a number of another table.
    #[inline]
    pub fn target_at(&self, index: TargetIndex) -> Option<&Arc<Target>> {
        self.targets.at(index)
    }

    /// All targets there ever were, with their sessions: what the metrics show.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.targets.all()
    }

    /// How long sessions of a pool may stay away and how long they may exist. Without it they live for ever. Counts at
    /// once, for sessions that are there too.
    pub fn set_limits(&self, pool: &str, idle: Duration, absolute: Duration) {
        self.targets.set_limits(pool, idle, absolute);
    }

    /// A request of this session came in: what is known of it, and note that it was here.
    #[inline]
    pub fn visit(&self, key: &SessionKey, now: UnixMillis) -> TableLookup {
        let now = self.ticks.at(now);
        {
            let Some(record) = self.map.get(key) else {
                return TableLookup::Absent;
            };
            if self.verdict(&record, now).is_none() {
                let known = self.entry(&record);
                record.touch(now);
                return TableLookup::Live(known);
            }
        }
        self.expire(key, now)
    }

    /// What is known of a session, without a trace of having asked.
    pub fn find(&self, key: &SessionKey, now: UnixMillis) -> TableLookup {
        let now = self.ticks.at(now);
        let Some(record) = self.map.get(key) else {
            return TableLookup::Absent;
        };
        self.verdict(&record, now).map_or_else(|| TableLookup::Live(self.entry(&record)), expired)
    }

    /// A token told of a session. If the table knows it too, the higher epoch wins, and the token between equals.
    /// Returns what stands.
    pub fn restore(
        &self,
        key: SessionKey,
        target: &Target,
        epoch: u32,
        created: UnixMillis,
        now: UnixMillis,
    ) -> TableEntry {
        let (created, now) = (self.ticks.at(created), self.ticks.at(now));
        let binding = Binding { target: target.index(), epoch, created };
        let stands = self.upsert(key, binding, now, |record| {
            let token_wins = epoch > record.epoch || (epoch == record.epoch && binding.target != record.target);
            if token_wins {
                self.bind_to(record, binding);
            }
        });
        stands.unwrap_or_else(|| self.entry(&Record::new(binding, now)))
    }

    /// The session moves `to` another target, if it is still what the caller last knew it as (`expected_epoch`): of
    /// several that move it at once, one does and the others are told where. A session that the table does not know,
    /// or knows by an older epoch, moves too. `created` is for the former.
    pub fn rebind(
        &self,
        key: SessionKey,
        expected_epoch: u32,
        to: &Target,
        created: UnixMillis,
        now: UnixMillis,
    ) -> RebindResult {
        let (created, now) = (self.ticks.at(created), self.ticks.at(now));
        let epoch = expected_epoch.saturating_add(1);
        let mut moved = true;
        let stands = self.upsert(key, Binding { target: to.index(), epoch, created }, now, |record| {
            moved = record.epoch <= expected_epoch;
            if moved {
                self.bind_to(record, Binding { target: to.index(), epoch, created: record.created });
            }
        });
        match stands {
            Some(known) if !moved => RebindResult::AlreadyMoved(known),
            _ => RebindResult::Moved { epoch },
        }
    }

    /// Another proxy has moved the session, or ended it: so it is here, unless more is known here. Of two records of one
    /// epoch theirs stands. No visit, and nothing that brings a session in: false when the table does not know it. `created`
    /// is for one that has ended here and begins anew there.
    pub fn apply_remote(&self, key: &SessionKey, target: &Target, epoch: u32, created: UnixMillis) -> bool {
        let created = self.ticks.at(created);
        let mut ended = None;
        {
            let Some(mut record) = self.map.get_mut(key) else { return false };
            let wins = epoch > record.epoch || (epoch == record.epoch && record.target != target.index());
            if wins {
                ended = Some(record.target).filter(|_| target.is_tombstone());
                let created = if self.is_over(&record) { created } else { record.created };
                self.bind_to(&mut record, Binding { target: target.index(), epoch, created });
            }
        }
        if let Some(target) = ended {
            self.report(&[(target, EndReason::Ended)]);
        }
        true
    }

    /// The first request of a session whose key its client carries already: binds it to a target, unless another request
    /// was first; then theirs stands and is returned. One that has ended begins anew.
    pub fn claim(&self, key: SessionKey, target: &Target, now: UnixMillis) -> Option<TableEntry> {
        let now = self.ticks.at(now);
        let mut anew = false;
        let known = self.upsert(key, Binding { target: target.index(), epoch: 0, created: now }, now, |record| {
            anew = self.is_over(record);
            if anew {
                let epoch = record.epoch.saturating_add(1);
                self.bind_to(record, Binding { target: target.index(), epoch, created: now });
            }
        });
        known.filter(|_| !anew)
    }

    /// A server says itself that the session is its own: so it is, whatever was known. True when that is news.
    pub fn assign(&self, key: SessionKey, target: &Target, now: UnixMillis) -> bool {
        let now = self.ticks.at(now);
        let mut news = false;
        let known = self.upsert(key, Binding { target: target.index(), epoch: 0, created: now }, now, |record| {
            news = record.target != target.index();
            if news {
                let epoch = record.epoch.saturating_add(1);
                // One that has ended begins anew.
                let created = if self.is_over(record) { now } else { record.created };
                self.bind_to(record, Binding { target: target.index(), epoch, created });
            }
        });
        news || known.is_none()
    }

    /// The session is over, and stays so while tokens of it may still be about: it is bound to `tombstone`, a target that no
    /// server has. Kept for the idle time from the last request that named it. With the epoch [`FINAL_EPOCH`](Self::FINAL_EPOCH) for ever:
    /// no token says more.
    pub fn insert_tombstone(
        &self,
        key: SessionKey,
        tombstone: &Target,
        epoch: u32,
        created: UnixMillis,
        now: UnixMillis,
    ) {
        let (created, now) = (self.ticks.at(created), self.ticks.at(now));
        let mut left = None;
        self.upsert(key, Binding { target: tombstone.index(), epoch, created }, now, |record| {
            left = Some(record.target).filter(|target| *target != tombstone.index());
            // Above a move that the caller did not know of: of two records of one epoch the other proxies keep the first.
            let above = if self.is_over(record) { record.epoch } else { record.epoch.saturating_add(1) };
            self.bind_to(
                record,
                Binding { target: tombstone.index(), epoch: epoch.max(above), created: record.created },
            );
        });
        if let Some(target) = left {
            self.report(&[(target, EndReason::Ended)]);
        }
    }

    /// The session is over. Returns what was known of it.
    pub fn end(&self, key: &SessionKey) -> Option<TableEntry> {
        let (_, record) = self.map.remove_if(key, |_, record| {
            self.forget(record.target);
            true
        })?;
        self.report(&[(record.target, EndReason::Ended)]);
        Some(self.entry(&record))
    }

    /// The session goes on under another key: this one is not its end.
    pub fn remove_renamed(&self, key: &SessionKey) {
        self.map.remove_if(key, |_, record| {
            self.forget(record.target);
            true
        });
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.count.0.load(Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sessions there may be.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Relaxed)
    }

    /// How many shards the sessions are spread over.
    pub fn shards(&self) -> usize {
        self.map.shards().len()
    }

    /// The table's own memory, about: what the map has allocated and has touched. Looks at every shard.
    pub fn bytes(&self) -> usize {
        let shards = self.map.shards();
        let slots: usize = shards.iter().map(|shard| slots(shard.read().capacity())).sum();
        slots * SLOT_BYTES + size_of_val(shards) + self.eviction.bytes()
    }

    /// How fast to sweep under the limits of now: whole rounds in a quarter of the shortest limit, half a minute at
    /// most. Ask again after every burst: a reload may have changed it.
    pub fn pace(&self) -> Pace {
        self.pace_for(self.shards())
    }

    /// The same for something else that is swept in so many steps.
    pub fn pace_for(&self, steps: usize) -> Pace {
        Pace::of(self.targets.shortest_limit(), steps)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len()).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl Table {
    /// To be called without a lock: what it calls is not ours.
    fn report(&self, ended_sessions: &[(TargetIndex, EndReason)]) {
        for (target, reason) in ended_sessions {
            if let Some(target) = self.targets.at(*target).filter(|target| !target.is_tombstone()) {
                (self.on_end)(target, *reason);
            }
        }
    }
}

/// One record. All of it under the lock of the record's shard, so that the counts fit the records.
impl Table {
    #[inline]
    fn verdict(&self, record: &Record, now: Tick) -> Option<EndReason> {
        self.targets.at(record.target)?.limits.verdict(record.created, record.last_seen(), now)
    }

    #[inline]
    fn entry(&self, record: &Record) -> TableEntry {
        TableEntry {
            target: record.target,
            epoch: record.epoch,
            created: self.ticks.millis(record.created),
            last_seen: self.ticks.millis(record.last_seen()),
        }
    }

    fn is_over(&self, record: &Record) -> bool {
        self.targets.at(record.target).is_some_and(|target| target.is_tombstone())
    }

    fn bind_to(&self, record: &mut Record, binding: Binding) {
        self.count_out(record.target);
        self.count_in(binding.target);
        record.target = binding.target;
        record.epoch = binding.epoch;
        record.created = binding.created;
    }

    fn count_in(&self, target: TargetIndex) {
        if let Some(target) = self.targets.at(target) {
            target.add_session();
        }
    }

    fn count_out(&self, target: TargetIndex) {
        if let Some(target) = self.targets.at(target) {
            target.remove_session();
        }
    }

    /// A session of that target is no longer in the map, and its room is free.
    fn forget(&self, target: TargetIndex) {
        self.count_out(target);
        self.count.0.fetch_sub(1, Relaxed);
    }
}

const fn expired(reason: EndReason) -> TableLookup {
    match reason {
        EndReason::Absolute => TableLookup::ExpiredAbsolute,
        _ => TableLookup::ExpiredIdle,
    }
}
