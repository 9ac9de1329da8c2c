//! All data: copied shard by shard while requests go on, and imported before there are any.

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::local::table::Table;

use super::shard::Entry;
use super::{HandoffPayload, Owner, SessionData};

/// Entries copied under one lock: a few microseconds.
const COPY_BATCH: usize = 32;

/// The data of one session, independent of this process.
#[derive(Debug, Clone)]
pub struct DataRecord {
    /// The session.
    pub owner: Owner,
    /// When the session was last seen. The table may have a later time.
    pub seen: UnixMillis,
    /// Its data, and the moved header that is sent until its server has answered below 500.
    pub payload: HandoffPayload,
}

impl SessionData {
    /// How many shards the entries are spread over.
    pub const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The number of sessions. Locks every shard in turn.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the data of the sessions of a shard, in no order. The texts are shared, not copied. A few at a time, since each
    /// reference count is a likely cache miss under the lock.
    ///
    /// A session that moves to another key meanwhile may be missed or copied twice.
    pub fn copy_shard(&self, shard: usize, into: &mut Vec<DataRecord>) {
        let Some(shard) = self.shards.get(shard) else { return };
        let mut keys = Vec::new();
        loop {
            let count = shard.lock().len();
            keys.reserve(count + count / 8 + 8);
            let shard = shard.lock();
            if shard.len() <= keys.capacity() {
                keys.extend(shard.iter().map(|(key, _)| *key));
                break;
            }
        }
        into.reserve(keys.len());
        for few in keys.chunks(COPY_BATCH) {
            let shard = shard.lock();
            into.extend(few.iter().filter_map(|key| Some(self.record(*key, shard.find(key)?))));
        }
    }

    /// The data of one session.
    pub fn copy_one(&self, key: &SessionKey) -> Option<DataRecord> {
        let shard = self.shard(key)?.lock();
        Some(self.record(*key, shard.find(key)?))
    }

    fn record(&self, key: SessionKey, entry: &Entry) -> DataRecord {
        let Entry { epoch, created, seen, pool, .. } = *entry;
        DataRecord {
            owner: Owner { key, epoch, created: self.ticks.millis(created), pool },
            seen: self.ticks.millis(seen),
            payload: HandoffPayload { moved_header: entry.moved_header.as_deref().cloned(), data: entry.data.clone() },
        }
    }

    /// Imports a session's data, after the table has been loaded: not when the session is beyond its limits `now`, and of two
    /// with one key the higher epoch. When full, the longest idle is evicted, which may be this one.
    ///
    /// Times in the future count as `now`: a clock that was set back must not make sessions immortal.
    pub fn import(&self, record: DataRecord, table: &Table, now: UnixMillis) {
        let DataRecord {
            owner: Owner { key, epoch, created, pool },
            seen,
            payload: HandoffPayload { moved_header, mut data },
        } = record;
        if let Some(data) = &mut data {
            data.set_sensitive(true);
        }
        let (created, seen) = (self.ticks.at(created.min(now)), self.ticks.at(seen.min(now)));
        let entry = Entry { data, moved_header: moved_header.map(Box::new), epoch, created, seen, pool };
        // The entry keeps the written time, not the table's: the difference shows that the session came back.
        let last_seen = self.last_seen(&(seen, key), table, now);
        let empty = entry.data.is_none() && entry.moved_header.is_none();
        if empty || entry.bytes() > self.most || entry.is_over(last_seen, table, self.ticks.at(now)) {
            return;
        }
        self.change(&key, |shard| {
            if shard.find(&key).is_none_or(|existing| existing.epoch <= epoch) {
                drop(shard.remove(&key));
                shard.insert(key, entry);
            }
        });
        self.make_room(&key, false, table, now);
    }

    /// Removes everything without reporting it.
    pub fn clear(&self) {
        for shard in &self.shards {
            self.account(shard, |shard| shard.retain(|_| false));
        }
    }
}
