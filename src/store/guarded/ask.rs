//! What the store knows comes into the table: when a request needs it, behind a request when a copy is old, and when
//! another proxy announces a move.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::watch;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::Found;
use crate::store::engine::record::Record;
use crate::store::engine::{Kind, Name, Value};
use crate::store::places::Place;
use crate::telemetry::metrics::{StoreOperation, StoreResult};

use super::near::{Freshness, Look};
use super::{SharedStore, Unanswered};

/// A session that the store is to be asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its key.
    pub key: SessionKey,
    /// Any place of its pool.
    pub pool: Arc<Place>,
    /// Nothing but the store keeps it: it has no token.
    pub only_here: bool,
}

impl SharedStore {
    /// Whether a request that names this session must wait for the store. When not, and it is time for that, the store is
    /// told of the visit, and asked anew, behind the request.
    pub fn must_ask(&self, wanted: &Wanted, hands_over: bool, now: UnixMillis) -> bool {
        let Wanted { key, pool, only_here } = wanted;
        let announced = self.engine.capabilities().announces;
        let Look { freshness, touch } = self.near.look(key, now, Self::touch_every(pool), announced);
        if touch {
            self.touch_behind(*key, pool, hands_over);
        }
        // That nobody is bound by an id is no knowledge for later: its next server may bind it at any moment, and tell the
        // store, but announces it to nobody. And who stayed away from here may have been elsewhere.
        let usable = || !only_here || self.is_live(key, now);
        match freshness {
            Freshness::Fresh => !usable(),
            Freshness::Stale { fetch } => {
                let usable = usable();
                if fetch && usable {
                    self.fetch_behind(wanted.clone());
                } else if fetch {
                    self.near.not_asked(key);
                }
                !usable
            }
            Freshness::Unknown => true,
        }
    }

    /// Brings into the table what the store knows of these sessions. Of parallel requests of one session one asks and all
    /// wait; a request that goes away takes nobody's answer with it.
    ///
    /// # Errors
    /// When the store did not say, for one of them at least.
    pub async fn ask(self: &Arc<Self>, wanted: &[Wanted], now: UnixMillis) -> Result<(), Unanswered> {
        if self.gate.is_shut() {
            self.around.metrics.store.count(StoreOperation::Lookup, StoreResult::Suspended);
            return Err(Unanswered);
        }
        let mut answers = Ok(());
        for mut flight in self.flights_of(wanted, now) {
            let answered = flight.wait_for(Option::is_some).await.is_ok_and(|answered| *answered == Some(true));
            if !answered {
                answers = Err(Unanswered);
            }
        }
        answers
    }

    fn flights_of(
        self: &Arc<Self>,
        wanted: &[Wanted],
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
            let store = Arc::clone(self);
            tokio::spawn(async move {
                let answered = store.fetch(&mine, true, now).await.is_ok();
                let mut flights = store.flights.lock();
                for one in &mine {
                    flights.remove(&one.key);
                }
                drop(flights);
                // Nobody may be left to hear it.
                let _ = tell.send(Some(answered));
            });
        }
        waiting
    }

    /// Asks for all of them at once. `visited`: a request of them is at hand.
    pub(super) async fn fetch(&self, wanted: &[Wanted], visited: bool, now: UnixMillis) -> Result<(), Unanswered> {
        let names: Vec<Name> = wanted.iter().map(|one| Name::new(one.pool.pool(), one.key, Kind::Binding)).collect();
        let Ok(values) = self.read(StoreOperation::Lookup, self.engine.lookup(&names)).await else {
            for one in wanted {
                self.near.not_asked(&one.key);
            }
            return Err(Unanswered);
        };
        for (one, value) in wanted.iter().zip(values) {
            self.found(one, value.as_ref(), visited, now);
        }
        Ok(())
    }

    /// The store has said what it keeps of a session.
    fn found(&self, wanted: &Wanted, value: Option<&Value>, visited: bool, now: UnixMillis) {
        let Wanted { key, pool, only_here } = wanted;
        let record = value.and_then(Record::read);
        let was_stored = self.near.note(*key, now, record.is_some());
        if let Some(record) = &record {
            self.adopt(*key, pool, record, visited, now);
        }
        // A store that was restarted empty, or that lost what it had acknowledged, is told again.
        if let Found::Live(known) = self.around.table.find(key, now) {
            let behind = match &record {
                Some(record) => known.epoch > record.epoch,
                None => *only_here || was_stored,
            };
            if behind {
                self.write_behind(*key, Kind::Binding);
            }
        }
    }

    /// The table learns of a record: the higher epoch stands, and of two equal ones the store's, which all proxies see.
    pub(super) fn adopt(&self, key: SessionKey, pool: &Place, record: &Record, visited: bool, now: UnixMillis) {
        let table = &self.around.table;
        let place = table.place(pool.pool(), record.server.as_deref().unwrap_or_default());
        if visited {
            table.restore(key, &place, record.epoch, record.created, now);
        } else {
            table.overrule(&key, &place, record.epoch);
        }
    }

    /// A proxy has announced a move. What is known here of the session is set right; what is not known is asked for when
    /// its client comes.
    pub(super) fn hear_of_move(&self, name: &Name, value: &Value) {
        let (Some((pool, key, Kind::Binding)), Some(record)) = (name.parts(), Record::read(value)) else { return };
        if self.moves.contains(key, record.epoch) {
            return;
        }
        let table = &self.around.table;
        let place = table.place(pool, record.server.as_deref().unwrap_or_default());
        if !table.overrule(&key, &place, record.epoch) {
            self.near.forget(&key);
        }
    }
}
