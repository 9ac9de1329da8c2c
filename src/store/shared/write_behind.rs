//! Background work: lifetimes are extended in batches, stale entries refreshed, pending writes repeated, and the store is
//! pinged.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::engine::{Event, Kind, Name};
use crate::store::targets::Target;
use crate::telemetry::metrics::{StoreOperation, StoreResult};

use super::pending::PendingWrite;
use super::queue::StoreQuery;
use super::store::{SharedStore, StoreUnavailable};

/// The wall clock, which nothing in this folder reads by itself.
pub type Clock = fn() -> UnixMillis;

/// Names in one call.
const BATCH: usize = 512;
/// The pause between two rounds.
const ROUND: Duration = Duration::from_millis(100);
/// How long urgent work is collected before a round.
const GATHER: Duration = Duration::from_millis(5);
/// Pending writes under way at once.
const MAX_CONCURRENT_WRITES: usize = 64;
/// The pause between two pings while the breaker is open.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The same while it is closed, so that `homing_store_up` is right without traffic.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two attempts at a shutdown.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);

impl SharedStore {
    /// Queues an extension of the session's lifetime in the store, and of its data's where servers hand some over.
    pub(super) fn touch_in_background(&self, query: &StoreQuery, now: UnixMillis) {
        let StoreQuery { key, pool, has_handoff, .. } = query;
        let created = match self.context.table.find(key, now) {
            TableLookup::Live(entry) => entry.created,
            _ => now,
        };
        let binding = Name::new(pool.pool(), *key, Kind::Binding);
        let data = has_handoff.then(|| Name::new(pool.pool(), *key, Kind::Data));
        if !self.queues.push_touches([Some(binding), data].into_iter().flatten(), Self::ttl(pool, created, now)) {
            self.context.metrics.store.count(StoreOperation::Touch, StoreResult::Dropped);
        }
    }

    /// A request of this session has been under way for long: its record is kept alive. One with a token is written first,
    /// since other proxies know it by its token alone, which says that it has been idle. `pool` is any target of its pool.
    pub fn extend(&self, key: SessionKey, pool: &Arc<Target>, has_token: bool, has_handoff: bool, now: UnixMillis) {
        if has_token && !self.is_stored(&key) {
            self.write_behind(key, Kind::Binding);
        }
        if self.freshness.touch_if_due(&key, now, Self::touch_policy(pool, has_handoff)) {
            let query = StoreQuery { key, pool: Arc::clone(pool), without_token: !has_token, has_handoff };
            self.touch_in_background(&query, now);
        }
    }

    /// Runs for as long as the process does. Drop it to stop.
    pub async fn run_background(self: Arc<Self>, events: UnboundedReceiver<Event>, clock: Clock) {
        tokio::join!(self.handle_events(events, clock), self.run_rounds(clock), self.run_pings());
    }

    async fn handle_events(&self, mut events: UnboundedReceiver<Event>, clock: Clock) {
        while let Some(event) = events.recv().await {
            self.on_event(event, clock());
        }
    }

    async fn run_rounds(&self, clock: Clock) {
        loop {
            tokio::select! {
                biased;
                () = self.queues.wake.notified() => sleep(GATHER).await,
                () = sleep(ROUND) => {}
            }
            self.round(clock()).await;
        }
    }

    /// Decisions first, since other proxies need them.
    pub(super) async fn round(&self, now: UnixMillis) {
        self.write_pending(now).await;
        self.fetch_stale(now).await;
        self.resync_step(now).await;
        self.write_touches().await;
    }

    async fn write_pending(&self, now: UnixMillis) {
        while !self.breaker.is_open() {
            let mut failed = false;
            let all: Vec<_> = self.pending.begin(BATCH).into_iter().map(|write| self.write_one(write, now)).collect();
            if all.is_empty() {
                return;
            }
            let mut all = stream::iter(all).buffer_unordered(MAX_CONCURRENT_WRITES);
            while let Some(written) = all.next().await {
                failed |= written.is_err();
            }
            drop(all);
            self.context.metrics.store.set_pending(self.pending.len());
            if failed {
                return;
            }
        }
    }

    async fn write_one(&self, write: PendingWrite<'_>, now: UnixMillis) -> Result<(), StoreUnavailable> {
        let (key, kind) = write.key;
        if kind == Kind::Binding {
            self.publish(key, write.assigned, now).await?;
        } else if let Some((owner, data)) = self.context.data.find_with_owner(&key) {
            self.try_put_data(&owner, Some(&data), now).await?;
        } else {
            self.forget_data(key, now).await?;
        }
        write.complete();
        Ok(())
    }

    async fn fetch_stale(&self, now: UnixMillis) {
        let gathering = self.freshness.gathering();
        let mut gathered = gathering.map(|time| self.queues.take_gathered(now, time)).unwrap_or_default();
        // Names of one partition are read by one command where they are in one batch.
        gathered.sort_by_cached_key(|query| self.engine.partition(&query.name()));
        for mut stale in [self.queues.take_fetches(), gathered] {
            while !stale.is_empty() {
                let mut batch = stale.split_off(stale.len().saturating_sub(BATCH));
                // Keys are random: where a batch fails and is read one by one, the names of a lost server do not follow each
                // other, which would open the breaker.
                batch.sort_unstable_by_key(|query| query.key.0);
                // After a failure, the next request of the session tries again.
                let _ = self.fetch_in_background(&batch, now).await;
            }
        }
    }

    async fn write_touches(&self) {
        if self.breaker.is_open() {
            return;
        }
        for batch in self.queues.take_touches().chunks(BATCH) {
            if self.read(StoreOperation::Touch, self.engine.touch(batch)).await.is_err() {
                self.queues.requeue_touches(batch);
            }
        }
    }

    async fn run_pings(&self) {
        loop {
            let was_open = self.breaker.is_open();
            tokio::select! {
                biased;
                () = self.breaker.probe.notified() => {
                    if self.breaker.is_open() && !was_open {
                        // Not at once: an answered ping does not mean that requests are answered in time.
                        continue;
                    }
                }
                () = sleep(if was_open { PROBE_INTERVAL } else { PING_INTERVAL }) => {}
            }
            self.ping().await;
        }
    }

    async fn ping(&self) {
        let answered = matches!(tokio::time::timeout(self.timeout, self.engine.ping()).await, Ok(Ok(())));
        let result = if answered { StoreResult::Ok } else { StoreResult::Unreachable };
        self.context.metrics.store.count(StoreOperation::Ping, result);
        self.set_unavailable(!answered || self.breaker.is_open());
        if answered && self.breaker.is_open() {
            tracing::info!("shared store recovered");
            self.resume();
        }
    }

    /// Writes everything pending before a shutdown, as soon as the store answers. Drop it when that takes too long.
    pub async fn flush(&self, clock: Clock) {
        self.round(clock()).await;
        while self.pending.len() > 0 {
            sleep(FLUSH_PAUSE).await;
            if self.breaker.is_open() {
                self.ping().await;
            }
            self.write_pending(clock()).await;
        }
    }

    /// Waiting writes, touches and fetches.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize, usize) {
        let (touches, fetches) = self.queues.lens();
        (self.pending.len(), touches, fetches)
    }
}
