//! Reading the store into the table: when a request needs it, in the background when an entry is stale, and when another
//! proxy announces a move.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderValue;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::engine::record::BindingRecord;
use crate::store::engine::{Kind, Name, Value};
use crate::store::local::data::Owner;
use crate::store::targets::{Target, TargetIndex};
use crate::telemetry::metrics::{StoreOperation, StoreResult};

use super::freshness::{Freshness, FreshnessCheck, TouchPolicy};
use super::queue::StoreQuery;
use super::store::{SharedStore, StoreUnavailable};

/// A read that several requests wait for. However it ends, they are woken, and the next request may read again.
struct SharedRead {
    store: Arc<SharedStore>,
    queries: Vec<StoreQuery>,
    succeeded: bool,
    result: watch::Sender<Option<bool>>,
}

impl SharedRead {
    async fn run(mut self, now: UnixMillis) {
        self.succeeded = self.store.fetch(&self.queries, true, now).await.is_ok();
    }
}

impl Drop for SharedRead {
    fn drop(&mut self) {
        let mut reads = self.store.reads.lock();
        for query in &self.queries {
            reads.remove(&query.key);
        }
        drop(reads);
        // All requests may have gone away.
        let _ = self.result.send(Some(self.succeeded));
    }
}

impl SharedStore {
    /// What to read before a request of this session is decided; `None` = nothing. When it is time, the stored lifetime is
    /// extended and a stale entry refreshed in the background. `pool` is any target of the session's pool.
    pub fn query_for(
        &self,
        key: SessionKey,
        pool: &Arc<Target>,
        without_token: bool,
        has_handoff: bool,
        now: UnixMillis,
    ) -> Option<StoreQuery> {
        let announced = self.announces.load(Relaxed);
        let policy = Self::touch_policy(pool, has_handoff);
        let FreshnessCheck { freshness, touch, stored } = self.freshness.check(&key, now, policy, announced);
        let query = || StoreQuery { key, pool: Arc::clone(pool), without_token, has_handoff };
        if touch {
            self.touch_in_background(&query(), now);
        }
        // That an id is unbound is not remembered: a server may bind it at any moment, and writes that without an
        // announcement. An entry that has expired here may have been used elsewhere. A token says enough, unless the store
        // says more and the table has evicted it.
        let usable = || (!without_token && !stored) || self.is_live(&key, now);
        match freshness {
            Freshness::Fresh if usable() => None,
            Freshness::Stale { fetch, urgent } if usable() => {
                if fetch && !self.queue_fetch(query(), urgent, now) {
                    self.freshness.release_fetch(&key);
                }
                None
            }
            Freshness::Stale { fetch: true, .. } => {
                self.freshness.release_fetch(&key);
                Some(query())
            }
            _ => Some(query()),
        }
    }

    /// False when the queue is full.
    fn queue_fetch(&self, query: StoreQuery, urgent: bool, now: UnixMillis) -> bool {
        match self.freshness.gathering() {
            Some(_) if !urgent => self.queues.gather(query, now),
            _ => self.queues.push_fetch(query),
        }
    }

    pub(super) fn touch_policy(pool: &Target, has_handoff: bool) -> TouchPolicy {
        TouchPolicy { interval: Self::touch_interval(pool), without_record: has_handoff }
    }

    /// Reads these sessions into the table. Parallel requests of one session share a read, which goes on when one of them
    /// goes away.
    ///
    /// # Errors
    /// When at least one of them could not be read.
    pub async fn query(self: &Arc<Self>, queries: &[StoreQuery], now: UnixMillis) -> Result<(), StoreUnavailable> {
        if self.breaker.is_open() {
            self.context.metrics.store.count(StoreOperation::Lookup, StoreResult::Suspended);
            return Err(StoreUnavailable);
        }
        let mut result = Ok(());
        for mut read in self.join_reads(queries, now) {
            let succeeded = read.wait_for(Option::is_some).await.is_ok_and(|succeeded| *succeeded == Some(true));
            if !succeeded {
                result = Err(StoreUnavailable);
            }
        }
        result
    }

    /// The reads of these sessions that are under way, and a new one for the others.
    fn join_reads(
        self: &Arc<Self>,
        queries: &[StoreQuery],
        now: UnixMillis,
    ) -> SmallVec<[watch::Receiver<Option<bool>>; 2]> {
        let mut joined = SmallVec::new();
        let mut new = Vec::new();
        let (result, receiver) = watch::channel(None);
        {
            let mut reads = self.reads.lock();
            for query in queries {
                if let Some(read) = reads.get(&query.key) {
                    joined.push(read.clone());
                } else {
                    reads.insert(query.key, receiver.clone());
                    new.push(query.clone());
                }
            }
        }
        if !new.is_empty() {
            joined.push(receiver);
            let read = SharedRead { store: Arc::clone(self), queries: new, succeeded: false, result };
            tokio::spawn(read.run(now));
        }
        joined
    }

