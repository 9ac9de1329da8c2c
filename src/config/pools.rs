//! The checked configuration of pools: servers, checks, retries.

use std::fmt;
use std::time::Duration;

use super::address::ServerAddress;
use super::discovery::Discovery;
use super::raw::{Balance, CircuitBreaker, Connection, Persistence, PoolLimits, Rebalance, ServerState, StreamsOnDown};
use super::tls::ServerTls;

/// A group of servers that run the same application.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Unique name: `[A-Za-z0-9_.-]{1,64}`, first character alphanumeric.
    pub name: String,
    /// How new sessions are spread.
    pub balance: Balance,
    /// What `balance: hash` hashes.
    pub hash_on: HashOn,
    /// The servers, in the order of the file; names unique within the pool. None yet if they are discovered.
    pub servers: Vec<Server>,
    /// Where the servers come from; `None` = the file lists them.
    pub discovery: Option<Discovery>,
    /// Connections to the servers.
    pub connection: Connection,
    /// TLS to the servers, with what the files held; `None` = none.
    pub tls: Option<ServerTls>,
    /// What becomes of open connections to a server that is found down.
    pub streams_on_down: StreamsOnDown,
    /// Active checks; `None` = servers count as up.
    pub health_check: Option<HealthCheck>,
    /// When requests that fail eject a server; `None` = never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How many requests a server has in flight, and how others wait.
    pub limits: PoolLimits,
    /// How long a server that comes back gets less than its share of new sessions.
    pub slow_start: Duration,
    /// After it, sessions leave a draining server; `None` = they may stay for ever.
    pub drain_deadline: Option<Duration>,
    /// Idle sessions leave crowded servers; `None` = they stay.
    pub rebalance: Option<Rebalance>,
    /// What may be tried again.
    pub retries: Retries,
    /// How sessions stay; `None` = every request is balanced afresh.
    pub persistence: Option<Persistence>,
}

/// What `balance: hash` hashes. Names of headers are lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address.
    ClientIp,
    /// Path and query.
    Uri,
    /// A request header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}

/// An application server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The identity that tokens, store, metrics and logs speak in: `[A-Za-z0-9_.-]{1,64}`, first alphanumeric.
    pub name: String,
    /// Where it listens.
    pub address: ServerAddress,
    /// Share of new sessions, 0 to 65535; 0 = takes no new session.
    pub weight: u16,
    /// What the operator wants of it.
    pub state: ServerState,
    /// The route id that its application puts into session ids, for the source `route`; by default its name.
    pub route: String,
    /// Takes new sessions only while no other server can.
    pub backup: bool,
    /// The file, or discovery, no longer has it, and it drains.
    pub removed: bool,
    /// Discovered again at that time, after it had left: sessions that were last seen before it belonged to another server at its
    /// address. Milliseconds since 1970.
    pub since: Option<u64>,
}

impl Server {
    /// One that was discovered, as good as any other.
    pub(crate) fn discovered(name: String, address: ServerAddress) -> Self {
        Self {
            route: name.clone(),
            name,
            address,
            weight: 1,
            state: ServerState::Ready,
            backup: false,
            removed: false,
            since: None,
        }
    }
}

/// Active checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The kind of check.
    pub probe: Probe,
    /// Between two checks of a server, with ± 10 % jitter.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET path`.
    Http {
        /// Path and query.
        path: String,
        /// Statuses that mean: well.
        expect_status: Vec<u16>,
        /// Statuses that mean: alive, but wants no new sessions.
        drain_status: Vec<u16>,
    },
    /// A connection is established.
    Tcp,
}

/// What may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Tries after the first, 0 to 10.
    pub attempts: u32,
    /// No connection came about: nothing was sent, so any method may go elsewhere.
    pub on_connect_failure: bool,
    /// The connection broke before the answer began: idempotent methods only.
    pub on_reset_before_response: bool,
    /// Later retries, as a share of requests, 0 to 100.
    pub budget_percent: u32,
}

impl fmt::Display for HashOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Uri => f.write_str("uri"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}
