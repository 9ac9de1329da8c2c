//! Bindings in Apache Ignite 2.15 or newer, by its thin client protocol.
//!
//! Why no crate does the talking: `ignite-v2-client` 1.0.1 has neither compare-and-set nor continuous queries and brings a
//! second TLS provider; `ignite-rs` is not kept.
//!
//! Ignite keeps two copies of each entry on two nodes (a cache with one backup, made here when it is absent), so that one
//! node may be lost, and a write is acknowledged when both have it. A node that hangs holds up what it owns until the others
//! give it up (`failureDetectionTimeout` of the cluster). Moves and ends are heard by a continuous query.
//!
//! - [`protocol`]: what is sent and received. Plain code.
//! - [`connection`]: the protocol on a connection that all requests share. [`connect`]: TLS and handshake. [`supervisor`]: keeps
//!   a connection.
//! - [`stored`]: values as they stand in a cache. [`announcements`]: what events say.
//! - [`writes`], [`touch`] and [`list`]: the operations that take more than a request.

mod announcements;
mod connect;
mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod list;
mod protocol;
pub mod settings;
mod stored;
mod supervisor;
mod touch;
mod writes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::connect::Connector;
use self::protocol::handshake::VERSION;
use self::protocol::request::Request;
use self::protocol::response;
use self::settings::IgniteSettings;
use self::stored::{Life, Stored};
use self::supervisor::{Caches, Shared};
use self::touch::Touches;
use self::writes::Write;
use super::engine::settings::EngineSettings;
use super::engine::{Capabilities, Engine, Kind, Name, OnEvent, Page, StoreError, Value, WriteResult};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::session::token::UnixMillis;

/// An Ignite cluster. Its task ends with it.
pub struct IgniteEngine {
    shared: Arc<Shared>,
    supervisor: AbortHandle,
}

impl IgniteEngine {
    /// Returns at once; connects on that runtime, and connects again whenever it has to. `connect_timeout` is for each step
    /// of it.
    ///
    /// # Errors
    /// Only what no waiting would help: no addresses, or TLS that cannot be set up.
    pub fn start(
        settings: &IgniteSettings,
        connect_timeout: Duration,
        runtime: &Handle,
        on_event: OnEvent,
    ) -> Result<Arc<Self>, StoreError> {
        if settings.addresses.is_empty() {
            return Err(StoreError::Refused("addresses is empty: write at least one".to_owned()));
        }
        let connector = Connector::new(settings.tls_files.as_ref(), settings.login(), connect_timeout)?;
        let caches = Caches::new(&settings.cache);
        let shared = Arc::new(Shared::new(settings.addresses.clone(), connector, caches, on_event));
        let supervisor = runtime.spawn(supervisor::supervise(Arc::clone(&shared))).abort_handle();
        Ok(Arc::new(Self { shared, supervisor }))
    }

    /// What is kept under those of the names that are of one kind, by key.
    async fn find(&self, names: &[Name], kind: Kind) -> Result<HashMap<Box<str>, Value>, StoreError> {
        let keys: Vec<&str> = names.iter().filter(|name| name.kind() == kind).map(Name::as_str).collect();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let request = Request::get_all(self.shared.cache(kind), keys.into_iter());
        let entries = self.shared.connection()?.ask_for(request, response::entries).await?;
        let mut found = HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            if let (Some(key), Some(stored)) = (key.as_text(), Stored::read(value)?) {
                found.insert(key.into(), stored.value);
            }
        }
        Ok(found)
    }
}

impl EngineSettings for IgniteSettings {
    const ABOUT: &'static str = "Apache Ignite, shared by several proxies.";

    fn check(&self, at: NodeRef<'_>, context: &CheckContext<'_>, diagnostics: &mut Diagnostics) -> Self {
        self.check(at, context, diagnostics)
    }

    fn secrets(&self) -> Vec<(&'static str, serde_json::Value)> {
        self.replaced_password().map(|password| ("password", password.into())).into_iter().collect()
    }

    fn start(
        &self,
        connect_timeout: Duration,
        runtime: &Handle,
        _: fn() -> UnixMillis,
        on_event: OnEvent,
    ) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(IgniteEngine::start(self, connect_timeout, runtime, on_event)?)
    }
}

impl Drop for IgniteEngine {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.shared.stop();
    }
}

#[async_trait]
impl Engine for IgniteEngine {
    fn capabilities(&self) -> Capabilities {
        let [major, minor, patch] = VERSION;
        // A node does not say to thin clients which version it is.
        let server = format!("ignite, protocol {major}.{minor}.{patch}");
        Capabilities { server, compare_and_set: "replace_if_equals", announces: true, list: true }
    }

    /// Reads a key of chance: where some nodes hang, the others answer for their part of the keys only.
    async fn ping(&self) -> Result<(), StoreError> {
        let key = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 8]>());
        let request = Request::get(self.shared.cache(Kind::Binding), &key);
        self.shared.connection()?.ask(request).await.map(drop)
    }

    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError> {
        let (mut found, data) = tokio::try_join!(self.find(names, Kind::Binding), self.find(names, Kind::Data))?;
        found.extend(data);
        Ok(names.iter().map(|name| found.get(name.as_str()).cloned()).collect())
    }

    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let connection = self.shared.connection()?;
        Write::new(&connection, self.shared.cache(name.kind()), name, value, ttl)?.bind().await
    }

    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let connection = self.shared.connection()?;
        Write::new(&connection, self.shared.cache(name.kind()), name, value, ttl)?.rebind().await
    }

    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError> {
        let connection = self.shared.connection()?;
        let of = |kind| {
            let lives = touches.iter().filter(|(name, _)| name.kind() == kind);
            let lives = lives.map(|(name, ttl)| (name, Life::new(*ttl))).collect();
            Touches { connection: &connection, cache: self.shared.cache(kind), kind, lives }.renew()
        };
        tokio::try_join!(of(Kind::Binding), of(Kind::Data))?;
        Ok(())
    }

    async fn forget(&self, names: &[Name]) -> Result<(), StoreError> {
        let connection = self.shared.connection()?;
        for kind in [Kind::Binding, Kind::Data] {
            let keys: Vec<&str> = names.iter().filter(|name| name.kind() == kind).map(Name::as_str).collect();
            if !keys.is_empty() {
                connection.ask(Request::remove_keys(self.shared.cache(kind), keys.into_iter())).await?;
            }
        }
        Ok(())
    }

    async fn list(&self, prefix: &Name, cursor: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        list::list(&self.shared, &self.shared.connection()?, prefix, cursor, limit).await
    }
}
