//! The entries of one shard.

use std::collections::{BinaryHeap, HashMap};

use http::HeaderValue;

use crate::session::key::{BuildKeyHasher, SessionKey};
use crate::store::expiry::Tick;
use crate::store::local::table::Table;
use crate::store::targets::TargetIndex;

/// The data of one session.
pub(super) struct Entry {
    /// What its last server handed over.
    pub(super) data: Option<HeaderValue>,
    /// Sent to its server until that has answered below 500. Boxed, since it is rare.
    pub(super) moved_header: Option<Box<HeaderValue>>,
    /// The epoch of the binding that both are valid for.
    pub(super) epoch: u32,
    /// When the session began.
    pub(super) created: Tick,
    /// The last visit, as of the last lookup in the table.
    pub(super) seen: Tick,
    /// Any target of its pool.
    pub(super) pool: TargetIndex,
}

/// An entry without its texts: its slot in the map, of which up to half are empty, the reference count of a copied value, and
/// what the allocator rounds up.
const ENTRY_BYTES: usize = size_of::<Entry>() + 128;

impl Entry {
    /// The memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        let moved_header = self.moved_header.as_ref().map_or(0, |header| size_of::<HeaderValue>() + header.len());
        ENTRY_BYTES + moved_header + self.data.as_ref().map_or(0, HeaderValue::len)
    }

    /// Whether its session has expired, with this last visit.
    pub(super) fn is_over(&self, seen: Tick, table: &Table, now: Tick) -> bool {
        let limits = table.target_at(self.pool).map(|target| &target.limits);
        limits.is_none_or(|limits| limits.verdict(self.created, seen, now).is_some())
    }
}

/// Sums over the entries of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) bytes: usize,
    /// Entries with a moved header.
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

    /// Removes the moved header; an entry without data is removed.
    pub(super) fn mark_delivered(&mut self, key: &SessionKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.totals.take(entry);
        entry.moved_header = None;
        self.totals.add(entry);
        if entry.data.is_none() {
            drop(self.remove(key));
        }
    }

    /// Updates the last visit.
    pub(super) fn saw(&mut self, key: &SessionKey, then: Tick) -> Option<&Entry> {
        let entry = self.entries.get_mut(key)?;
        entry.seen = entry.seen.max(then);
        Some(entry)
    }

    /// Removes the entries that `keep` rejects.
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

    /// Merges the longest idle of this shard into `longest`, up to its capacity.
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

/// A session with its last visit, as far as is known here.
pub(super) type Idle = (Tick, SessionKey);
