//! All data at once: copied shard by shard while requests go on, and put back before there are any.

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::local::table::Table;

use super::shard::Entry;
use super::{HandoffPayload, Owner, SessionData};

/// So many are copied under one lock: a few microseconds.
const COPIED_AT_ONCE: usize = 32;

/// What is kept of one session, apart from this process.
#[derive(Debug, Clone)]
pub struct DataRecord {
    /// Whose it is.
    pub owner: Owner,
    /// When the session was here last, as far as is known. The table may know better.
    pub seen: UnixMillis,
    /// Its data, and what its server is told of the move until it has answered below 500.
    pub payload: HandoffPayload,
}

impl SessionData {
    /// How many shards the entries are spread over.
    pub const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How many sessions have something here. Looks at every shard.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether nobody has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends what is kept of the sessions of a shard, in no order. Their texts are not copied but counted once more. That
    /// is done for a few at a time, since each text is a line of memory that no cache may hold, and others wait for the lock.
    ///
    /// Who goes from key to key meanwhile may be missed or seen twice.
    pub fn copy_shard(&self, shard: usize, into: &mut Vec<DataRecord>) {
        let Some(shard) = self.shards.get(shard) else { return };
        let count = shard.lock().len();
        let mut keys = Vec::with_capacity(count);
        keys.extend(shard.lock().iter().map(|(key, _)| *key).take(count));
        into.reserve(keys.len());
        for few in keys.chunks(COPIED_AT_ONCE) {
            let shard = shard.lock();
            into.extend(few.iter().filter_map(|key| Some(self.kept(*key, shard.find(key)?))));
        }
    }

    fn kept(&self, key: SessionKey, entry: &Entry) -> DataRecord {
        let Entry { epoch, created, seen, pool, .. } = *entry;
        DataRecord {
            owner: Owner { key, epoch, created: self.ticks.millis(created), pool },
            seen: self.ticks.millis(seen),
            payload: HandoffPayload { moved_header: entry.moved_header.as_deref().cloned(), data: entry.data.clone() },
        }
    }

    /// Puts back what was kept of a session, after the table has its sessions again: not when the session is beyond its
    /// limits `now`, and of two with one key the higher epoch. When there is no room the longest idle goes, which may be
    /// this one.
    ///
    /// Times from the future count as `now`: a clock that was set back must not make sessions immortal.
    pub fn import(&self, kept: DataRecord, table: &Table, now: UnixMillis) {
        let DataRecord {
            owner: Owner { key, epoch, created, pool },
            seen,
            payload: HandoffPayload { moved_header, mut data },
        } = kept;
        if let Some(data) = &mut data {
            data.set_sensitive(true);
        }
        let (created, seen) = (self.ticks.at(created.min(now)), self.ticks.at(seen.min(now)));
        let entry = Entry { data, moved_header: moved_header.map(Box::new), epoch, created, seen, pool };
        // As it was written, and not as the table knows better: by the difference it is seen that the session came back.
        let last_seen = self.last_seen(&(seen, key), table, now);
        let nothing = entry.data.is_none() && entry.moved_header.is_none();
        if nothing || entry.bytes() > self.most || entry.is_over(last_seen, table, self.ticks.at(now)) {
            return;
        }
        self.change(&key, |shard| {
            if shard.find(&key).is_none_or(|there| there.epoch <= epoch) {
                drop(shard.remove(&key));
                shard.insert(key, entry);
            }
        });
        self.make_room(&key, false, table, now);
    }

    /// Lets go of everything and tells nobody: what was in it was not to be believed.
    pub fn clear(&self) {
        for shard in &self.shards {
            self.account(shard, |shard| shard.retain(|_| false));
        }
    }
}
