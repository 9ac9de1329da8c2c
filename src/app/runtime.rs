//! Everything that a request reads, built from one configuration and swapped as a whole.
//!
//! A request takes the [`Runtime`] once and keeps it, so that a reload in the middle of a request cannot mix two configurations.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::server::ServerConfig;
use smallvec::SmallVec;

use crate::config::Config;
use crate::limits::ListenerLimits;
use crate::persistence::{PoolRuntime, Pools};
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
    pub pools: Pools,
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
    /// What streams keep of it, by their pools.
    pub(super) of_streams: Mutex<HashMap<SmallVec<[usize; 2]>, Weak<Runtime>>>,
}

impl Runtime {
    /// The pools, for more than a few look-ups.
    pub fn pools_by_name(&self) -> HashMap<&str, &PoolRuntime> {
        self.pools.iter().map(|pool| (&*pool.pool.name, pool)).collect()
    }

    /// What a stream keeps of it when it has begun: WebSockets may outlast many configurations, each with thousands of servers.
    /// All streams of a pool keep the same.
    pub fn of_stream(&self, pools: SmallVec<[usize; 2]>) -> Arc<Self> {
        let mut kept = self.of_streams.lock();
        if let Some(kept) = kept.get(&pools).and_then(Weak::upgrade) {
            return kept;
        }
        let only = Arc::new(self.only(&pools));
        kept.insert(pools, Arc::downgrade(&only));
        only
    }

    /// What streams keep of it that have begun and not ended.
    pub fn streams(&self) -> Vec<Arc<Self>> {
        self.of_streams.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// With these pools alone, under the indexes that they have. Its configuration has no pools: requests read the built ones.
    fn only(&self, pools: &[usize]) -> Self {
        let config = &*self.config;
        Self {
            config: Arc::new(Config {
                proxy: config.proxy.clone(),
                listeners: config.listeners.clone(),
                routes: Arc::clone(&config.routes),
                pools: Vec::new(),
                keys: Vec::new(),
                store: config.store.clone(),
                admin: None,
                metrics: None,
                log: config.log.clone(),
                tracing: config.tracing.clone(),
                hash: config.hash.clone(),
            }),
            router: Arc::clone(&self.router),
            routes: Arc::clone(&self.routes),
            pools: self.pools.only(pools),
            tls: self.tls.clone(),
            limits: self.limits.clone(),
            fast_path: FastPathPlan::default(),
            answers_challenges: self.answers_challenges,
            secret_parameters: self.secret_parameters.clone(),
            tracing: self.tracing,
            log_key: self.log_key.clone(),
            of_streams: Mutex::default(),
        }
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

#[cfg(test)]
mod tests {
    use crate::app::inspect::Inspection;
    use crate::config::ProcessEnvironment;

    use super::*;

    #[test]
    fn a_stream_keeps_its_pool_and_nothing_of_others() {
        let text = "version: 1\nlisteners: [{ address: '127.0.0.1:0' }]\n\
             routes: [{ name: a, match: { path_prefix: / }, pool: a }, { name: b, match: { path_prefix: /b }, pool: b }]\n\
             pools:\n  a: { servers: [{ name: s, address: '127.0.0.1:1' }] }\n  b: { servers: [{ name: t, address: '127.0.0.1:2' }] }\n";
        let loaded = Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}"));
        let inspection = Inspection::start(loaded.config).unwrap();
        let whole = inspection.runtime();
        let other = Arc::downgrade(&whole.pools.get(0).unwrap().pool.servers[0].live);
        let of_streams = [0, 1].map(|_| whole.of_stream(SmallVec::from_slice(&[1])));
        assert!(Arc::ptr_eq(&of_streams[0], &of_streams[1]), "all streams of a pool keep the same");
        let [stream, _] = of_streams;
        drop((whole, inspection));
        assert!(other.upgrade().is_none(), "a server of another pool is kept");
        let names: Vec<&str> = stream.pools.iter().map(|pool| &*pool.pool.name).collect();
        assert_eq!(names, ["b"]);
        assert_eq!(stream.pools.get(1).map(|pool| pool.pool.servers.len()), Some(1), "under its index");
    }
}
