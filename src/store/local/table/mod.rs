//! The table of sessions in this process: which server each is bound to, in 32 bytes a session.
//!
//! A `dashmap` of many small shards, so that a lock (to expire, evict or grow) delays only requests for sessions of one shard,
//! and only for microseconds. A visit takes its shard's *read* lock and updates an atomic in the record, so visits do not
//! delay each other. No guard leaves this folder: results are copies.
//!
//! It guarantees: never more sessions than its capacity; no session beyond its limits is returned; an epoch never decreases
//! while a session lives. It does not guarantee to keep a session: when it is full, the longest idle is evicted.
//!
//! The public methods are here, those about targets in [`mod@targets`]. [`mod@insert`]: insertion, and eviction when full.
//! [`expire`]: expiry, sweep, a smaller capacity. [`bulk`]: copy and import. [`record`]: one session. [`shard`]: the size of a
//! shard. [`eviction`]: which shard has the longest idle session.

mod bulk;
mod eviction;
mod expire;
mod insert;
mod record;
mod shard;
mod targets;
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
use crate::store::local::journal::Journal;
use crate::store::local::journal::JournalEntry;
use crate::store::local::table::eviction::IdleIndex;
use crate::store::local::table::record::Binding;
use crate::store::local::table::record::Record;
use crate::store::local::table::shard::MAX_SHARDS;
use crate::store::local::table::shard::SLOT_BYTES;
use crate::store::local::table::shard::shards_for;
use crate::store::local::table::shard::slots;
use crate::store::targets::Target;
use crate::store::targets::TargetIndex;
use crate::store::targets::Targets;

/// Called for every session that leaves the table, after the lock is released.
pub type OnEnd = Box<dyn Fn(&Target, EndReason) + Send + Sync>;

/// The table of sessions. Share it in an `Arc`.
pub struct Table {
    /// Visits take a shard's read lock; every other change takes its write lock.
    map: DashMap<SessionKey, Record, BuildKeyHasher>,
    /// Which shard of `map` has the longest idle session.
    eviction: IdleIndex,
    targets: Targets,
    ticks: Ticks,
    /// Sessions in `map`, plus those about to be inserted: incremented before an insert and decremented after a removal, so
    /// it is never less than what the map holds. Never changed by a visit. Relaxed: nothing is published by it, and all
    /// changes of one atomic are in one order.
    count: Padded,
    /// Set by a reload, read by inserts. Relaxed, as `count`.
    capacity: AtomicUsize,
    /// The shard of the next sweep step. Used by sweeps only; two of them alternate.
    sweep_next: AtomicUsize,
    on_end: OnEnd,
    journal: Arc<Journal>,
}

/// On a separate cache line: every visit reads the other fields.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(AtomicUsize);

/// Sessions that ended while a lock was held, reported after it is released.
type EndedSessions = Vec<(TargetIndex, EndReason)>;

impl Table {
    /// The highest epoch.
    pub const FINAL_EPOCH: u32 = u32::MAX;

    /// An empty table for at most `capacity` sessions, with shards to match. `now` sets its clock; `on_end` is called for
    /// every session that leaves.
    pub fn new(capacity: usize, now: UnixMillis, on_end: OnEnd) -> Self {
        Self::with_shards(capacity, shards_for(capacity), now, on_end)
    }

    /// The same with a given number of shards (rounded up to a power of two), for measurements.
    pub fn with_shards(capacity: usize, shards: usize, now: UnixMillis, on_end: OnEnd) -> Self {
        let shards = shards.clamp(2, MAX_SHARDS).next_power_of_two();
        Self {
            map: DashMap::with_hasher_and_shard_amount(BuildKeyHasher, shards),
            eviction: IdleIndex::new(shards),
            targets: Targets::new(),
            ticks: Ticks::starting(now),
            count: Padded::default(),
            capacity: AtomicUsize::new(capacity),
            sweep_next: AtomicUsize::new(0),
            on_end,
            journal: Arc::default(),
        }
    }

