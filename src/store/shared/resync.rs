//! Resync after an outage: the store may be another one now, or empty. Every record known to be stored is read again in the
//! background, and written again where it is missing, because the session's next request may reach a proxy without it.

use std::sync::Arc;

use crate::session::token::UnixMillis;

use super::queue::StoreQuery;
use super::store::SharedStore;

/// Names in one read.
const BATCH: usize = 512;
/// Sessions in one step, about: some 20,000 a second.
const STEP: usize = 4 * BATCH;

impl SharedStore {
    /// One step, if a resync is under way.
    pub(super) async fn resync_step(&self, now: UnixMillis) {
        let (table, from) = (&self.context.table, self.queues.resync.next_shard());
        if from >= table.shards() || self.breaker.is_open() {
            return;
        }
        let (mut next, mut sessions) = (from, Vec::new());
        while next < table.shards() && sessions.len() < STEP {
            table.copy_shard(next, &mut sessions);
            next += 1;
        }
        sessions.retain(|(key, _)| self.freshness.is_stored(key));
        let queries = sessions.into_iter().filter_map(|(key, entry)| {
            let pool = Arc::clone(table.target_at(entry.target)?);
            Some(StoreQuery { key, pool, without_token: false, has_handoff: false })
        });
        let queries: Vec<_> = queries.collect();
        for batch in queries.chunks(BATCH) {
            if self.fetch_in_background(batch, now).await.is_err() {
                // The next round tries again.
                return;
            }
        }
        self.queues.resync.advance(from, next);
    }
}
