//! Proxies that share a store, without anything around them: what the guard promises, with a clock that stands still.

mod read_through;
mod ends;
mod outage;
mod writes;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};

use super::settings::{OnError, Remote};
use super::*;
use crate as homing;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::engine::record::BindingRecord;
use crate::store::engine::{Engine, Event, Kind, Name};
use crate::store::engines::RemoteEngine;
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;
use crate::store::memcached::settings::MemcachedSettings;
use crate::store::targets::Target;
use crate::telemetry::metrics::Metrics;

#[allow(unreachable_pub, dead_code, reason = "it is a file of the simulation, which needs all of it")]
#[path = "../../../../tests/simulation/engine.rs"]
mod engine;

use self::engine::{Announcements, Answers, Link, Shared};

const START: UnixMillis = UnixMillis(1_790_000_000_000);
const TIMEOUT: Duration = Duration::from_millis(50);
const NEAR_TTL: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(600);
const ABSOLUTE: Duration = Duration::from_secs(7200);
const KEY: SessionKey = SessionKey(0x1234_5678_9abc_def0_1234_5678_9abc_def0);

thread_local! {
    /// When the test began.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn clock() -> UnixMillis {
    START.plus(BEGAN.get().unwrap().elapsed())
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// A proxy, as far as the store is concerned.
struct Proxy {
    store: Arc<SharedStore>,
    table: Arc<Table>,
    link: Arc<Link>,
    tombstone: Arc<Target>,
    events: Option<UnboundedReceiver<Event>>,
}

fn proxies<const N: usize>(announces: bool) -> (Arc<Shared>, [Proxy; N]) {
    proxies_on(Arc::default(), announces)
}

fn proxies_on<const N: usize>(shared: Arc<Shared>, announces: bool) -> (Arc<Shared>, [Proxy; N]) {
    BEGAN.set(Some(Instant::now()));
    let all = std::array::from_fn(|number| Proxy::start(&shared, number, announces));
    (shared, all)
}

impl Proxy {
    fn start(shared: &Arc<Shared>, number: usize, announces: bool) -> Self {
        let (link, events) = shared.link(announces);
        let table = Arc::new(Table::new(1000, START, Box::new(|_, _| ())));
        table.set_limits("shop", IDLE, ABSOLUTE);
        let context = StoreContext {
            table: Arc::clone(&table),
            data: Arc::new(SessionData::new(1 << 20, START, Box::new(|_| ()))),
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        let settings = Remote {
            engine: RemoteEngine::Memcached(MemcachedSettings::default()),
            on_error: OnError::Fallback,
            timeout: TIMEOUT,
            near_ttl: NEAR_TTL,
        };
        let engine = Arc::clone(&link) as Arc<dyn Engine>;
        let store = Arc::new(SharedStore::new(engine, &settings, "edge", u32::try_from(number).unwrap(), context));
        let tombstone = table.target("shop", "");
        Self { store, table, link, tombstone, events: Some(events) }
    }

    /// With all that goes on behind requests.
    fn works(mut self) -> Self {
        let events = self.events.take().unwrap();
        tokio::spawn(Arc::clone(&self.store).run_background(events, clock));
        self
    }

    fn wanted(&self, key: SessionKey, without_token: bool) -> StoreQuery {
        StoreQuery { key, pool: Arc::clone(&self.tombstone), without_token, has_handoff: false }
    }

    fn query_for(&self, key: SessionKey, without_token: bool) -> bool {
        self.store.query_for(key, &self.tombstone, without_token, false, clock()).is_some()
    }

    /// A request of an application's id, up to where its session is recognised.
    async fn visit(&self, key: SessionKey) -> Result<Option<String>, StoreUnavailable> {
        if self.query_for(key, true) {
            self.store.query(&[self.wanted(key, true)], clock()).await?;
        }
        self.table.visit(&key, clock());
        Ok(self.knows(key).map(|(server, _)| server))
    }

    /// What the table says: the server, none for a session that has ended, and the epoch.
    fn knows(&self, key: SessionKey) -> Option<(String, u32)> {
        match self.table.find(&key, clock()) {
            TableLookup::Live(known) => {
                Some((self.table.target_at(known.target).unwrap().server().to_string(), known.epoch))
            }
            _ => None,
        }
    }

    fn target(&self, server: &str) -> Arc<Target> {
        self.table.target("shop", server)
    }

    /// A server calls an id its own.
    async fn assign(&self, key: SessionKey, server: &str) {
        let target = self.target(server);
        self.table.assign(key, &target, clock());
        // What it could not be told it is told later.
        let _ = self.store.assign(key, &target, clock()).await;
    }

    /// The session moves, as a request moves it whose new server has answered.
    async fn moves(&self, key: SessionKey, from: u32, server: &str) -> bool {
        let target = self.target(server);
        let told = self
            .store
            .rebind(Move { key, to: &target, epoch: from + 1, created: clock(), moved_header: None }, clock())
            .await;
        let moved =
            matches!(self.table.rebind(key, from, &target, clock(), clock()), crate::store::RebindResult::Moved { .. });
        if moved && told.is_err() {
            self.store.write_behind(key, Kind::Binding);
        }
        moved
    }

    /// Its server, or the operator, ends it.
    fn ends(&self, key: SessionKey, epoch: u32) {
        self.table.insert_tombstone(key, &self.tombstone, epoch, (clock(), clock()), crate::store::EndReason::Ended);
        self.store.write_behind(key, Kind::Binding);
    }

    /// How often the store was asked this since last counted.
    fn asked(&self, operation: &str) -> Vec<usize> {
        self.link.asked().into_iter().filter(|(op, _)| *op == operation).map(|(_, names)| names).collect()
    }
}

fn name(key: SessionKey) -> Name {
    Name::new("shop", key, Kind::Binding)
}

/// What the store says.
fn stored(shared: &Shared, key: SessionKey) -> Option<(String, u32)> {
    let record = BindingRecord::read(&shared.get(&name(key))?)?;
    Some((record.server.as_deref().unwrap_or_default().to_owned(), record.epoch))
}

#[allow(clippy::unnecessary_wraps, reason = "as the table and the store say it")]
fn is(server: &str, epoch: u32) -> Option<(String, u32)> {
    Some((server.to_owned(), epoch))
}
