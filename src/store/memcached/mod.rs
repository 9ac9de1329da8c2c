//! memcached 1.6 or newer, by its meta commands: several independent servers, each with a part of the names.
//!
//! Why no client crate: of the maintained ones, `async-memcached` is one connection for one caller and depends on `fxhash`
//! (RUSTSEC-2025-0057); `memcache` declares its meta commands experimental and closes a connection with every dropped
//! future; none shares one connection between many requests.
//!
//! memcached does not replicate: a server that is lost or restarted has lost its part, and only that. Names stay with their
//! server ([`rendezvous`]) during its outage and are [`StoreError::Unreachable`] at once; other names are not affected.
//! There are no announcements and no listing, and a time to live has whole seconds and at most 30 days.
//!
//! - [`request`] and [`response`]: the protocol. Plain code.
//! - [`connection`]: the protocol on a connection shared by all requests.
//! - [`server`]: connects to a server, and again.
//! - [`writes`]: bind and rebind.

mod response;
mod request;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod connection;
mod server;
mod rendezvous;
pub mod settings;
#[cfg(test)]
mod tests;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, select_ok, try_join_all};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::rendezvous::Rendezvous;
use self::request::{Batch, Prefix, seconds};
use self::response::{Response, Ttl};
use self::server::Server;
use self::settings::MemcachedSettings;
use self::writes::{Write, refusal, value_of};
use super::engine::settings::EngineSettings;
use super::engine::{Capabilities, Engine, Name, OnEvent, Page, StoreError, Value, WriteResult};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::session::token::UnixMillis;

/// The configured memcached servers. Its tasks end with it.
pub struct MemcachedEngine {
    servers: Box<[Arc<Server>]>,
    rendezvous: Rendezvous,
    prefix: Prefix,
    tasks: Vec<AbortHandle>,
}

