//! What the store knows comes into the table: when a request needs it, behind a request when a copy is old, and when
//! another proxy announces a move.

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

use super::freshness::{Freshness, Look, Touch};
use super::{SharedStore, StoreUnavailable};

/// A session that the store is to be asked for.
#[derive(Debug, Clone)]
pub struct StoreQuery {
    /// Its key.
    pub key: SessionKey,
    /// Any target of its pool.
    pub pool: Arc<Target>,
    /// Nothing but the store keeps it: it has no token.
    pub without_token: bool,
    /// Servers hand data over for it.
    pub has_handoff: bool,
}

/// A question to the store that requests wait for. However it ends, they are told, and the next one may ask again.
struct Flight {
    store: Arc<SharedStore>,
    wanted: Vec<StoreQuery>,
    answered: bool,
    tell: watch::Sender<Option<bool>>,
}

impl Flight {
    async fn fly(mut self, now: UnixMillis) {
        self.answered = self.store.fetch(&self.wanted, true, now).await.is_ok();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.store.flights.lock();
        for one in &self.wanted {
            flights.remove(&one.key);
        }
        drop(flights);
        // Nobody may be left to hear it.
        let _ = self.tell.send(Some(self.answered));
    }
}

impl SharedStore {
    /// Says for whom the store must be asked when a request that names this session must wait for it. When not, and it is
    /// time for that, the store is told of the visit, and asked anew, behind the request. `pool` is any target of its pool.
    pub fn query_for(
        &self,
        key: SessionKey,
        pool: &Arc<Target>,
        without_token: bool,
        has_handoff: bool,
        now: UnixMillis,
    ) -> Option<StoreQuery> {
        let announced = self.announces.load(Relaxed);
        let often = Touch { every: Self::touch_every(pool), anyway: has_handoff };
        let Look { freshness, touch, stored } = self.near.look(&key, now, often, announced);
        let wanted = || StoreQuery { key, pool: Arc::clone(pool), without_token, has_handoff };
        if touch {
            self.touch_behind(&wanted(), now);
        }
        // That nobody is bound by an id is no knowledge for later: its next server may bind it at any moment, and tell the
        // store, but announces it to nobody. And who stayed away from here may have been elsewhere. A token says enough,
        // unless the store says more and the table has had to forget it.
        let usable = || (!without_token && !stored) || self.is_live(&key, now);
        match freshness {
            Freshness::Fresh if usable() => None,
            Freshness::Stale { fetch } if usable() => {
                if fetch {
                    self.fetch_behind(wanted());
                }
                None
            }
            Freshness::Stale { fetch: true } => {
                self.near.not_asked(&key);
                Some(wanted())
            }
            _ => Some(wanted()),
        }
    }

    /// Brings into the table what the store knows of these sessions. Of parallel requests of one session one asks and all
    /// wait; a request that goes away takes nobody's answer with it.
    ///
    /// # Errors
    /// When the store did not say, for one of them at least.
    pub async fn query(self: &Arc<Self>, wanted: &[StoreQuery], now: UnixMillis) -> Result<(), StoreUnavailable> {
        if self.gate.is_shut() {
            self.context.metrics.store.count(StoreOperation::Lookup, StoreResult::Suspended);
            return Err(StoreUnavailable);
        }
        let mut answers = Ok(());
        for mut flight in self.flights_of(wanted, now) {
            let answered = flight.wait_for(Option::is_some).await.is_ok_and(|answered| *answered == Some(true));
            if !answered {
                answers = Err(StoreUnavailable);
            }
        }
        answers
    }

    fn flights_of(
        self: &Arc<Self>,
        wanted: &[StoreQuery],
        now: UnixMillis,
    ) -> SmallVec<[watch::Receiver<Option<bool>>; 2]> {
        let mut waiting = SmallVec::new();
        let mut mine = Vec::new();
        let (tell, told) = watch::channel(None);
        {
            let mut flights = self.flights.lock();
            for one in wanted {
                if let Some(flight) = flights.get(&one.key) {
                    waiting.push(flight.clone());
                } else {
                    flights.insert(one.key, told.clone());
                    mine.push(one.clone());
                }
            }
        }
        if !mine.is_empty() {
            waiting.push(told);
            let flight = Flight { store: Arc::clone(self), wanted: mine, answered: false, tell };
            tokio::spawn(flight.fly(now));
        }
        waiting
    }

    /// Asks for all of them at once. `visited`: a request of them is at hand.
    pub(super) async fn fetch(
        &self,
        wanted: &[StoreQuery],
        visited: bool,
        now: UnixMillis,
    ) -> Result<(), StoreUnavailable> {
        let names: Vec<Name> = wanted.iter().map(|one| Name::new(one.pool.pool(), one.key, Kind::Binding)).collect();
        let Ok(values) = self.read(StoreOperation::Lookup, self.engine.lookup(&names)).await else {
            for one in wanted {
                self.near.not_asked(&one.key);
            }
            return Err(StoreUnavailable);
        };
        for (one, value) in wanted.iter().zip(values) {
            self.found(one, value.as_ref(), visited, now);
        }
        Ok(())
    }

