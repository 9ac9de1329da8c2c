//! Some of the sessions that have data.

use std::collections::{BinaryHeap, HashMap};

use http::HeaderValue;

use crate::session::key::{BuildKeyHasher, SessionKey};
use crate::store::expiry::Tick;
use crate::store::local::table::Table;
use crate::store::targets::TargetIndex;

/// What is kept of one session.
pub(super) struct Entry {
    /// What its last server handed over.
    pub(super) data: Option<HeaderValue>,
    /// What its server is told of the move until it has answered below 500. Boxed, since it is rare.
    pub(super) moved_header: Option<Box<HeaderValue>>,
    /// The binding that both are right for.
    pub(super) epoch: u32,
    /// When the session began.
    pub(super) created: Tick,
    /// When it was here last, as far as was asked.
    pub(super) seen: Tick,
    /// Any target of its pool.
    pub(super) pool: TargetIndex,
}

/// An entry without its texts: its slot in the map, of which up to half are empty, the count of who holds its value once
/// that was copied, and what the allocator rounds up.
const ENTRY_BYTES: usize = size_of::<Entry>() + 128;

impl Entry {
    /// Memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let moved_header = self.moved_header.as_ref().map_or(0, |header| size_of::<HeaderValue>() + header.len());
        ENTRY_BYTES + moved_header + self.data.as_ref().map_or(0, HeaderValue::len)
    }

    /// Its session has ended, if it was `seen` last then.
    pub(super) fn is_over(&self, seen: Tick, table: &Table, now: Tick) -> bool {
        let limits = table.target_at(self.pool).map(|target| &target.limits);
        limits.is_none_or(|limits| limits.verdict(self.created, seen, now).is_some())
    }
}

/// Sums over the entries of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) bytes: usize,
    /// Entries with something to tell.
    pub(super) pending: usize,
}

impl Totals {
    fn add(&mut self, entry: &Entry) {
        self.bytes += entry.bytes();
        self.pending += usize::from(entry.moved_header.is_some());
    }

    fn take(&mut self, entry: &Entry) {
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        self.pending = self.pending.saturating_sub(usize::from(entry.moved_header.is_some()));
    }
}

/// A shard, under its lock.
#[derive(Default)]
pub(super) struct Shard {
    entries: HashMap<SessionKey, Entry, BuildKeyHasher>,
    totals: Totals,
}

impl Shard {
    pub(super) const fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SessionKey, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn find(&self, key: &SessionKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Requires that no entry with the key is present.
    pub(super) fn insert(&mut self, key: SessionKey, entry: Entry) {
        self.totals.add(&entry);
        if let Some(former) = self.entries.insert(key, entry) {
            self.totals.take(&former);
        }
    }

    pub(super) fn remove(&mut self, key: &SessionKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.totals.take(&entry);
        self.shrink();
        Some(entry)
    }

    /// Nothing is to be told any more; an entry with nothing else goes.
    pub(super) fn mark_delivered(&mut self, key: &SessionKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.totals.take(entry);
        entry.moved_header = None;
        self.totals.add(entry);
        if entry.data.is_none() {
            drop(self.remove(key));
        }
    }

    /// The session was here then.
    pub(super) fn saw(&mut self, key: &SessionKey, then: Tick) -> Option<&Entry> {
        let entry = self.entries.get_mut(key)?;
        entry.seen = entry.seen.max(then);
        Some(entry)
    }

    /// Keeps those of whom `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let totals = &mut self.totals;
        self.entries.retain(|_, entry| {
            let stays = keep(entry);
            if !stays {
                totals.take(entry);
            }
            stays
        });
        self.shrink();
    }

    /// The longest idle of these and of those that are in `longest` already, as far as is known, and as many as there is
    /// room for in it.
    pub(super) fn longest_idle(&self, longest: &mut BinaryHeap<Idle>) {
        for (key, entry) in &self.entries {
            let idle = (entry.seen, *key);
            if longest.len() < longest.capacity() {
                longest.push(idle);
            } else if let Some(mut latest) = longest.peek_mut()
                && idle < *latest
            {
                *latest = idle;
            }
        }
    }

    fn shrink(&mut self) {
        if self.entries.capacity() > 4 * self.entries.len() + 16 {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }
}

/// A session and when it was here last, as far as is known.
pub(super) type Idle = (Tick, SessionKey);
