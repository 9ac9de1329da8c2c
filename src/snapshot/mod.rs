//! Everything that a request reads, from one version of the configuration, swapped whole.
//!
//! A request takes the [`Snapshot`] once and keeps it, so a reload in the middle of a request cannot mix two versions.
//! What must outlive a version (the table, metrics, live state of servers) is in [`Parts`] or carried over by name.

pub mod build;
pub mod reload;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{HeaderName, HeaderValue};
use rustls::server::ServerConfig;

use crate::config::{self, Config};
use crate::pool::Pool;
use crate::routing::Router;
use crate::session::binding::Limits;
use crate::session::cookie::write::SetCookie;
use crate::session::key::LogKey;
use crate::session::source::Source;
use crate::session::source::client_ip::ClientIpSource;
use crate::session::token::codec::PoolCodec;
use crate::session::token::keyring::Keyring;
use crate::store::data::SessionData;
use crate::store::guarded::SharedStore;
use crate::store::hints::Hints;
use crate::store::memory::Table;
use crate::store::places::Place;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Metrics, PoolMetrics, RenderError, RouteMetrics, ServerReading, TableReading};

/// One version.
pub struct Snapshot {
    /// The configuration that it was built from.
    pub config: Arc<Config>,
    /// Which pool serves which request.
    pub router: Router,
    /// Counters of the routes, in the order of the configuration.
    pub routes: Vec<RouteMetrics>,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolPlan>,
    /// TLS of the listeners, in their order; `None` where there is none.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// Query and path parameters that name sessions, in any pool: secrets, not for the log.
    pub secret_parameters: Vec<Box<str>>,
    /// Hashes session ids for the log.
    pub log_key: LogKey,
}

/// A pool and all that its requests need.
pub struct PoolPlan {
    /// Servers and balancing.
    pub pool: Pool,
    /// What `balance: hash` hashes; `None` with another balance.
    pub hash_on: Option<config::HashOn>,
    /// Counters.
    pub metrics: PoolMetrics,
    /// How sessions stay; `None` = they do not.
    pub persistence: Option<PersistencePlan>,
    /// Names of headers go on as HTTP/1 peers wrote them.
    pub preserve_header_case: bool,
}

/// How the sessions of a pool stay, prepared.
pub struct PersistencePlan {
    /// What the configuration says.
    pub policy: config::Persistence,
    /// Where its sessions are named, in order of trial.
    pub sources: Vec<Source>,
    /// Idle and absolute timeout.
    pub limits: Limits,
    /// Seals and opens this pool's tokens.
    pub codec: PoolCodec,
    /// Writes its cookie.
    pub set_cookie: SetCookie,
    /// Added to answers that set the cookie.
    pub cache_control: Option<HeaderValue>,
    /// Names new clients by their address; `None` = no hints.
    pub hint: Option<ClientIpSource>,
    /// The pool's servers in the table, by server index.
    pub places: Vec<Arc<Place>>,
    /// Where its ended sessions are in the table.
    pub nowhere: Arc<Place>,
    /// Servers may hand over data of their sessions; `None` = they may not.
    pub handoff: Option<HandoffPlan>,
}

/// How servers of a pool hand over data of their sessions, prepared.
pub struct HandoffPlan {
    /// The header that carries it, both ways.
    pub header: HeaderName,
    /// The same as the operator wrote it, for HTTP/1.
    pub written: String,
    /// Most data of one session, in bytes.
    pub max_size: usize,
    /// The minute (since 1970) of the last warning of data that was refused. Relaxed: whoever changes it warns.
    pub warned: AtomicU64,
}

impl PersistencePlan {
    /// Tokens are read from a cookie, ours or the application's. Without that every cookie is the application's own.
    pub fn reads_cookie(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Cookie(_)))
    }

    /// The cookie that carries the token is our own, and not the application's.
    pub fn owns_cookie(&self) -> bool {
        self.policy.cookie.mode == config::CookieMode::Insert
    }
}

/// What outlives every version: one for the process.
pub struct Parts {
    /// The version that requests take now.
    pub current: ArcSwap<Snapshot>,
    /// Sessions that came back.
    pub table: Arc<Table>,
    /// What servers handed over for their sessions.
    pub data: Arc<SessionData>,
    /// The store that other proxies share with this one; `None` with `store.type: memory`.
    pub shared: Option<Arc<SharedStore>>,
    /// Where new clients went.
    pub hints: Hints,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Where requests are written down, if anywhere.
    pub access_log: ArcSwapOption<AccessLog>,
    /// Keys of a process that was given none.
    pub made_keys: Keyring,
    /// Set when the process stops: readiness is off, connections are not kept.
    pub draining: AtomicBool,
    /// Requests under way, of all pools and of none.
    pub in_flight: AtomicUsize,
}

impl Parts {
    /// The `/metrics` text.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn render_metrics(&self) -> Result<Vec<u8>, RenderError> {
        let snapshot = self.current.load();
        let table = TableReading {
            entries: self.table.len(),
            capacity: self.table.capacity(),
            bytes: self.table.bytes(),
            handoff_bytes: self.data.bytes(),
        };
        let servers = snapshot.pools.iter().flat_map(|plan| {
            plan.pool.servers.iter().enumerate().map(|(index, server)| ServerReading {
                pool: &plan.pool.name,
                server: &server.name,
                up: server.condition().takes_bound(),
                state: build::state_word(server.state),
                in_flight: server.live.in_flight(),
                weight: server.weight,
                sessions: plan
                    .persistence
                    .as_ref()
                    .and_then(|persistence| persistence.places.get(index))
                    .map_or(0, |place| place.sessions()),
            })
        });
        self.metrics.render(&table, servers)
    }

    /// The process stops.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