impl MemcachedEngine {
    /// Returns at once; connects on `runtime`. `on_event` gets the events of each server. `connect_timeout` bounds each
    /// attempt.
    ///
    /// # Errors
    /// Without servers, or with an invalid prefix.
    pub fn start(
        settings: &MemcachedSettings,
        connect_timeout: Duration,
        runtime: &Handle,
        on_event: OnEvent,
    ) -> Result<Arc<Self>, StoreError> {
        let mut addresses: Vec<&str> = settings.servers.iter().map(String::as_str).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(StoreError::Refused("no memcached servers; name one in `servers`".to_owned()));
        }
        let prefix = Prefix::new(&settings.key_prefix)?;
        let servers: Box<[_]> = addresses.iter().map(|address| Arc::new(Server::new(address))).collect();
        let supervise = move |server: &Arc<Server>| {
            let supervised = Arc::clone(server).supervise(connect_timeout, Arc::clone(&on_event));
            runtime.spawn(supervised).abort_handle()
        };
        let tasks = servers.iter().map(supervise).collect();
        Ok(Arc::new(Self { servers, rendezvous: Rendezvous::new(addresses), prefix, tasks }))
    }

    fn server(&self, index: usize) -> Result<&Server, StoreError> {
        // The indices come from `rendezvous`, which has the same servers.
        self.servers.get(index).map(|server| &**server).ok_or(StoreError::Unsupported)
    }

    fn write<'a>(&'a self, name: &'a Name, value: &'a Value, ttl: Duration) -> Write<'a> {
        Write { prefix: &self.prefix, name, value, seconds: seconds(ttl) }
    }

    /// Reads one server's share of the names.
    async fn find_share(
        &self,
        (server, positions): &(usize, Vec<usize>),
        names: &[Name],
    ) -> Result<Vec<Option<Value>>, StoreError> {
        let connection = self.server(*server)?.connection()?;
        let mut batch = Batch::new(&self.prefix);
        for name in positions.iter().filter_map(|position| names.get(*position)) {
            batch.find(name)?;
        }
        let answers = connection.send(batch).await?;
        answers.into_iter().map(|answer| Ok(value_of(Some(answer))?.map(|(value, _)| value))).collect()
    }

    /// Two round trips, because memcached has no touch that never shortens: the times to live are read, and then the shorter
    /// ones extended. A longer one set by another proxy between the two is shortened, until its next touch.
    async fn touch_share(&self, server: usize, touches: &[(&Name, u64)]) -> Result<(), StoreError> {
        let connection = self.server(server)?.connection()?;
        let mut first_error = None;
        let mut asked = Vec::with_capacity(touches.len());
        let mut batch = Batch::new(&self.prefix);
        for touch in touches {
            match batch.ttl(touch.0) {
                Ok(()) => asked.push(*touch),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let ttls = connection.send(batch).await?;
        let mut batch = Batch::new(&self.prefix);
        for ((name, seconds), response) in asked.into_iter().zip(ttls) {
            match response {
                Response::Done { ttl: Some(Ttl::Seconds(ttl)) } if ttl < seconds => batch.touch(name, seconds)?,
                Response::Done { .. } | Response::Miss => {}
                other => first_error = first_error.or(Some(refusal(Some(other)))),
            }
        }
        first_failure(first_error, connection.send(batch).await?)
    }

    async fn forget_share(&self, server: usize, names: &[&Name]) -> Result<(), StoreError> {
        let connection = self.server(server)?.connection()?;
        let mut first_error = None;
        let mut batch = Batch::new(&self.prefix);
        for name in names {
            if let Err(error) = batch.forget(name) {
                first_error = first_error.or(Some(error));
            }
        }
        first_failure(first_error, connection.send(batch).await?)
    }
}

/// The first error, of the requests or of the responses.
fn first_failure(first_error: Option<StoreError>, answers: Vec<Response>) -> Result<(), StoreError> {
    let failed = || answers.into_iter().find(|answer| matches!(answer, Response::ServerError(_)));
    first_error.or_else(|| failed().map(|answer| refusal(Some(answer)))).map_or(Ok(()), Err)
}

impl Drop for MemcachedEngine {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl EngineSettings for MemcachedSettings {
    const ABOUT: &'static str = "memcached, shared by several proxies.";

    fn check(&self, at: NodeRef<'_>, _context: &CheckContext<'_>, diagnostics: &mut Diagnostics) -> Self {
        self.check(at, diagnostics)
    }

    fn start(
        &self,
        connect_timeout: Duration,
        runtime: &Handle,
        _clock: fn() -> UnixMillis,
        on_event: OnEvent,
    ) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(MemcachedEngine::start(self, connect_timeout, runtime, on_event)?)
    }
}

#[async_trait]
impl Engine for MemcachedEngine {
    fn capabilities(&self) -> Capabilities {
        let mut versions: Vec<_> = self.servers.iter().filter_map(|server| server.version()).collect();
        versions.sort_unstable();
        versions.dedup();
        let versions: Vec<&str> = versions.iter().map(|version| version.as_str()).collect();
        let server = format!("memcached {}", versions.join(", ")).trim_end().to_owned();
        Capabilities { server, compare_and_set: "cas", announces: false, list: false }
    }

    /// Whether any server answers. Requests for a lost server fail by themselves, so its loss does not suspend the others.
    async fn ping(&self) -> Result<(), StoreError> {
        let pings = self.servers.iter().map(|server| {
            Box::pin(async { server.connection()?.send(Batch::new(&self.prefix).noop()).await.map(drop) })
        });
        select_ok(pings).await.map(|((), _)| ())
    }

    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError> {
        let shares = self.rendezvous.shares(names);
        let found = try_join_all(shares.iter().map(|share| self.find_share(share, names))).await?;
        let mut values = vec![None; names.len()];
        for ((_, positions), found) in shares.iter().zip(found) {
            for (position, value) in positions.iter().zip(found) {
                if let Some(slot) = values.get_mut(*position) {
                    *slot = value;
                }
            }
        }
        Ok(values)
    }

    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let connection = self.server(self.rendezvous.server_of(name))?.connection()?;
        self.write(name, value, ttl).bind(&connection).await
    }

    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let connection = self.server(self.rendezvous.server_of(name))?.connection()?;
        self.write(name, value, ttl).rebind(&connection).await
    }

    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError> {
        let shares = self.rendezvous.shares(touches.iter().map(|(name, _)| name));
        let done = join_all(shares.iter().map(|(server, positions)| async {
            let share = positions.iter().filter_map(|position| touches.get(*position));
            let share: Vec<_> = share.map(|(name, ttl)| (name, seconds(*ttl))).collect();
            self.touch_share(*server, &share).await
        }));
        done.await.into_iter().collect()
    }

    async fn forget(&self, names: &[Name]) -> Result<(), StoreError> {
        let shares = self.rendezvous.shares(names);
        let done = join_all(shares.iter().map(|(server, positions)| async {
            let share: Vec<_> = positions.iter().filter_map(|position| names.get(*position)).collect();
            self.forget_share(*server, &share).await
        }));
        done.await.into_iter().collect()
    }

    async fn list(&self, _prefix: &Name, _cursor: Option<&str>, _limit: usize) -> Result<Page, StoreError> {
        Err(StoreError::Unsupported)
    }
}
