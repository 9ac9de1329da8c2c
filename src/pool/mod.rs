//! The servers of a pool, and which of them accept requests now.
//!
//! A [`Pool`] belongs to one configuration. The live state of a server ([`LiveState`]: health, requests in flight,
//! resolved address) belongs to the server's *name* and is carried over reloads.

pub mod balancer;
pub mod breaker;
pub mod budget;
pub mod clock;
pub mod condition;
pub mod connections;
pub(crate) mod descriptor_passing;
pub mod descriptors;
pub mod discovery;
pub mod drain;
pub mod ejection;
pub mod exhaustion;
pub mod health;
pub mod http_probe;
pub mod limits;
pub mod live_state;
pub mod operator;
pub mod queue;
pub mod ramp;
pub mod rebalance;
pub mod resolve;
pub mod server;
pub mod server_connection;
pub mod tls;
pub mod tls_failure;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config;
use crate::session::key::ServerId;
use crate::telemetry::metrics::Metrics;

use self::balancer::Balancer;
use self::budget::RetryBudget;
use self::live_state::{InFlight, LiveState};
use self::queue::Queue;
use self::ramp::WHOLE;
use self::rebalance::Rebalance;
use self::server::Server;
use self::tls::PoolTls;

pub use self::server::ServerIndex;

/// A pool of one configuration.
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Its servers, in the order of the file.
    pub servers: Vec<Server>,
    /// Sorted, to find a server by the id in a token.
    by_id: Vec<(ServerId, ServerIndex)>,
    balancer: Balancer,
    /// Which failures are retried.
    pub retries: config::Retries,
    /// Sessions leave crowded servers; `None` = they stay.
    pub rebalance: Option<Rebalance>,
    /// Limits the retries.
    pub budget: RetryBudget,
    /// When requests that fail eject a server; `None` = never.
    pub circuit_breaker: Option<config::CircuitBreaker>,
    /// How long a server that comes back gets less than its share of new sessions.
    pub slow_start: Duration,
    /// How many requests a server has in flight, and how others wait.
    pub limits: config::PoolLimits,
    /// The requests that wait; shared by all versions of the pool.
    pub queue: Arc<Queue<InFlight>>,
    /// Held while a server is ejected; shared by all versions of the pool.
    ejecting: Arc<Mutex<()>>,
    /// TLS to its servers; `None` = none.
    pub tls: Option<Arc<PoolTls>>,
    /// Rises whenever the condition of a server changes; shared with [`LiveState`], carried over reloads.
    pub generation: Arc<AtomicU64>,
}

impl Pool {
    /// Builds a pool; `previous` is the same pool before a reload, whose live state is carried over by server name.
    pub fn build(config: &config::Pool, tls: Option<Arc<PoolTls>>, previous: Option<&Self>, metrics: &Metrics) -> Self {
        let generation = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.generation));
        let queue = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.queue));
        // Only what is added to a pool starts slowly.
        let slow = previous.is_some() && !config.slow_start.is_zero();
        let known = previous.map(Self::servers_by_name).unwrap_or_default();
        let servers: Vec<Server> = config
            .servers
            .iter()
            .map(|server| {
                let live = known.get(server.name.as_str()).map_or_else(
                    || {
                        Arc::new(LiveState::new(
                            Arc::clone(&generation),
                            Arc::clone(&queue),
                            slow,
                            metrics.server(&config.name, &server.name),
                        ))
                    },
                    |previous| Arc::clone(&previous.live),
                );
                Server::build(config, server, tls.clone(), live)
            })
            .collect();
        let mut by_id: Vec<_> = servers.iter().enumerate().map(|(index, server)| (server.id, index)).collect();
        by_id.sort_unstable_by_key(|(id, _)| id.0);
        Self {
            name: Arc::from(config.name.as_str()),
            balancer: Balancer::build(config.balance, &servers, previous.map(|previous| &previous.balancer)),
            by_id,
            rebalance: config.rebalance.map(|settings| Rebalance::new(settings, servers.len())),
            servers,
            retries: config.retries,
            slow_start: config.slow_start,
            limits: config.limits.clone(),
            queue,
            circuit_breaker: config.circuit_breaker.clone(),
            ejecting: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.ejecting)),
            budget: RetryBudget::new(config.retries.budget_percent),
            tls,
            generation,
        }
    }

    /// The server of this name.
    pub fn server_named(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| &*server.name == name)
    }

    /// All servers, for more than a few look-ups.
    pub fn servers_by_name(&self) -> HashMap<&str, &Server> {
        self.servers.iter().map(|server| (&*server.name, server)).collect()
    }

    /// Builds what the first session that moves would build otherwise.
    pub fn prepare(&self) {
        self.balancer.prepare(&self.servers, self.generation.load(Ordering::Acquire));
    }

    /// Few requests of this version of the pool are left, and they have their servers: drops what selects servers and is large. It
    /// is made again when it is needed all the same.
    pub fn retire(&self) {
        self.balancer.retire();
    }

    /// The server that a token names.
    pub fn find(&self, id: ServerId) -> Option<ServerIndex> {
        let position = self.by_id.binary_search_by_key(&id.0, |(id, _)| id.0).ok()?;
        self.by_id.get(position).map(|(_, index)| *index)
    }

    /// The share of new sessions that a server gets now: none while it is draining, down or a backup that is not needed.
    pub fn weight_now(&self, server: &Server) -> f64 {
        let needed = server.backup == balancer::only_backups_left(&self.servers, &[]);
        if needed && server.takes_new() { f64::from(server.weight_in_thousandths()) / f64::from(WHOLE) } else { 0.0 }
    }

    /// A server for a new session: balanced over those that accept new sessions, without those in `tried`.
    /// `key` is used by `balance: hash` only.
    pub fn pick_new(&self, key: &[u8], tried: &[ServerIndex]) -> Option<ServerIndex> {
        let generation = self.generation.load(Ordering::Acquire);
        self.balancer.pick_new(&self.servers, generation, key, tried)
    }

    /// The next server of a session that moves: the consistent hash of its key over those that accept new sessions, the same
    /// on every proxy that sees the same health.
    pub fn pick_moved(&self, key: &[u8], tried: &[ServerIndex]) -> Option<ServerIndex> {
        let generation = self.generation.load(Ordering::Acquire);
        self.balancer.pick_moved(&self.servers, generation, key, tried)
    }
}