    /// Which sessions change: bindings, and data that servers hand over. Not visits, expiry and eviction.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The target of that name, the same while it is in use. For building the runtime: requests look targets up by
    /// number.
    pub fn target(&self, pool: &str, server: &str) -> Arc<Target> {
        self.targets.intern(pool, server)
    }

    /// The target with that number: no lock, no reference count. `None` only for a number of another table.
    #[inline]
    pub fn target_at(&self, index: TargetIndex) -> Option<&Arc<Target>> {
        self.targets.at(index)
    }

    /// Looks a session up for a request, and updates its last visit.
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

    /// Looks a session up without a visit.
    pub fn find(&self, key: &SessionKey, now: UnixMillis) -> TableLookup {
        let now = self.ticks.at(now);
        let Some(record) = self.map.get(key) else {
            return TableLookup::Absent;
        };
        self.verdict(&record, now).map_or_else(|| TableLookup::Live(self.entry(&record)), expired)
    }

    /// Restores a session from its token. If the table has an entry, the higher epoch wins, and the token between equals.
    /// Returns the resulting entry.
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
        let mut token_wins = false;
        let stands = self.upsert(key, binding, now, |record| {
            token_wins = epoch > record.epoch || (epoch == record.epoch && binding.target != record.target);
            if token_wins {
                self.bind_to(record, binding);
            }
        });
        if token_wins || stands.is_none() {
            self.journal.note(JournalEntry::Session(key));
        }
        stands.unwrap_or_else(|| self.entry(&Record::new(binding, now)))
    }

    /// Moves the session `to` another target, if its epoch is still `expected_epoch`: of concurrent moves one succeeds, and
    /// the others get the resulting entry. A session that is not in the table, or has an older epoch, moves too. `created` is
    /// for the former.
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
            _ => {
                self.journal.note(JournalEntry::Session(key));
                RebindResult::Moved { epoch }
            }
        }
    }

    /// Applies a move or an end by another proxy, unless the epoch here is higher. Of two records of one epoch the remote one
    /// wins. No visit, and never an insert: false when the session is not in the table. `created` is for one that has ended
    /// here and began again there.
    pub fn apply_remote(&self, key: &SessionKey, target: &Target, epoch: u32, created: UnixMillis) -> bool {
        let created = self.ticks.at(created);
        let mut ended = None;
        {
            let Some(mut record) = self.map.get_mut(key) else { return false };
            let wins = epoch > record.epoch || (epoch == record.epoch && record.target != target.index());
            if wins {
                ended = Some(record.target).filter(|_| target.is_tombstone());
                let created = if self.is_tombstone(&record) { created } else { record.created };
                self.bind_to(&mut record, Binding { target: target.index(), epoch, created });
            }
        }
        if let Some(target) = ended {
            self.report(&[(target, EndReason::Ended)]);
        }
        true
    }

    /// Binds a session at the first request with its key, unless another request was first: then that entry stands and is
    /// returned. A session that has ended begins again.
    pub fn claim(&self, key: SessionKey, target: &Target, now: UnixMillis) -> Option<TableEntry> {
        let now = self.ticks.at(now);
        let mut restarted = false;
        let known = self.upsert(key, Binding { target: target.index(), epoch: 0, created: now }, now, |record| {
            restarted = self.is_tombstone(record);
            if restarted {
                let epoch = record.epoch.saturating_add(1);
                self.bind_to(record, Binding { target: target.index(), epoch, created: now });
            }
        });
        let stands = known.filter(|_| !restarted);
        if stands.is_none() {
            self.journal.note(JournalEntry::Session(key));
        }
        stands
    }

    /// Binds a session to the server that has assigned it to itself, whatever the former binding. True when that is a change.
    pub fn assign(&self, key: SessionKey, target: &Target, now: UnixMillis) -> bool {
        let now = self.ticks.at(now);
        let mut changed = false;
        let known = self.upsert(key, Binding { target: target.index(), epoch: 0, created: now }, now, |record| {
            changed = record.target != target.index();
            if changed {
                let epoch = record.epoch.saturating_add(1);
                // A session that has ended begins again.
                let created = if self.is_tombstone(record) { now } else { record.created };
                self.bind_to(record, Binding { target: target.index(), epoch, created });
            }
        });
        let news = changed || known.is_none();
        if news {
            self.journal.note(JournalEntry::Session(key));
        }
        news
    }

    /// Ends a session while tokens of it may still be in use: it is bound to `tombstone`, a target without a server, until the
    /// idle time after the last request with its key. With [`FINAL_EPOCH`](Self::FINAL_EPOCH) no token can override it.
    pub fn insert_tombstone(
        &self,
        key: SessionKey,
        tombstone: &Target,
        epoch: u32,
        (created, now): (UnixMillis, UnixMillis),
        reason: EndReason,
    ) {
        let (created, now) = (self.ticks.at(created), self.ticks.at(now));
        let mut left = None;
        self.upsert(key, Binding { target: tombstone.index(), epoch, created }, now, |record| {
            left = Some(record.target).filter(|target| *target != tombstone.index());
            // Above a concurrent move: of two records of one epoch the other proxies keep the first.
            let above = if self.is_tombstone(record) { record.epoch } else { record.epoch.saturating_add(1) };
            self.bind_to(
                record,
                Binding { target: tombstone.index(), epoch: epoch.max(above), created: record.created },
            );
        });
        self.journal.note(JournalEntry::Session(key));
        if let Some(target) = left {
            self.report(&[(target, reason)]);
        }
    }

    /// Removes a session. Returns its entry.
    pub fn end(&self, key: &SessionKey) -> Option<TableEntry> {
        let (_, record) = self.map.remove_if(key, |_, record| {
            self.forget(record.target);
            true
        })?;
        self.journal.note(JournalEntry::Removal(*key));
        self.report(&[(record.target, EndReason::Ended)]);
        Some(self.entry(&record))
    }

    /// Removes the former key of a session that continues under another one. Not reported as an end.
    pub fn remove_renamed(&self, key: &SessionKey) {
        let removed = self.map.remove_if(key, |_, record| {
            self.forget(record.target);
            true
        });
        if removed.is_some() {
            self.journal.note(JournalEntry::Removal(*key));
        }
    }

    /// Removes a session that has ended in another process. Not noted in the journal.
    pub fn remove_remote(&self, key: &SessionKey) {
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

    /// The maximum number of sessions.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Relaxed)
    }

    /// How many shards the sessions are spread over.
    pub fn shards(&self) -> usize {
        self.map.shards().len()
    }

    /// The table's memory, about: what the map has allocated. Locks every shard in turn.
    pub fn bytes(&self) -> usize {
        let shards = self.map.shards();
        let slots: usize = shards.iter().map(|shard| slots(shard.read().capacity())).sum();
        slots * SLOT_BYTES + size_of_val(shards) + self.eviction.bytes()
    }

    /// The shortest limit of any pool; `None` = no session ever expires.
    pub fn shortest_limit(&self) -> Option<Duration> {
        self.targets.shortest_limit()
    }

    /// How fast to sweep under the current limits: a whole round in a quarter of the shortest limit, half a minute at most.
    /// Call it again after every burst, since a reload may have changed it.
    pub fn pace(&self) -> Pace {
        self.pace_for(self.shards())
    }

    /// The same for another structure that is swept in so many steps.
    pub fn pace_for(&self, steps: usize) -> Pace {
        Pace::of(self.shortest_limit(), steps)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len()).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl Table {
    /// Must be called without a lock, since it calls foreign code.
    fn report(&self, ended_sessions: &[(TargetIndex, EndReason)]) {
        for (target, reason) in ended_sessions {
            if let Some(target) = self.targets.at(*target).filter(|target| !target.is_tombstone()) {
                (self.on_end)(target, *reason);
            }
        }
    }
}

/// Operations on one record, under the lock of its shard, so that the counts match the records.
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

    fn is_tombstone(&self, record: &Record) -> bool {
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

    /// A session of that target was removed from the map.
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
