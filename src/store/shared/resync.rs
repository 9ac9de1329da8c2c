//! After the store was out of reach it may be another one, or empty. What it was told is asked for once more, behind all
//! requests, and told again where it is missing: the next client of a session may come to a proxy that does not know it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::session::token::UnixMillis;

use super::SharedStore;
use super::read_through::StoreQuery;

/// How far it has come: the next shard of the table. Relaxed: only the task behind requests goes on, and who begins anew
/// is seen by its next step.
pub(super) struct Recall(AtomicUsize);

/// Names in one question.
const BATCH: usize = 512;
/// About so many sessions are asked for in one step, so some 20,000 a second.
const STEP: usize = 4 * BATCH;

impl Recall {
    /// Nothing was told yet.
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }

    /// From the beginning.
    pub(super) fn begin(&self) {
        self.0.store(0, Relaxed);
    }
}

impl SharedStore {
    /// One step, if there is anything left to recall.
    pub(super) async fn recall_some(&self, now: UnixMillis) {
        let (table, from) = (&self.context.table, self.behind.recall.0.load(Relaxed));
        if from >= table.shards() || self.gate.is_shut() {
            return;
        }
        let (mut next, mut sessions) = (from, Vec::new());
        while next < table.shards() && sessions.len() < STEP {
            table.copy_shard(next, &mut sessions);
            next += 1;
        }
        sessions.retain(|(key, _)| self.near.is_stored(key));
        let wanted = sessions.into_iter().filter_map(|(key, known)| {
            let pool = Arc::clone(table.target_at(known.target)?);
            Some(StoreQuery { key, pool, without_token: false, has_handoff: false })
        });
        let wanted: Vec<_> = wanted.collect();
        for some in wanted.chunks(BATCH) {
            if self.fetch_many(some, now).await.is_err() {
                // Once more with the next round.
                return;
            }
        }
        // Unless the store was lost again meanwhile.
        let _ = self.behind.recall.0.compare_exchange(from, next, Relaxed, Relaxed);
    }
}
