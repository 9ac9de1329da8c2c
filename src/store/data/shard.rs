//! Some of the sessions that have data, in the order in which they were seen, as far as is known.

use http::HeaderValue;
use lru::LruCache;

use crate::session::key::{BuildKeyHasher, SessionKey};
use crate::store::expiry::Tick;
use crate::store::memory::Table;
use crate::store::places::PlaceIndex;

/// What is kept of one session.
pub(super) struct Entry {
    /// What its last server handed over.
    pub(super) data: Option<HeaderValue>,
    /// What its server is told of the move until it has answered below 500. Boxed, since it is rare.
    pub(super) told: Option<Box<HeaderValue>>,
    /// The binding that both are right for.
    pub(super) epoch: u32,
    /// When the session began.
    pub(super) created: Tick,
    /// When it was here last, as far as was asked.
    pub(super) seen: Tick,
    /// Any place of its pool.
    pub(super) pool: PlaceIndex,
}

/// An entry without its texts: itself, its links, its slot in the map, the count of who holds its value once that was
/// copied, and what the allocator rounds up.
const ENTRY_BYTES: usize = size_of::<Entry>() + 128;

impl Entry {
    /// Memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let told = self.told.as_ref().map_or(0, |told| size_of::<HeaderValue>() + told.len());
        ENTRY_BYTES + told + self.data.as_ref().map_or(0, HeaderValue::len)
    }

    /// Its session has ended, if it was `seen` last then.
    pub(super) fn is_over(&self, seen: Tick, table: &Table, now: Tick) -> bool {
        let limits = table.place_at(self.pool).map(|place| &place.limits);
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
        self.pending += usize::from(entry.told.is_some());
    }

    fn take(&mut self, entry: &Entry) {
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        self.pending = self.pending.saturating_sub(usize::from(entry.told.is_some()));
    }
}

/// A shard, under its lock.
pub(super) struct Shard {
    entries: LruCache<SessionKey, Entry, BuildKeyHasher>,
    totals: Totals,
}

/// So many of those who were idle the longest, as far as is known, are asked for when one must go.
const LOOKED_AT: usize = 8;

impl Shard {
    pub(super) fn new() -> Self {
        Self { entries: LruCache::unbounded_with_hasher(BuildKeyHasher), totals: Totals::default() }
    }

    pub(super) const fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All, the longest idle first, as far as is known.
    pub(super) fn oldest_first(&self) -> impl ExactSizeIterator<Item = (&SessionKey, &Entry)> {
        self.entries.iter().rev()
    }

    pub(super) fn find(&self, key: &SessionKey) -> Option<&Entry> {
        self.entries.peek(key)
    }

    /// In place of nothing: whoever was there has been removed.
    pub(super) fn insert(&mut self, key: SessionKey, entry: Entry) {
        self.totals.add(&entry);
        if let Some(former) = self.entries.put(key, entry) {
            self.totals.take(&former);
        }
    }

    pub(super) fn remove(&mut self, key: &SessionKey) -> Option<Entry> {
        let entry = self.entries.pop(key)?;
        self.totals.take(&entry);
        Some(entry)
    }

    /// Nothing is to be told any more; an entry with nothing else goes.
    pub(super) fn delivered(&mut self, key: &SessionKey) {
        let Some(entry) = self.entries.peek_mut(key) else { return };
        self.totals.take(entry);
        entry.told = None;
        self.totals.add(entry);
        if entry.data.is_none() {
            drop(self.remove(key));
        }
    }

    /// Keeps those of whom `keep` says so; it may change when they were seen, and nothing else.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&SessionKey, &mut Entry) -> bool) {
        let (totals, mut came_back) = (&mut self.totals, Vec::new());
        self.entries.retain(|key, entry| {
            let seen = entry.seen;
            let stays = keep(key, entry);
            if !stays {
                totals.take(entry);
            } else if entry.seen != seen {
                came_back.push(*key);
            }
            stays
        });
        for key in came_back {
            self.entries.promote(&key);
        }
    }

    /// Sends others away until there is room for so many bytes; false when there cannot be. The longest idle goes: of the
    /// few who stand first, those who came back meanwhile stand last again.
    pub(super) fn make_room(
        &mut self,
        bytes: usize,
        share: usize,
        last_seen: impl Fn(&SessionKey, &Entry) -> Tick,
        evicted: &mut Vec<PlaceIndex>,
    ) -> bool {
        while self.totals.bytes + bytes > share {
            let mut first: Vec<_> = self.entries.iter().rev().take(LOOKED_AT).map(|(key, _)| *key).collect();
            first.retain(|key| !self.came_back(key, &last_seen));
            let idle = first.first().or_else(|| self.entries.peek_lru().map(|(key, _)| key)).copied();
            let Some(idle) = idle else { return false };
            evicted.extend(self.remove(&idle).map(|entry| entry.pool));
        }
        true
    }

    fn came_back(&mut self, key: &SessionKey, last_seen: impl Fn(&SessionKey, &Entry) -> Tick) -> bool {
        let Some(entry) = self.entries.peek_mut(key) else { return false };
        let seen = last_seen(key, entry);
        let came_back = seen > entry.seen;
        if came_back {
            entry.seen = seen;
            self.entries.promote(key);
        }
        came_back
    }
}
