//! Session data: a little opaque state that servers hand over for their sessions, for the next server after a move.
//!
//! Separate from the table: few sessions have data, data is large, and a token that restores a session does not restore its
//! data. Every entry has the epoch it is valid for. When another proxy has moved the session on, the data here is outdated
//! (after a log-out, say) and not sent to any server.
//!
//! It guarantees: never more memory than configured, whatever servers send; no data of a session that has ended. When it is
//! full, the data of the longest idle session of a sample is evicted. Visits do not touch it, so last visits are read from the
//! table when needed. [`shard`] holds the entries of a shard, [`bulk`] copies and imports all of them.
//!
//! Data may be a login: it is never printed, and marked as sensitive, so that HTTP/2 does not index it.

mod bulk;
mod shard;
#[cfg(test)]
mod tests;

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderValue;
use parking_lot::Mutex;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::expiry::Pace;
use crate::store::expiry::Tick;
use crate::store::expiry::Ticks;
use crate::store::local::journal::JournalEntry;
use crate::store::local::table::Table;
use crate::store::targets::{Target, TargetIndex};

pub use self::bulk::DataRecord;
use self::shard::{Entry, Idle, Shard};

/// Most memory that data of all sessions may take: 256 MiB, a quarter million sessions with some 800 bytes each.
pub const MAX_BYTES: usize = 256 << 20;

/// A shard is locked for a lookup, or for a scan of at most some three hundred entries: microseconds. Empty shards cost 56
/// bytes each.
const SHARDS: usize = 4_096;
/// The least number of sessions that an eviction considers, if there are as many.
const SAMPLE: usize = 256;
/// The number of candidates, by the last visits known here, that are looked up in the table.
const CANDIDATES: usize = 8;
/// Attempts, as long as all candidates turn out to have been visited.
const MAX_ATTEMPTS: usize = 8;

/// Called for every session whose data was evicted, after the lock is released.
pub type OnEviction = Box<dyn Fn(&Target) + Send + Sync>;

/// The session that data belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The session.
    pub key: SessionKey,
    /// Its epoch.
    pub epoch: u32,
    /// When it began.
    pub created: UnixMillis,
    /// Any target of its pool, for the pool's limits.
    pub pool: TargetIndex,
}

/// What a server gets with a request of a session that was on another server.
#[derive(Debug, Clone, Default)]
pub struct HandoffPayload {
    /// The value of `Homing-Session-Moved`; `None` = the session is borrowed.
    pub moved_header: Option<HeaderValue>,
    /// Its data, if it has any.
    pub data: Option<HeaderValue>,
}

/// All data in this process. Share it in an `Arc`.
pub struct SessionData {
    shards: Box<[Mutex<Shard>]>,
    ticks: Ticks,
    /// Most bytes of all shards.
    most: usize,
    /// Sums over all shards, as of the last change. Relaxed: numbers that nothing is published by.
    bytes: AtomicUsize,
    pending: AtomicUsize,
    /// The shard that the next sweep step looks at.
    sweep_next: AtomicUsize,
    on_eviction: OnEviction,
}

impl SessionData {
    /// Empty. At most about `most` bytes, plus the one value that is just being inserted.
    pub fn new(most: usize, now: UnixMillis, on_eviction: OnEviction) -> Self {
        Self::with_shards(most, SHARDS, now, on_eviction)
    }