    /// Reads all of them in one lookup. `visited` = a request of them is at hand.
    async fn fetch(&self, queries: &[StoreQuery], visited: bool, now: UnixMillis) -> Result<(), StoreUnavailable> {
        let names: Vec<Name> = queries.iter().map(StoreQuery::name).collect();
        let Ok(values) = self.read(StoreOperation::Lookup, self.engine.lookup(&names)).await else {
            for query in queries {
                self.freshness.release_fetch(&query.key);
            }
            return Err(StoreUnavailable);
        };
        for (query, value) in queries.iter().zip(values) {
            self.apply_lookup(query, value.as_ref(), visited, now);
        }
        Ok(())
    }

    /// The same without requests. Where one of several servers is lost, or one name holds a foreign value, the others are
    /// read nevertheless.
    ///
    /// # Errors
    /// When nothing could be read.
    pub(super) async fn fetch_in_background(
        &self,
        queries: &[StoreQuery],
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        if self.fetch(queries, false, now).await.is_ok() {
            return Ok(());
        }
        let mut any = false;
        for query in queries.chunks(1) {
            if self.breaker.is_open() {
                break;
            }
            any |= self.fetch(query, false, now).await.is_ok();
        }
        if any { Ok(()) } else { Err(StoreUnavailable) }
    }

    fn apply_lookup(&self, query: &StoreQuery, value: Option<&Value>, visited: bool, now: UnixMillis) {
        let StoreQuery { key, pool, without_token, has_handoff } = query;
        let record = value.and_then(BindingRecord::read);
        let was_stored = self.freshness.record_read(*key, now, record.is_some());
        if visited && self.freshness.touch_if_due(key, now, Self::touch_policy(pool, *has_handoff)) {
            self.touch_in_background(query, now);
        }
        // A session that began again during an outage does not return to where the former one was.
        let void = record.as_ref().is_some_and(|record| Self::is_expired(record, pool, now)) && self.is_live(key, now);
        if let Some(record) = record.as_ref().filter(|_| !void) {
            self.adopt(*key, pool, record, visited, now);
        }
        // A store that was restarted empty, or that lost an acknowledged write, gets the record again.
        if let TableLookup::Live(entry) = self.context.table.find(key, now) {
            let outdated = match &record {
                Some(record) => void || entry.epoch > record.epoch,
                None => *without_token || was_stored || self.is_tombstone(entry.target),
            };
            if outdated {
                self.write_behind(*key, Kind::Binding);
            }
        }
    }

    fn is_tombstone(&self, target: TargetIndex) -> bool {
        self.context.table.target_at(target).is_some_and(|target| target.is_tombstone())
    }

    /// Whether the session of a record has reached its absolute limit. Records outlive it a little.
    pub(super) fn is_expired(record: &BindingRecord, pool: &Target, now: UnixMillis) -> bool {
        record.server.is_some() && now.since(record.created) > pool.absolute()
    }

    /// Merges a record into the table: the higher epoch wins, and of two equal ones the store's, which all proxies see.
    pub(super) fn adopt(&self, key: SessionKey, pool: &Target, record: &BindingRecord, visited: bool, now: UnixMillis) {
        let table = &self.context.table;
        let target = table.target(pool.pool(), record.server.as_deref().unwrap_or_default());
        let news = !matches!(table.find(&key, now), TableLookup::Live(entry) if entry.epoch >= record.epoch);
        if visited {
            table.restore(key, &target, record.epoch, record.created, now);
        } else {
            table.apply_remote(&key, &target, record.epoch, record.created);
        }
        if news {
            self.adopt_moved_header(key, &target, record, now);
        }
    }

    /// The session's server has not answered below 500 since the move: the proxy that sends it the next request sends the
    /// header and the data.
    fn adopt_moved_header(&self, key: SessionKey, target: &Target, record: &BindingRecord, now: UnixMillis) {
        let header = record.moved_header.as_deref().and_then(|header| HeaderValue::from_str(header).ok());
        let Some(header) = header else { return };
        let owner = Owner { key, epoch: record.epoch, created: record.created, pool: target.index() };
        let before = record.epoch.saturating_sub(1);
        self.context.data.record_move(&owner, before, Some(header), &self.context.table, now);
    }

    /// A proxy has announced a move. An entry of the table is corrected; without one, the session is read when it is next
    /// named. This proxy's own announcements are skipped: its request must not find its own move done by another.
    pub(super) fn apply_announcement(&self, name: &Name, value: &Value, now: UnixMillis) {
        let (Some((pool, key, Kind::Binding)), Some(record)) = (name.parts(), BindingRecord::read(value)) else {
            return;
        };
        if record.value(&self.node) == *value {
            return;
        }
        let table = &self.context.table;
        let target = table.target(pool, record.server.as_deref().unwrap_or_default());
        if table.apply_remote(&key, &target, record.epoch, record.created) {
            self.freshness.record_announcement(&key);
            self.adopt_moved_header(key, &target, &record, now);
        } else {
            self.freshness.remove(&key);
        }
    }
}
