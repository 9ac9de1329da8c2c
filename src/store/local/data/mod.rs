//! What servers hand over for their sessions: a little opaque state each, given to the next server after a move.
//!
//! Beside the table and not in it: few sessions have data, data is large, and a token that restores a session does not
//! restore its data. Every entry remembers the epoch for which it is right: data of an epoch that another proxy has
//! moved the session away from is not given to anybody, since what was said there since (a log-out, say) is not known
//! here.
//!
//! What it promises: never more memory than it was given, whatever servers say; nothing of a session that has ended. When
//! it is full, the data of the longest idle of some sessions goes. Visits do not touch it, so who was idle is asked of
//! the table when it matters. How a shard holds its entries is in [`shard`], how all of them are copied and put back in
//! [`bulk`].
//!
//! Data may be a login: it is never printed, and marked so that HTTP/2 does not index it.

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
use crate::store::local::table::Table;
use crate::store::targets::{Target, TargetIndex};

pub use self::bulk::DataRecord;
use self::shard::{Entry, Idle, Shard};

/// Most memory that data of all sessions may take: 256 MiB, a quarter million sessions with some 800 bytes each.
pub const MAX_BYTES: usize = 256 << 20;

/// A shard is locked for one look-up, or for a look at each of its entries: at most some three hundred, which takes
/// microseconds. Empty ones cost 56 bytes each.
const SHARDS: usize = 4_096;
/// When somebody must go, it is one of so many at least, if there are so many.
const LOOKED_AT: usize = 256;
/// So many of them, who were idle the longest as far as is known, the table is asked for.
const ASKED_FOR: usize = 8;
/// So often, as long as all of them have been here since.
const MOST_TRIES: usize = 8;

/// Told of every session whose data had to make room. Called after the lock is released.
pub type OnEviction = Box<dyn Fn(&Target) + Send + Sync>;

/// Whose data it is.
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

/// What a server is given with a request of a session that was elsewhere.
#[derive(Debug, Clone, Default)]
pub struct HandoffPayload {
    /// Where the session came from; `None` = it is guest there.
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
    /// Nothing yet, and never more than about `most` bytes, but for the one value that others are just making room for.
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

    /// A server hands this over, in place of what was there. False when the session has moved on since that server was
    /// asked: then what its new server has stays.
    pub fn keep(&self, owner: &Owner, data: &HeaderValue, table: &Table, now: UnixMillis) -> bool {
        let data = Some(private_copy(data));
        self.put(owner, table, now, |former| match former {
            Some(entry) if entry.epoch > owner.epoch => Err(entry),
            Some(entry) if entry.epoch == owner.epoch => Ok((data, entry.moved_header)),
            _ => Ok((data, None)),
        })
    }

