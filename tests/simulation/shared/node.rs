//! A proxy with its table, its guard before the shared store, its own clock and its own view of the servers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use homing::config::{OnError, Remote, RemoteEngine};
use homing::persistence::resolve::PoolSessions;
use homing::pool::condition::Health;
use homing::session::key::SessionKey;
use homing::session::token::UnixMillis;
use homing::store::TableLookup;
use homing::store::engine::Engine;
use homing::store::local::table::Table;
use homing::store::memcached::settings::MemcachedSettings;
use homing::store::shared::{Clock, SharedStore, StoreContext};
use homing::telemetry::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::{Link, Shared};
use crate::proxy::Version;
use crate::setup::Setup;

/// How long a request waits for the store.
pub const TIMEOUT: Duration = Duration::from_millis(50);
pub const NEAR_TTL: Duration = Duration::from_secs(5);
pub const MOST_NODES: usize = 3;

thread_local! {
    /// When the world began, and how far each proxy's clock is ahead, in milliseconds.
    static CLOCKS: Cell<Option<(Instant, [u64; MOST_NODES])>> = const { Cell::new(None) };
}

/// To be called once for each world, on its runtime.
pub fn set_clocks(ahead: [u64; MOST_NODES]) {
    CLOCKS.set(Some((Instant::now(), ahead)));
}

fn clock<const NUMBER: usize>() -> UnixMillis {
    let (began, ahead) = CLOCKS.get().expect("the world has begun");
    UnixMillis(1_790_000_000_000 + ahead[NUMBER]).plus(began.elapsed())
}

/// Where a session is and its epoch; an empty name when it has ended.
pub type Knows = (String, u32);

pub struct Node {
    pub number: usize,
    pub table: Arc<Table>,
    pub store: Arc<SharedStore>,
    pub link: Arc<Link>,
    version: RefCell<Rc<Version>>,
    clock: Clock,
    work: JoinHandle<()>,
}

impl Node {
    /// `incarnation`: which start of a proxy in this world this is.
    pub fn start(number: usize, incarnation: u32, setup: &Setup, shared: &Arc<Shared>, announces: bool) -> Self {
        let clock: Clock = [clock::<0>, clock::<1>, clock::<2>][number];
        let metrics = Arc::new(Metrics::new().unwrap());
        let table = Arc::new(Table::with_shards(setup.capacity, 4, clock(), Box::new(|_, _| ())));
        let version = Rc::new(Version::build(setup, number, None, &table, &metrics));
        let (link, events) = shared.link(announces);
        let settings = Remote {
            engine: RemoteEngine::Memcached(MemcachedSettings::default()),
            on_error: OnError::Fallback,
            timeout: TIMEOUT,
            near_ttl: NEAR_TTL,
        };
        let context = StoreContext { table: Arc::clone(&table), data: Arc::clone(&version.data), metrics };
        let engine = Arc::clone(&link) as Arc<dyn Engine>;
        let store = Arc::new(SharedStore::new(engine, &settings, "edge", incarnation, context));
        let work = tokio::spawn(Arc::clone(&store).run_background(events, clock));
        Self { number, table, store, link, version: RefCell::new(version), clock, work }
    }

    /// It is killed: nothing that it knew is left.
    pub fn dies(&self, shared: &Shared) {
        self.work.abort();
        shared.unlink(&self.link);
    }

    pub fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    pub fn version(&self) -> Rc<Version> {
        Rc::clone(&self.version.borrow())
    }

    pub fn reload(&self, setup: &Setup) {
        let metrics = Metrics::new().unwrap();
        let next = Version::build(setup, self.number, Some(&self.version()), &self.table, &metrics);
        *self.version.borrow_mut() = Rc::new(next);
    }

    /// What a request of this version sees.
    pub fn pool_sessions<'a>(&'a self, version: &'a Version) -> PoolSessions<'a> {
        PoolSessions { shared: Some(&self.store), ..version.pool_sessions(&self.table) }
    }

    pub fn check(&self, name: &str, verdict: Health) {
        let version = self.version();
        if let Some(server) = version.pool.server_named(name) {
            server.live.set_health(verdict);
        }
    }

    pub fn knows(&self, key: SessionKey) -> Option<Knows> {
        match self.table.find(&key, self.now()) {
            TableLookup::Live(known) => Some((self.table.target_at(known.target)?.server().to_string(), known.epoch)),
            _ => None,
        }
    }
}