    /// The same for many, behind requests. Where one of several servers is lost, or somebody else has written under one of
    /// the names, the others are asked for all the same.
    ///
    /// # Errors
    /// When the store said nothing at all.
    pub(super) async fn fetch_many(&self, wanted: &[StoreQuery], now: UnixMillis) -> Result<(), StoreUnavailable> {
        if self.fetch(wanted, false, now).await.is_ok() {
            return Ok(());
        }
        let mut any = false;
        for one in wanted.chunks(1) {
            if self.gate.is_shut() {
                break;
            }
            any |= self.fetch(one, false, now).await.is_ok();
        }
        if any { Ok(()) } else { Err(StoreUnavailable) }
    }

    /// The store has said what it keeps of a session.
    fn found(&self, wanted: &StoreQuery, value: Option<&Value>, visited: bool, now: UnixMillis) {
        let StoreQuery { key, pool, without_token, .. } = wanted;
        let record = value.and_then(BindingRecord::read);
        let was_stored = self.near.note(*key, now, record.is_some());
        let often = Touch { every: Self::touch_every(pool), anyway: wanted.has_handoff };
        if visited && self.near.touch(key, now, often) {
            self.touch_behind(wanted, now);
        }
        // A session that has begun anew while the store was away does not go back to where the former one was.
        let void = record.as_ref().is_some_and(|record| Self::has_lasted(record, pool, now)) && self.is_live(key, now);
        if let Some(record) = record.as_ref().filter(|_| !void) {
            self.adopt(*key, pool, record, visited, now);
        }
        // A store that was restarted empty, or that lost what it had acknowledged, is told again.
        if let TableLookup::Live(known) = self.context.table.find(key, now) {
            let behind = match &record {
                Some(record) => void || known.epoch > record.epoch,
                None => *without_token || was_stored || self.is_tombstone(known.target),
            };
            if behind {
                self.write_behind(*key, Kind::Binding);
            }
        }
    }

    fn is_tombstone(&self, target: TargetIndex) -> bool {
        self.context.table.target_at(target).is_some_and(|target| target.is_tombstone())
    }

    /// Whether the session of a record is as old as it may be. What the store keeps outlives it by a little.
    pub(super) fn has_lasted(record: &BindingRecord, pool: &Target, now: UnixMillis) -> bool {
        record.server.is_some() && now.since(record.created) > pool.absolute()
    }

    /// The table learns of a record: the higher epoch stands, and of two equal ones the store's, which all proxies see.
    pub(super) fn adopt(&self, key: SessionKey, pool: &Target, record: &BindingRecord, visited: bool, now: UnixMillis) {
        let table = &self.context.table;
        let target = table.target(pool.pool(), record.server.as_deref().unwrap_or_default());
        let news = !matches!(table.find(&key, now), TableLookup::Live(known) if known.epoch >= record.epoch);
        if visited {
            table.restore(key, &target, record.epoch, record.created, now);
        } else {
            table.apply_remote(&key, &target, record.epoch, record.created);
        }
        if news {
            self.owe(key, &target, record, now);
        }
    }

    /// The session's server has not answered below 500 since the session moved there: whichever proxy asks it next tells
    /// it of the move, and gives it what was handed over.
    fn owe(&self, key: SessionKey, target: &Target, record: &BindingRecord, now: UnixMillis) {
        let Some(told) =
            record.moved_header.as_deref().and_then(|moved_header| HeaderValue::from_str(moved_header).ok())
        else {
            return;
        };
        let owner = Owner { key, epoch: record.epoch, created: record.created, pool: target.index() };
        let before = record.epoch.saturating_sub(1);
        self.context.data.record_move(&owner, before, Some(told), &self.context.table, now);
    }

    /// A proxy has announced a move. What is known here of the session is set right; what is not known is asked for when
    /// its client comes. What this proxy has announced itself it knows, or is about to: its request that moves the session
    /// must not find it moved by another.
    pub(super) fn hear_of_move(&self, name: &Name, value: &Value, now: UnixMillis) {
        let (Some((pool, key, Kind::Binding)), Some(record)) = (name.parts(), BindingRecord::read(value)) else {
            return;
        };
        if record.value(&self.node) == *value {
            return;
        }
        let table = &self.context.table;
        let target = table.target(pool, record.server.as_deref().unwrap_or_default());
        if table.apply_remote(&key, &target, record.epoch, record.created) {
            self.near.heard(&key);
            self.owe(key, &target, &record, now);
        } else {
            self.near.forget(&key);
        }
    }
}
