//! What is done behind requests: visits are told to the store in batches, old copies are fetched anew, what could not be
//! written is written, and a store that did not answer is asked whether it does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::engine::{Event, Kind, Name};
use crate::telemetry::metrics::{StoreOperation, StoreResult};

use super::pending::Taken;
use super::read_through::StoreQuery;
use super::resync::Recall;
use super::{SharedStore, StoreUnavailable};

/// The wall clock: nothing in this folder reads it.
pub type Clock = fn() -> UnixMillis;

/// What waits to be done behind requests. Locked for the time of a push.
pub(super) struct Queues {
    /// Names to live longer, and how long.
    touches: Mutex<HashMap<Name, Duration>>,
    /// Sessions whose copy is old.
    fetches: Mutex<Vec<StoreQuery>>,
    /// What the store was told, to be asked for once more.
    pub(super) recall: Recall,
    /// Woken when there is something that should not wait for the next round.
    pub(super) wake: Notify,
}

/// Most names in one step.
const BATCH: usize = 512;
/// Most that waits of each kind; what does not fit is done with a later visit.
const MOST: usize = 65_536;
/// The pause between two rounds when nothing hurries.
const ROUND: Duration = Duration::from_millis(100);
/// So long what hurries is gathered.
const GATHER: Duration = Duration::from_millis(5);
/// So many decisions are written at once.
const AT_ONCE: usize = 64;
/// A store that does not answer is asked so often.
const PROBE: Duration = Duration::from_millis(250);
/// The pause between two tries before a stop.
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// A store that answers, too: so `homing_store_up` is right where nobody comes.
const WATCH: Duration = Duration::from_secs(1);

impl Queues {
    pub(super) fn new() -> Self {
        Self { touches: Mutex::default(), fetches: Mutex::default(), recall: Recall::new(), wake: Notify::new() }
    }
}

impl SharedStore {
    /// The store is to keep a session longer: it was here. Session data too, where servers hand some over.
    pub(super) fn touch_behind(&self, wanted: &StoreQuery, now: UnixMillis) {
        let StoreQuery { key, pool, has_handoff, .. } = wanted;
        let created = match self.context.table.find(key, now) {
            TableLookup::Live(known) => known.created,
            _ => now,
        };
        let ttl = Self::ttl(pool, created, now);
        let mut touches = self.behind.touches.lock();
        if touches.len() >= MOST {
            drop(touches);
            return self.context.metrics.store.count(StoreOperation::Touch, StoreResult::Dropped);
        }
        touches.insert(Name::new(pool.pool(), *key, Kind::Binding), ttl);
        if *has_handoff {
            touches.insert(Name::new(pool.pool(), *key, Kind::Data), ttl);
        }
    }

    /// A copy is old; it is good until the next round, which asks for all that are.
    pub(super) fn fetch_behind(&self, wanted: StoreQuery) {
        let mut fetches = self.behind.fetches.lock();
        if fetches.len() >= MOST {
            drop(fetches);
            return self.near.not_asked(&wanted.key);
        }
        fetches.push(wanted);
    }

    /// All that goes on behind requests, for as long as the process runs. Drop it to stop.
    pub async fn run_background(self: Arc<Self>, events: UnboundedReceiver<Event>, clock: Clock) {
        tokio::join!(self.listen(events, clock), self.rounds(clock), self.watch());
    }

    async fn listen(&self, mut events: UnboundedReceiver<Event>, clock: Clock) {
        while let Some(event) = events.recv().await {
            self.on_event(event, clock());
        }
    }

    async fn rounds(&self, clock: Clock) {
        loop {
            tokio::select! {
                biased;
                () = self.behind.wake.notified() => sleep(GATHER).await,
                () = sleep(ROUND) => {}
            }
            self.round(clock()).await;
        }
    }

    /// One round: what was decided first, since others wait for it.
    pub(super) async fn round(&self, now: UnixMillis) {
        self.write_pending(now).await;
        self.fetch_old_copies(now).await;
        self.recall_some(now).await;
        self.tell_of_visits().await;
    }

    async fn write_pending(&self, now: UnixMillis) {
        while !self.gate.is_shut() {
            let mut failed = false;
            let all: Vec<_> = self.pending.take(BATCH).into_iter().map(|one| self.write_one(one, now)).collect();
            if all.is_empty() {
                return;
            }
            let mut all = stream::iter(all).buffer_unordered(AT_ONCE);
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

    async fn write_one(&self, one: Taken<'_>, now: UnixMillis) -> Result<(), StoreUnavailable> {
        let (key, kind) = one.unwritten;
        if kind == Kind::Binding {
            self.publish(key, one.insists, now).await?;
        } else if let Some((owner, data)) = self.context.data.find_with_owner(&key) {
            self.try_put_data(&owner, Some(&data), now).await?;
        } else {
            self.forget_data(key, now).await?;
        }
        one.written();
        Ok(())
    }

    async fn fetch_old_copies(&self, now: UnixMillis) {
        let mut old = std::mem::take(&mut *self.behind.fetches.lock());
        while !old.is_empty() {
            let some = old.split_off(old.len().saturating_sub(BATCH));
            // Whoever comes next asks again.
            let _ = self.fetch_many(&some, now).await;
        }
    }

    async fn tell_of_visits(&self) {
        if self.gate.is_shut() {
            return;
        }
        let touches: Vec<_> = std::mem::take(&mut *self.behind.touches.lock()).into_iter().collect();
        for some in touches.chunks(BATCH) {
            if self.read(StoreOperation::Touch, self.engine.touch(some)).await.is_err() {
                self.tell_later(some);
            }
        }
    }

    /// Whoever was here meanwhile again lives longer by that.
    fn tell_later(&self, visits: &[(Name, Duration)]) {
        let mut touches = self.behind.touches.lock();
        for (name, ttl) in visits {
            if touches.len() < MOST {
                touches.entry(name.clone()).or_insert(*ttl);
            }
        }
    }

    async fn watch(&self) {
        loop {
            let shut = self.gate.is_shut();
            tokio::select! {
                biased;
                () = self.gate.doubts.notified() => {
                    if self.gate.is_shut() && !shut {
                        // Not at once: that it answers a ping does not mean that it answers in time.
                        continue;
                    }
                }
                () = sleep(if shut { PROBE } else { WATCH }) => {}
            }
            self.probe().await;
        }
    }

    async fn probe(&self) {
        let metrics = &self.context.metrics.store;
        let answered = matches!(tokio::time::timeout(self.timeout, self.engine.ping()).await, Ok(Ok(())));
        let result = if answered { StoreResult::Ok } else { StoreResult::Unreachable };
        metrics.count(StoreOperation::Ping, result);
        self.set_away(!answered || self.gate.is_shut());
        if answered && self.gate.is_shut() {
            tracing::info!("the shared store answers in time again");
            self.answers();
        }
    }

    /// Before a stop: what is still to be written is, as soon as the store answers. Drop it when that takes too long.
    pub async fn flush(&self, clock: Clock) {
        self.round(clock()).await;
        while self.pending.len() > 0 {
            sleep(LAST_PAUSE).await;
            if self.gate.is_shut() {
                self.probe().await;
            }
            self.write_pending(clock()).await;
        }
    }

    /// How much waits: writes, touches, fetches.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize, usize) {
        (self.pending.len(), self.behind.touches.lock().len(), self.behind.fetches.lock().len())
    }
}
