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
//! - [`connect`]: URLs, connecting, the server's version. [`errors`]: redis-rs errors as store errors, and what to do next.
//! - [`connection`]: an established connection and the commands that its server supports. [`keys`]: names on the server.
//! - [`commands`] and [`list`]: the operations. [`state`]: the current connection, which they share with the supervisor.
//! - [`supervisor`]: connects again whenever needed, by [`heartbeat`], [`sentinel`] and [`cluster`].
//!
//! Sources: the command references of Redis 8.4 and Valkey 9.1; "Sentinel client spec" and "Cluster spec" of Redis.

mod cluster;
mod commands;
mod connect;
mod connection;
mod errors;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod heartbeat;
mod keys;
mod list;
mod sentinel;
pub mod settings;
mod state;
mod supervisor;
mod url;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::commands::Write;
use self::connect::{Connector, Endpoints};
use self::connection::Handle as RedisHandle;
use self::keys::Keys;
use self::settings::RedisSettings;
use self::state::EngineState;
use super::engine::settings::EngineSettings;
use super::engine::{Capabilities, Engine, Name, OnEvent, Page, StoreError, Value, WriteResult};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::session::token::UnixMillis;

/// Redis or Valkey.
pub struct RedisEngine {
    state: Arc<EngineState>,
    supervisor: AbortHandle,
}

impl RedisEngine {
    /// Returns at once; connects on `runtime`, and again whenever needed. `connect_timeout` bounds each step.
    ///
    /// # Errors
    /// For an invalid URL.
    pub fn start(
        settings: &RedisSettings,
        connect_timeout: Duration,
        runtime: &Handle,
        on_event: OnEvent,
    ) -> Result<Arc<Self>, StoreError> {
        let endpoints = Endpoints::read(settings)?;
        let connector = Connector { timeout: connect_timeout };
        let state = Arc::new(EngineState::new(endpoints, Keys::new(&settings.key_prefix), connector, on_event));
        let supervisor = runtime.spawn(supervisor::supervise(Arc::clone(&state))).abort_handle();
        Ok(Arc::new(Self { state, supervisor }))
    }

    /// Closes its connections; operations fail and no event is emitted from now on.
    pub fn stop(&self) {
        self.supervisor.abort();
        self.state.stop();
    }
}

impl EngineSettings for RedisSettings {
    const ABOUT: &'static str = "Redis or Valkey, shared by several proxies.";

    fn check(&self, at: NodeRef<'_>, _context: &CheckContext<'_>, diagnostics: &mut Diagnostics) -> Self {
        self.check(at, diagnostics);
        self.clone()
    }

    fn secrets(&self) -> Vec<(&'static str, serde_json::Value)> {
        vec![("urls", self.urls_without_passwords().into())]
    }

    fn start(
        &self,
        connect_timeout: Duration,
        runtime: &Handle,
        _clock: fn() -> UnixMillis,
        on_event: OnEvent,
    ) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(RedisEngine::start(self, connect_timeout, runtime, on_event)?)
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
        self.state.capabilities()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let connection = self.state.connection()?;
        match connection.handle() {
            RedisHandle::Single(_) => heartbeat::ping(&connection).await?,
            RedisHandle::Cluster(cluster) => cluster::ping(cluster).await?,
        }
        Ok(())
    }

    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError> {
        Ok(commands::lookup(&*self.state.connection()?, &self.state.keys, names).await?)
    }

    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let write = Write { keys: &self.state.keys, name, value, ttl };
        Ok(commands::bind(&*self.state.connection()?, &write).await?)
    }

    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let write = Write { keys: &self.state.keys, name, value, ttl };
        Ok(commands::rebind(&*self.state.connection()?, &write).await?)
    }

    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError> {
        Ok(commands::touch(&*self.state.connection()?, &self.state.keys, touches).await?)
    }

    async fn forget(&self, names: &[Name]) -> Result<(), StoreError> {
        Ok(commands::forget(&*self.state.connection()?, &self.state.keys, names).await?)
    }

    async fn list(&self, prefix: &Name, cursor: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        Ok(list::list(&*self.state.connection()?, &self.state.keys, prefix, cursor, limit).await?)
    }
}
