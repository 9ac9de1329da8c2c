//! A proxy without a network: its table, its version of the configuration, and what its checks have told it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use homing::app::build::keyring;
use homing::config::{Persistence, ServerState};
use homing::persistence::resolve::PoolSessions;
use homing::pool::condition::Health;
use homing::pool::{Pool, ServerIndex};
use homing::session::binding::Limits;
use homing::session::key::ServerId;
use homing::session::token::UnixMillis;
use homing::session::token::codec::PoolCodec;
use homing::store::local::data::SessionData;
use homing::store::local::table::Table;
use homing::store::targets::Target;
use homing::telemetry::metrics::Metrics;

use crate::setup::{POOL, Setup, Written};

/// What requests read, as the proxy's snapshot.
pub struct Version {
    pub setup: Setup,
    pub pool: Pool,
    pub policy: Persistence,
    pub limits: Limits,
    pub codec: PoolCodec,
    pub targets: Vec<Arc<Target>>,
    pub tombstone: Arc<Target>,
    /// No server hands anything over here.
    pub data: Arc<SessionData>,
    /// The results of checks, recorded separately to verify the pool.
    verdicts: BTreeMap<String, Rc<Cell<Health>>>,
    /// Since when servers drain, recorded separately too.
    drains_since: BTreeMap<String, Rc<Cell<Option<UnixMillis>>>>,
}

impl Version {
    pub fn build(setup: &Setup, number: usize, former: Option<&Self>, table: &Table, metrics: &Metrics) -> Self {
        let config = setup.config(number);
        let keys = keyring(&config).unwrap().expect("the file has keys");
        let config_pool = &config.pools[0];
        let pool = Pool::build(config_pool, former.map(|former| &former.pool), metrics);
        let policy = config_pool.persistence.clone().unwrap();
        let limits = Limits { idle: policy.idle_timeout, absolute: policy.absolute_timeout };
        table.set_limits(POOL, limits.idle, limits.absolute);
        let verdict = |server: &Written| {
            let known = former.and_then(|former| former.verdicts.get(&server.name));
            (server.name.clone(), known.map_or_else(|| Rc::new(Cell::new(Health::Unknown)), Rc::clone))
        };
        let since = |server: &Written| {
            let known = former.and_then(|former| former.drains_since.get(&server.name));
            (server.name.clone(), known.map_or_else(Rc::default, Rc::clone))
        };
        Self {
            tombstone: table.target(POOL, ""),
            data: Arc::new(SessionData::new(0, UnixMillis(0), Box::new(|_| ()))),
            targets: pool.servers.iter().map(|server| table.target(POOL, &server.name)).collect(),
            verdicts: setup.servers.iter().map(verdict).collect(),
            drains_since: setup.servers.iter().map(since).collect(),
            codec: PoolCodec::new(&keys, POOL),
            setup: setup.clone(),
            pool,
            policy,
            limits,
        }
    }

    pub fn pool_sessions<'a>(&'a self, table: &'a Table) -> PoolSessions<'a> {
        let (pool, targets, tombstone) = (&self.pool, &self.targets, &self.tombstone);
        PoolSessions {
            table,
            pool,
            targets,
            tombstone,
            limits: &self.limits,
            data: &self.data,
            shared: None,
            hands_over: false,
        }
    }

    pub fn name(&self, server: ServerIndex) -> &str {
        &self.pool.servers[server].name
    }

    /// By the file, found without the pool's help.
    pub fn written(&self, name: &str) -> Option<&Written> {
        self.setup.servers.iter().find(|server| server.name == name)
    }

    pub fn written_by_id(&self, id: ServerId) -> Option<&Written> {
        self.setup.servers.iter().find(|server| ServerId::of(&server.name) == id)
    }

    pub fn verdict(&self, name: &str) -> Health {
        if self.setup.checked { self.verdicts.get(name).map_or(Health::Unknown, |cell| cell.get()) } else { Health::Up }
    }

