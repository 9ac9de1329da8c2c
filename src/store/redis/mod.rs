//! Redis and Valkey, from Redis 6.2 and Valkey 7.2 on: one server, one primary that sentinels watch over, or a cluster.
//!
//! What a URL's parts apply to:
//!
//! | `mode` | the addresses | scheme, user, password and database |
//! |---|---|---|
//! | `standalone` | the server; of several the first that takes writes | each its own |
//! | `sentinel` | the sentinels | of the first URL: for the servers; a sentinel's own scheme for itself, and its user and password if it asks for one |
//! | `cluster` | some of the nodes | of the first URL: for every node |
//!
//! - [`target`]: the URLs, read once. [`keys`]: names on the server. [`failure`]: what an error means.
//! - [`supervisor`]: keeps a connection; [`topology`] says where, [`dial`] how, [`pulse`] whether it still lives;
//!   [`sentinel`] and [`clustered`], with [`nodes`], are for those two.
//! - [`link`]: one connection, with what its [`server`] can do; [`reads`], [`writes`], [`rebind`] and [`list`] ask by it;
//!   [`scripts`] is for what a server has no command for.
//!
//! Sources: the command references of Redis 8.4 and Valkey 9.1; "Sentinel client spec" and "Cluster spec" of Redis.

mod cluster;
mod clustered;
mod dial;
mod failure;
mod keys;
mod link;
mod list;
mod nodes;
mod pulse;
mod reads;
mod rebind;
mod scripts;
mod sentinel;
mod server;
mod supervisor;
mod target;
mod topology;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::dial::Dial;
use self::keys::Keys;
use self::link::Connection;
use self::rebind::Move;
use self::supervisor::Shared;
use self::target::Target;
use super::engine::{Capabilities, Engine, Name, OnEvent, Page, StoreError, Value, WriteResult};
use crate::config;

/// Redis or Valkey.
pub struct RedisEngine {
    shared: Arc<Shared>,
    supervisor: AbortHandle,
}

impl RedisEngine {
    /// Returns at once; connects on that runtime, and connects again whenever it has to. `connect_timeout` is for each step
    /// of it.
    ///
    /// # Errors
    /// Only what no waiting would help: a URL of no use.
    pub fn start(
        settings: &config::Redis,
        connect_timeout: Duration,
        runtime: &Handle,
        on_event: OnEvent,
    ) -> Result<Arc<Self>, StoreError> {
        let target = Target::read(settings)?;
        let dial = Dial { timeout: connect_timeout };
        let shared = Arc::new(Shared::new(target, Keys::new(&settings.key_prefix), dial, on_event));
        let supervisor = runtime.spawn(supervisor::supervise(Arc::clone(&shared))).abort_handle();
        Ok(Arc::new(Self { shared, supervisor }))
    }

    /// Ends its connections and what keeps them; no event comes after it. Operations fail from now on.
    pub fn stop(&self) {
        self.supervisor.abort();
        self.shared.stop();
    }
}

impl Drop for RedisEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Engine for RedisEngine {
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let link = self.shared.link()?;
        match link.connection() {
            Connection::Single(_) => pulse::ping(&link).await,
            Connection::Cluster(connection) => cluster::ping(&connection).await,
        }
        .map_err(|failure| failure.error)
    }

    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError> {
        let link = self.shared.link()?;
        reads::lookup(&link, &self.shared.keys, names).await.map_err(|failure| failure.error)
    }

    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let link = self.shared.link()?;
        writes::bind(&link, &self.shared.keys, name, value, ttl).await.map_err(|failure| failure.error)
    }

    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let link = self.shared.link()?;
        let write = Move { keys: &self.shared.keys, name, value, ttl };
        rebind::rebind(&link, &write).await.map_err(|failure| failure.error)
    }

    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError> {
        let link = self.shared.link()?;
        writes::touch(&link, &self.shared.keys, touches).await.map_err(|failure| failure.error)
    }

    async fn forget(&self, names: &[Name]) -> Result<(), StoreError> {
        let link = self.shared.link()?;
        writes::forget(&link, &self.shared.keys, names).await.map_err(|failure| failure.error)
    }

    async fn list(&self, prefix: &Name, cursor: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let link = self.shared.link()?;
        list::list(&link, &self.shared.keys, prefix, cursor, limit).await.map_err(|failure| failure.error)
    }
}
