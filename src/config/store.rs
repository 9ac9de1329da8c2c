//! The store, checked.

use std::path::PathBuf;
use std::time::Duration;

use super::raw::OnError;
use super::secret::Secret;
use super::tls::ClientTls;

/// Where bindings live: in the table of this process, and with `remote` in an engine that several proxies share, of which
/// the table is then the near copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Most sessions that the table keeps.
    pub max_sessions: usize,
    /// The table on disk; `None` = it ends with the process.
    pub snapshot: Option<TableSnapshot>,
    /// The engine that is shared; `None` = `type: memory`.
    pub remote: Option<Remote>,
}

/// The table on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSnapshot {
    /// Its file; absolute.
    pub path: PathBuf,
    /// How often it is written, a second to an hour.
    pub interval: Duration,
}

/// An engine that several proxies share. Needs a restart to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Which, and where.
    pub engine: RemoteEngine,
    /// What a request that needs it does while it is out of reach.
    pub on_error: OnError,
    /// How long a request waits for it, at most once.
    pub timeout: Duration,
    /// How old what the table says may be before the engine is asked again.
    pub near_ttl: Duration,
}

/// Which engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteEngine {
    /// Redis or Valkey.
    Redis(Redis),
    /// memcached.
    Memcached(Memcached),
    /// Apache Ignite.
    Ignite(Ignite),
}

impl RemoteEngine {
    /// The word of the configuration.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Memcached(_) => "memcached",
            Self::Ignite(_) => "ignite",
        }
    }
}

/// Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// The server; with `Sentinel` the sentinels, each with its port; with `Cluster` some of its nodes. `redis://` or
    /// `rediss://` (TLS), or with `Standalone` `unix:/path?user=…&pass=…&db=…`. With user, password and, except in a cluster,
    /// number of the database, so secrets. Several have these and TLS alike; with `Sentinel` they are those of the servers,
    /// and of sentinels that ask for a password.
    pub urls: Vec<Secret>,
    /// How it is set up.
    pub mode: RedisMode,
    /// What all names begin with, followed by a colon.
    pub key_prefix: String,
}

/// How Redis or Valkey is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Standalone,
    /// One master of several servers, which the sentinels know.
    Sentinel {
        /// What they call it.
        master_name: String,
    },
    /// Names spread over several masters.
    Cluster,
}

/// memcached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memcached {
    /// `host:port`, in lower case, or `/path` of a unix socket, one for each server, none twice. Their order does not matter.
    pub servers: Vec<String>,
    /// What all names begin with, followed by a colon.
    pub key_prefix: String,
}

/// Apache Ignite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignite {
    /// `host:port`, in lower case, of some of the nodes, none twice. Their order does not matter.
    pub addresses: Vec<String>,
    /// The cache of bindings. Session data are in another, of this name and `-data`.
    pub cache: String,
    /// User and password.
    pub login: Option<(String, Secret)>,
    /// `None` = plain.
    pub tls: Option<ClientTls>,
}