    /// Judged by file and checks alone: it may serve sessions that are bound to it.
    pub fn keeps(&self, server: &Written) -> bool {
        server.state != ServerState::Maint && matches!(self.verdict(&server.name), Health::Up | Health::Draining)
    }

    pub fn drains(&self, server: &Written) -> bool {
        self.keeps(server) && (server.state == ServerState::Drain || self.verdict(&server.name) == Health::Draining)
    }

    /// How long ago its `drain_deadline` was over, in milliseconds; negative before. `None` = it does not drain, or for ever.
    pub fn past_deadline(&self, server: &Written, now: UnixMillis) -> Option<i64> {
        let since = self.drains_since.get(&server.name)?.get().filter(|_| self.drains(server))?;
        let deadline = since.0 + self.setup.drain_deadline? * 1000;
        Some(i64::try_from(now.0).unwrap() - i64::try_from(deadline).unwrap())
    }

    /// The time within which the sessions leave, in milliseconds.
    pub fn drain_window(&self) -> i64 {
        i64::try_from((self.setup.drain_deadline.unwrap_or(0) * 250).clamp(1_000, 60_000)).unwrap()
    }

    /// … it may take new sessions, were it not for others (`backup`).
    pub fn takes(&self, server: &Written) -> bool {
        server.weight > 0 && server.state == ServerState::Ready && self.verdict(&server.name) == Health::Up
    }

    /// Everything that decides where a moved session goes, by name.
    pub fn view(&self) -> BTreeMap<&str, (&Written, Option<Health>)> {
        let verdict = |name: &str| self.setup.checked.then(|| self.verdict(name));
        self.setup.servers.iter().map(|server| (&*server.name, (server, verdict(&server.name)))).collect()
    }
}

/// A proxy.
pub struct Proxy {
    pub number: usize,
    pub table: Table,
    pub current: Rc<Version>,
}

impl Proxy {
    /// Starts it, with a first verdict on every server before traffic.
    pub fn start(
        number: usize,
        setup: &Setup,
        metrics: &Metrics,
        now: UnixMillis,
        well: impl Fn(&str) -> bool,
    ) -> Self {
        let table = Table::with_shards(setup.capacity, 4, now, Box::new(|_, _| ()));
        let current = Rc::new(Version::build(setup, number, None, &table, metrics));
        let proxy = Self { number, table, current };
        proxy.check_all(well);
        proxy
    }

    /// As a reload does; servers that are new are checked before they serve.
    pub fn reload(&mut self, setup: &Setup, metrics: &Metrics, well: impl Fn(&str) -> bool) {
        self.current = Rc::new(Version::build(setup, self.number, Some(&self.current), &self.table, metrics));
        for server in &setup.servers {
            if self.current.verdict(&server.name) == Health::Unknown {
                self.check(&server.name, if well(&server.name) { Health::Up } else { Health::Down });
            }
        }
    }

    /// The background looks which servers drain.
    pub fn observe_drains(&self, now: UnixMillis) {
        for server in &self.current.setup.servers {
            let ready_but =
                server.state == ServerState::Ready && self.current.verdict(&server.name) == Health::Draining;
            let since = &self.current.drains_since[&server.name];
            let drains = server.state == ServerState::Drain || ready_but;
            since.set(if drains { since.get().or(Some(now)) } else { None });
            self.current.pool.server_named(&server.name).unwrap().observe_drain(now);
        }
    }

    /// Its checks of one server come to a verdict.
    pub fn check(&self, name: &str, verdict: Health) {
        if let Some(server) = self.current.pool.server_named(name)
            && self.current.setup.checked
        {
            server.live.set_health(verdict);
            self.current.verdicts[name].set(verdict);
        }
    }

    pub fn check_all(&self, well: impl Fn(&str) -> bool) {
        for server in &self.current.setup.servers {
            self.check(&server.name, if well(&server.name) { Health::Up } else { Health::Down });
        }
    }
}
