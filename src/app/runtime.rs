//! Everything that a request reads, from one version of the configuration, swapped whole.
//!
//! A request takes the [`Runtime`] once and keeps it, so a reload in the middle of a request cannot mix two versions.

use std::sync::Arc;

use rustls::server::ServerConfig;

use crate::config::Config;
use crate::persistence::PoolRuntime;
use crate::routing::Router;
use crate::session::key::LogKey;
use crate::telemetry::metrics::RouteMetrics;

/// One version.
pub struct Runtime {
    /// The configuration that it was built from.
    pub config: Arc<Config>,
    /// Which pool serves which request.
    pub router: Router,
    /// Counters of the routes, in the order of the configuration.
    pub routes: Vec<RouteMetrics>,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolRuntime>,
    /// TLS of the listeners, in their order; `None` where there is none.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// Query and path parameters that name sessions, in any pool: secrets, not for the log.
    pub secret_parameters: Vec<Box<str>>,
    /// Hashes session ids for the log.
    pub log_key: LogKey,
}
