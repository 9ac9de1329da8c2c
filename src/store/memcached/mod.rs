//! Bindings in memcached 1.6 or newer, by its meta commands: several servers that know nothing of each other, each with a
//! part of the names.
//!
//! Why no crate does the talking: of those that are kept, `async-memcached` is one connection for one caller and brings
//! `fxhash` (RUSTSEC-2025-0057), `memcache` calls its meta commands an experiment that may change without notice and drops
//! a connection with every future that is dropped, and none has many requests share one connection.
//!
//! memcached keeps no copies: a server that is lost or started anew has lost its part, and only that. Names stay with
//! their server ([`spread`]) while it is away, and are [`StoreError::Unreachable`] then, at once; the others' are not. It
//! announces nothing and lists nothing, and an expiry is in whole seconds and at most 30 days.
//!
//! - [`answer`] and [`batch`]: what is said on the wire, both ways. Plain code.
//! - [`connection`]: one socket that all requests share.
//! - [`server`]: finds a server, and finds it again.
//! - [`writes`]: the first writer, the higher epoch.

mod answer;
mod batch;
mod connection;
mod server;
pub mod settings;
mod spread;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, select_ok, try_join_all};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::answer::{Answer, Left};
use self::batch::{Batch, Prefix, seconds};
use self::server::Server;
use self::settings::MemcachedSettings;
use self::spread::Spread;
use self::writes::{Write, found, refusal};
use super::engine::settings::EngineSettings;
use super::engine::{Capabilities, Engine, Name, OnEvent, Page, StoreError, Value, WriteResult};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;

/// Some memcached servers. Its tasks end with it.
pub struct MemcachedEngine {
    servers: Box<[Arc<Server>]>,
    spread: Spread,
    prefix: Prefix,
    tasks: Vec<AbortHandle>,
}

impl MemcachedEngine {
    /// Begins to look for the servers, on `runtime`, and does not wait until it has found one: until then they are
    /// unreachable. `on_event` hears of each server by itself. A name's addresses are each given `connect_timeout`.
    ///
    /// # Errors
    /// Without servers, and with a prefix that names cannot begin with.
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
        Ok(Arc::new(Self { servers, spread: Spread::new(addresses), prefix, tasks }))
    }

    fn server(&self, index: usize) -> Result<&Server, StoreError> {
        // The indices are those of `spread`, which has the same servers.
        self.servers.get(index).map(|server| &**server).ok_or(StoreError::Unsupported)
    }

    fn write<'a>(&'a self, name: &'a Name, value: &'a Value, ttl: Duration) -> Write<'a> {
        Write { prefix: &self.prefix, name, value, seconds: seconds(ttl) }
    }

    /// Asks one server for its share of the names.
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
        let answers = connection.ask(batch).await?;
        answers.into_iter().map(|answer| Ok(found(Some(answer))?.map(|(value, _)| value))).collect()
    }

    /// Two round trips for a batch, as no command of memcached touches only what would live shorter: how long does each
    /// live, and then those that live too short, if any. A longer life that another proxy gives between the two is cut to
    /// ours; its next touch mends that.
    async fn touch_share(&self, server: usize, touches: &[(&Name, u64)]) -> Result<(), StoreError> {
        let connection = self.server(server)?.connection()?;
        let mut first_error = None;
        let mut asked = Vec::with_capacity(touches.len());
        let mut batch = Batch::new(&self.prefix);
        for touch in touches {
            match batch.left(touch.0) {
                Ok(()) => asked.push(*touch),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let lives = connection.ask(batch).await?;
        let mut batch = Batch::new(&self.prefix);
        for ((name, seconds), life) in asked.into_iter().zip(lives) {
            match life {
                Answer::Done { left: Some(Left::Seconds(left)) } if left < seconds => batch.touch(name, seconds)?,
                Answer::Done { .. } | Answer::Nothing => {}
                other => first_error = first_error.or(Some(refusal(Some(other)))),
            }
        }
        done(first_error, connection.ask(batch).await?)
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
        done(first_error, connection.ask(batch).await?)
    }
}

/// The first of what could not be done.
fn done(first_error: Option<StoreError>, answers: Vec<Answer>) -> Result<(), StoreError> {
    let failed = || answers.into_iter().find(|answer| matches!(answer, Answer::Failed(_)));
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

    /// Whether one of them answers. The names of the others are unreachable by themselves, so a lost server is no reason
    /// to leave the rest alone.
    async fn ping(&self) -> Result<(), StoreError> {
        let pings = self.servers.iter().map(|server| {
            Box::pin(async { server.connection()?.ask(Batch::new(&self.prefix).noop()).await.map(drop) })
        });
        select_ok(pings).await.map(|((), _)| ())
    }

    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError> {
        let shares = self.spread.shares(names);
        let found = try_join_all(shares.iter().map(|share| self.find_share(share, names))).await?;
        let mut values = vec![None; names.len()];
        for ((_, positions), found) in shares.iter().zip(found) {
            for (position, value) in positions.iter().zip(found) {
                if let Some(place) = values.get_mut(*position) {
                    *place = value;
                }
            }
        }
        Ok(values)
    }

    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let connection = self.server(self.spread.server_of(name))?.connection()?;
        self.write(name, value, ttl).bind(&connection).await
    }

    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        let connection = self.server(self.spread.server_of(name))?.connection()?;
        self.write(name, value, ttl).rebind(&connection).await
    }

    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError> {
        let shares = self.spread.shares(touches.iter().map(|(name, _)| name));
        let done = join_all(shares.iter().map(|(server, positions)| async {
            let share = positions.iter().filter_map(|position| touches.get(*position));
            let share: Vec<_> = share.map(|(name, ttl)| (name, seconds(*ttl))).collect();
            self.touch_share(*server, &share).await
        }));
        done.await.into_iter().collect()
    }

    async fn forget(&self, names: &[Name]) -> Result<(), StoreError> {
        let shares = self.spread.shares(names);
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