    /// The session moved from the epoch `from` to the owner's. With `told`, its new server has not answered below 500
    /// yet, and this is what it is to be told until then.
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
            // The move of another request of this session stands, and so does what waits for an answer to it.
            Some(entry) if entry.epoch > owner.epoch || (entry.epoch == owner.epoch && moved_header.is_some()) => {
                Err(entry)
            }
            Some(entry) if entry.epoch == owner.epoch || entry.epoch == from => Ok((entry.data, moved_header)),
            _ => Ok((None, moved_header)),
        });
    }

    /// The session goes on as another one, the owner. What is known of that one stands.
    pub fn transfer(&self, owner: &Owner, payload: HandoffPayload, table: &Table, now: UnixMillis) {
        self.put(owner, table, now, |former| match former {
            Some(entry) => Err(entry),
            None => Ok((payload.data, payload.moved_header.map(Box::new))),
        });
    }

    /// The session's data, for a server that it is not bound to; `epoch` is what the request knows of its binding. Data of
    /// an earlier epoch is not what the session's last server knew; a later one comes of a parallel request, which was
    /// faster to move the session.
    pub fn find(&self, key: &SessionKey, epoch: u32) -> Option<HeaderValue> {
        let shard = self.shard(key)?.lock();
        shard.find(key).filter(|entry| entry.epoch >= epoch)?.data.clone()
    }

    /// The session's data and whose it is, as it is kept now.
    pub fn find_with_owner(&self, key: &SessionKey) -> Option<(Owner, HeaderValue)> {
        let shard = self.shard(key)?.lock();
        let entry = shard.find(key)?;
        let owner =
            Owner { key: *key, epoch: entry.epoch, created: self.ticks.millis(entry.created), pool: entry.pool };
        Some((owner, entry.data.clone()?))
    }

    /// What the session's new server must still be given, if it has not answered below 500 since the move. Costs nothing
    /// while no session waits for that.
    pub fn pending_handoff(&self, key: &SessionKey, epoch: u32) -> Option<HandoffPayload> {
        if self.pending.load(Relaxed) == 0 {
            return None;
        }
        let shard = self.shard(key)?.lock();
        let entry = shard.find(key).filter(|entry| entry.epoch == epoch)?;
        Some(HandoffPayload { moved_header: Some(entry.moved_header.as_deref()?.clone()), data: entry.data.clone() })
    }

    /// The session's new server has answered below 500: it is told no more.
    pub fn mark_delivered(&self, key: &SessionKey, epoch: u32) {
        self.change(key, |shard| {
            if shard.find(key).is_some_and(|entry| entry.epoch == epoch) {
                shard.mark_delivered(key);
            }
        });
    }

    /// The session has nothing to hand over any more.
    pub fn forget(&self, key: &SessionKey) {
        self.change(key, |shard| drop(shard.remove(key)));
    }

    /// The session goes on under another key.
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

    /// A pool hands nothing over any more. Looks at everything.
    pub fn forget_pool(&self, pool: TargetIndex) {
        for shard in &self.shards {
            self.account(shard, |shard| shard.retain(|entry| entry.pool != pool));
        }
    }

    /// Looks at the next shard and lets go the data of sessions that have ended. Returns how many.
    pub fn sweep_step(&self, table: &Table, now: UnixMillis) -> usize {
        let index = self.sweep_next.fetch_add(1, Relaxed) % self.shards.len().max(1);
        let Some(shard) = self.shards.get(index) else { return 0 };
        let tick = self.ticks.at(now);
        // Collected first: the table is asked without the lock.
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

    /// How fast to sweep under the limits of now.
    pub fn pace(&self, table: &Table) -> Pace {
        table.pace_for(self.shards.len())
    }

    /// Memory that it takes, about.
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
    /// Puts what `decide` makes of the entry that is there, when it makes another of it. True when it does.
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
        changed
    }

    /// Sends sessions away until the others fit into the memory that there may be. `newcomer` is the reason; when it is
    /// `spared`, it goes last.
    fn make_room(&self, newcomer: &SessionKey, spared: bool, table: &Table, now: UnixMillis) {
        let mut evicted = Vec::new();
        while self.bytes() > self.most {
            let Some(idle) = self.longest_idle(newcomer, spared, table, now) else { break };
            self.change(&idle, |shard| evicted.extend(shard.remove(&idle).map(|entry| entry.pool)));
        }
        self.report(&evicted, table);
    }

    /// Who was idle the longest of the newcomer's shard and of as many after it as it takes.
    fn longest_idle(&self, newcomer: &SessionKey, spared: bool, table: &Table, now: UnixMillis) -> Option<SessionKey> {
        let home = self.index_of(newcomer)?;
        let (before, behind) = self.shards.split_at_checked(home)?;
        let mut found = None;
        for _ in 0..MOST_TRIES {
            let (mut longest, mut looked_at) = (BinaryHeap::with_capacity(ASKED_FOR), 0);
            for shard in behind.iter().chain(before) {
                let shard = shard.lock();
                shard.longest_idle(&mut longest);
                looked_at += shard.len();
                if looked_at >= LOOKED_AT {
                    break;
                }
            }
            let asked = longest.into_iter().map(|idle| (self.last_seen(&idle, table, now), idle));
            let asked: Vec<(Tick, Idle)> = asked.collect();
            found = asked.iter().map(|(seen, (_, key))| (spared && key == newcomer, *seen, *key)).min();
            // Who came back is no longer among the longest idle, and others are.
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

    /// To be called without a lock: what it calls is not ours.
    fn report(&self, evicted: &[TargetIndex], table: &Table) {
        for pool in evicted.iter().filter_map(|pool| table.target_at(*pool)) {
            (self.on_eviction)(pool);
        }
    }

    /// When the session was here last: visits leave their trace in the table.
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
        // Keys are as good as random; the map within a shard goes by their lower half.
        let high = usize::try_from(key.0 >> 96).unwrap_or(0);
        high.checked_rem(self.shards.len())
    }

    fn change(&self, key: &SessionKey, change: impl FnOnce(&mut Shard)) {
        if let Some(shard) = self.shard(key) {
            self.account(shard, change);
        }
    }

    /// Changes a shard, and the sums with it.
    fn account(&self, shard: &Mutex<Shard>, change: impl FnOnce(&mut Shard)) {
        let mut shard = shard.lock();
        let before = shard.totals();
        change(&mut shard);
        let after = shard.totals();
        // Wraps on the way and comes out right: each change is added once.
        self.bytes.fetch_add(after.bytes.wrapping_sub(before.bytes), Relaxed);
        self.pending.fetch_add(after.pending.wrapping_sub(before.pending), Relaxed);
    }
}

/// Its own bytes only: what came from a server's connection would keep the whole header block alive.
fn private_copy(value: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(""));
    copy.set_sensitive(true);
    copy
}
