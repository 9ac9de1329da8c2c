//! Everything that a request reads, built from one configuration and swapped as a whole.
//!
//! A request takes the [`Runtime`] once and keeps it, so that a reload in the middle of a request cannot mix two configurations.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::ServerConfig;

use crate::config::Config;
use crate::limits::ListenerLimits;
use crate::persistence::PoolRuntime;
use crate::proxy::fast_path::FastPathPlan;
use crate::routing::Router;
use crate::session::key::LogKey;
use crate::telemetry::metrics::{InUse, RouteMetrics};
use crate::telemetry::trace::Sampling;

/// What runs from one configuration.
pub struct Runtime {
    /// The configuration.
    pub config: Arc<Config>,
    /// Which pool serves which request.
    pub router: Arc<Router>,
    /// Counters of the routes, in the configuration's order.
    pub routes: Arc<[RouteMetrics]>,
    /// The pools, in the configuration's order.
    pub pools: Vec<PoolRuntime>,
    /// TLS of the listeners, in their order; `None` where there is none.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// Limits of the listeners, in their order.
    pub limits: Vec<Arc<ListenerLimits>>,
    /// What the fast path serves.
    pub fast_path: FastPathPlan,
    /// Listeners without TLS answer challenges of certificate authorities.
    pub answers_challenges: bool,
    /// Query and path parameters that carry session ids, in any pool: secrets that the log must not show.
    pub secret_parameters: Vec<Box<str>>,
    /// Which of the traces that begin here are recorded; `None`: traces are left alone.
    pub tracing: Option<Sampling>,
    /// Hashes session ids for the log.
    pub log_key: LogKey,
}

impl Runtime {
    /// The pools, for more than a few look-ups.
    pub fn pools_by_name(&self) -> HashMap<&str, &PoolRuntime> {
        self.pools.iter().map(|pool| (&*pool.pool.name, pool)).collect()
    }

    /// All that has series of metrics. A removed server that drains still has.
    pub fn in_use(&self) -> InUse<'_> {
        let pools = self.pools.iter().map(|pool| &pool.pool);
        InUse {
            pools: pools.map(|pool| (&*pool.name, pool.servers.iter().map(|server| &*server.name).collect())).collect(),
            routes: self.config.routes.iter().map(|route| route.name.as_str()).collect(),
            listeners: self.config.listeners.iter().map(|listener| listener.address.to_string()).collect(),
        }
    }
}
