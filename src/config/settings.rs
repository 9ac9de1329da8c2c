//! The checked configuration as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use super::pools::Pool;
use super::process::{Admin, Listener, Log, MetricsListener, Proxy};
use super::raw::Key;
use super::routes::Route;
use super::store::Store;
use super::tracing::Tracing;

/// A whole configuration, checked: cross references hold, names are unique, values are in range.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Process-wide settings. Restart-only.
    pub proxy: Proxy,
    /// Where clients connect. At least one. Restart-only: addresses, protocols, and whether there is TLS.
    pub listeners: Vec<Listener>,
    /// Which pool serves which request. Empty only when there is one pool, which then takes every request. Shared with the next
    /// configuration when a reload leaves them as they are.
    pub routes: Arc<[Route]>,
    /// The pools, in the order of the file. At least one.
    pub pools: Vec<Pool>,
    /// Sealing keys: the first seals, all open. Empty: the process makes one at start, with a warning.
    pub keys: Vec<Key>,
    /// Where bindings live.
    pub store: Store,
    /// The admin listener; `None` = none.
    pub admin: Option<Admin>,
    /// A second listener, for Prometheus; `None` = none.
    pub metrics: Option<MetricsListener>,
    /// Logs and access log.
    pub log: Log,
    /// Traces of requests.
    pub tracing: Tracing,
    /// SHA-256 of the effective configuration, hexadecimal, first 16 characters; for `homing_config_info` and logs.
    pub hash: String,
}

impl Config {
    /// The pools' names, in the order of the file.
    pub(crate) fn pool_names(&self) -> Vec<&str> {
        self.pools.iter().map(|pool| pool.name.as_str()).collect()
    }

    /// Whether clients may come by TLS: here, or at a proxy before this one that says so.
    pub(crate) fn sees_tls(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls.is_some() || !listener.trusted_proxies.is_empty())
    }

    /// The routes to each pool that has some. A file may have thousands of both.
    pub(crate) fn routes_by_pool(&self) -> HashMap<&str, Vec<&Route>> {
        let mut by_pool: HashMap<&str, Vec<&Route>> = HashMap::new();
        for route in self.routes.iter() {
            route.pools().for_each(|pool| by_pool.entry(pool).or_default().push(route));
        }
        by_pool
    }
}