    fn with_shards(most: usize, shards: usize, now: UnixMillis, on_eviction: OnEviction) -> Self {
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            ticks: Ticks::starting(now),
            most,
            bytes: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            sweep_next: AtomicUsize::new(0),
            on_eviction,
        }
    }

    /// Replaces a session's data by what its server handed over. False when the session has moved since the request: then the
    /// data stays.
    pub fn keep(&self, owner: &Owner, data: &HeaderValue, table: &Table, now: UnixMillis) -> bool {
        let data = Some(private_copy(data));
        self.put(owner, table, now, |former| match former {
            Some(entry) if entry.epoch > owner.epoch => Err(entry),
            Some(entry) if entry.epoch == owner.epoch => Ok((data, entry.moved_header)),
            _ => Ok((data, None)),
        })
    }

    /// The session moved from the epoch `from` to the owner's. With `moved_header`, its new server has not answered below 500
    /// yet, and gets this header until then.
    pub fn record_move(
        &self,
        owner: &Owner,
        from: u32,
        moved_header: Option<HeaderValue>,
        table: &Table,
        now: UnixMillis,
    ) {
        let moved_header = moved_header.map(Box::new);
        self.put(owner, table, now, |former| match former {
            // The move by another request of this session stands, with its header.
            Some(entry) if entry.epoch > owner.epoch || (entry.epoch == owner.epoch && moved_header.is_some()) => {
                Err(entry)
            }
            Some(entry) if entry.epoch == owner.epoch || entry.epoch == from => Ok((entry.data, moved_header)),
            _ => Ok((None, moved_header)),
        });
    }

    /// The session continues as another one, the owner. An existing entry of that one stays.
    pub fn transfer(&self, owner: &Owner, payload: HandoffPayload, table: &Table, now: UnixMillis) {
        self.put(owner, table, now, |former| match former {
            Some(entry) => Err(entry),
            None => Ok((payload.data, payload.moved_header.map(Box::new))),
        });
    }

    /// The session's data, for a server that it is not bound to; `epoch` is that of the request's binding. Data of an earlier
    /// epoch is outdated; a later one comes from a parallel request that moved the session first.
    pub fn find(&self, key: &SessionKey, epoch: u32) -> Option<HeaderValue> {
        let shard = self.shard(key)?.lock();
        shard.find(key).filter(|entry| entry.epoch >= epoch)?.data.clone()
    }

    /// The session's data with its owner.
    pub fn find_with_owner(&self, key: &SessionKey) -> Option<(Owner, HeaderValue)> {
        let shard = self.shard(key)?.lock();
        let entry = shard.find(key)?;
        let owner =
            Owner { key: *key, epoch: entry.epoch, created: self.ticks.millis(entry.created), pool: entry.pool };
        Some((owner, entry.data.clone()?))
    }

    /// What the session's new server still gets, if it has not answered below 500 since the move. Free while there is no such
    /// session.
    pub fn pending_handoff(&self, key: &SessionKey, epoch: u32) -> Option<HandoffPayload> {
        if self.pending.load(Relaxed) == 0 {
            return None;
        }
        let shard = self.shard(key)?.lock();
        let entry = shard.find(key).filter(|entry| entry.epoch == epoch)?;
        Some(HandoffPayload { moved_header: Some(entry.moved_header.as_deref()?.clone()), data: entry.data.clone() })
    }

    /// The session's new server has answered below 500: it gets the header no more.
    pub fn mark_delivered(&self, key: &SessionKey, epoch: u32) {
        self.change(key, |shard| {
            if shard.find(key).is_some_and(|entry| entry.epoch == epoch) {
                shard.mark_delivered(key);
            }
        });
    }

    /// Removes the session's data.
    pub fn forget(&self, key: &SessionKey) {
        self.change(key, |shard| drop(shard.remove(key)));
    }

    /// The session continues under another key.
    pub fn rename(&self, former: &SessionKey, key: SessionKey) {
        let mut entry = None;
        self.change(former, |shard| entry = shard.remove(former));
        if let Some(entry) = entry {
            self.change(&key, |shard| {
                if shard.find(&key).is_none() {
                    shard.insert(key, entry);
                }
            });
        }
    }

    /// Removes the data of a pool without handoff. Scans everything.
    pub fn forget_pool(&self, pool: TargetIndex) {
        for shard in &self.shards {
            self.account(shard, |shard| shard.retain(|entry| entry.pool != pool));
        }
    }

    /// Removes the data of expired sessions from the next shard. Returns how many.
    pub fn sweep_step(&self, table: &Table, now: UnixMillis) -> usize {
        let index = self.sweep_next.fetch_add(1, Relaxed) % self.shards.len().max(1);
        let Some(shard) = self.shards.get(index) else { return 0 };
        let tick = self.ticks.at(now);
        // Collected first: the table is read without the lock.
        let mut over = Vec::with_capacity(shard.lock().len());
        over.extend(
            shard
                .lock()
                .iter()
                .filter(|(_, entry)| entry.is_over(entry.seen, table, tick))
                .map(|(key, entry)| (entry.seen, *key)),
        );
        let mut left = 0;
        for idle in over {
            let seen = self.last_seen(&idle, table, now);
            self.account(shard, |shard| {
                if shard.saw(&idle.1, seen).is_some_and(|entry| entry.is_over(entry.seen, table, tick)) {
                    left += usize::from(shard.remove(&idle.1).is_some());
                }
            });
        }
        left
    }

    /// How fast to sweep under the current limits.
    pub fn pace(&self, table: &Table) -> Pace {
        table.pace_for(self.shards.len())
    }

    /// The memory in use, about.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl fmt::Debug for SessionData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionData").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl SessionData {
    /// Replaces the existing entry by what `decide` returns, unless that is an error with the entry to keep. True when replaced.
    fn put(
        &self,
        owner: &Owner,
        table: &Table,
        now: UnixMillis,
        decide: impl FnOnce(Option<Entry>) -> Result<(Option<HeaderValue>, Option<Box<HeaderValue>>), Entry>,
    ) -> bool {
        let mut changed = true;
        let mut too_large = false;
        self.change(&owner.key, |shard| {
            let (data, moved_header) = match decide(shard.remove(&owner.key)) {
                Ok(parts) => parts,
                Err(stands) => {
                    changed = false;
                    return shard.insert(owner.key, stands);
                }
            };
            if data.is_none() && moved_header.is_none() {
                return;
            }
            let (created, seen) = (self.ticks.at(owner.created), self.ticks.at(now));
            let entry = Entry { data, moved_header, epoch: owner.epoch, created, seen, pool: owner.pool };
            too_large = entry.bytes() > self.most;
            if !too_large {
                shard.insert(owner.key, entry);
            }
        });
        if too_large {
            self.report(&[owner.pool], table);
        }
        self.make_room(&owner.key, true, table, now);
        if changed {
            table.journal().note(JournalEntry::Data(owner.key));
        }
        changed
    }

    /// Evicts sessions until the memory limit holds. `newcomer` was inserted before; when `spared`, it is evicted last.
    fn make_room(&self, newcomer: &SessionKey, spared: bool, table: &Table, now: UnixMillis) {
        let mut evicted = Vec::new();
        while self.bytes() > self.most {
            let Some(idle) = self.longest_idle(newcomer, spared, table, now) else { break };
            self.change(&idle, |shard| evicted.extend(shard.remove(&idle).map(|entry| entry.pool)));
        }
        self.report(&evicted, table);
    }

    /// The longest idle session of the newcomer's shard and of as many after it as the sample takes.
    fn longest_idle(&self, newcomer: &SessionKey, spared: bool, table: &Table, now: UnixMillis) -> Option<SessionKey> {
        let home = self.index_of(newcomer)?;
        let (before, behind) = self.shards.split_at_checked(home)?;
        let mut found = None;
        for _ in 0..MAX_ATTEMPTS {
            let (mut longest, mut looked_at) = (BinaryHeap::with_capacity(CANDIDATES), 0);
            for shard in behind.iter().chain(before) {
                let shard = shard.lock();
                shard.longest_idle(&mut longest);
                looked_at += shard.len();
                if looked_at >= SAMPLE {
                    break;
                }
            }
            let asked = longest.into_iter().map(|idle| (self.last_seen(&idle, table, now), idle));
            let asked: Vec<(Tick, Idle)> = asked.collect();
            found = asked.iter().map(|(seen, (_, key))| (spared && key == newcomer, *seen, *key)).min();
            // Visited candidates are no longer the longest idle.
            let back: Vec<&(Tick, Idle)> = asked.iter().filter(|(seen, idle)| *seen > idle.0).collect();
            for (seen, (_, key)) in &back {
                self.change(key, |shard| {
                    shard.saw(key, *seen);
                });
            }
            if back.len() < asked.len() {
                break;
            }
        }
        found.map(|(.., key)| key)
    }

    /// Must be called without a lock, since it calls foreign code.
    fn report(&self, evicted: &[TargetIndex], table: &Table) {
        for pool in evicted.iter().filter_map(|pool| table.target_at(*pool)) {
            (self.on_eviction)(pool);
        }
    }

    /// The last visit, which the table knows.
    fn last_seen(&self, (seen, key): &Idle, table: &Table, now: UnixMillis) -> Tick {
        match table.find(key, now) {
            TableLookup::Live(known) => self.ticks.at(known.last_seen).max(*seen),
            _ => *seen,
        }
    }

    fn shard(&self, key: &SessionKey) -> Option<&Mutex<Shard>> {
        self.shards.get(self.index_of(key)?)
    }

    fn index_of(&self, key: &SessionKey) -> Option<usize> {
        // Keys are uniformly distributed; the map within a shard uses their lower half.
        let high = usize::try_from(key.0 >> 96).unwrap_or(0);
        high.checked_rem(self.shards.len())
    }

    fn change(&self, key: &SessionKey, change: impl FnOnce(&mut Shard)) {
        if let Some(shard) = self.shard(key) {
            self.account(shard, change);
        }
    }

    /// Changes a shard, and the totals with it.
    fn account(&self, shard: &Mutex<Shard>, change: impl FnOnce(&mut Shard)) {
        let mut shard = shard.lock();
        let before = shard.totals();
        change(&mut shard);
        let after = shard.totals();
        // May wrap in between; each change is added once, so the totals are right.
        self.bytes.fetch_add(after.bytes.wrapping_sub(before.bytes), Relaxed);
        self.pending.fetch_add(after.pending.wrapping_sub(before.pending), Relaxed);
    }
}

/// A copy: the value from a server's connection would keep the whole header block alive.
fn private_copy(value: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(""));
    copy.set_sensitive(true);
    copy
}
