//! Bindings in a map of Hazelcast 5.3 or newer, by its Open Binary Client Protocol: a cluster whose members each own a part of
//! the partitions, keep copies of others', and take over when one is lost.
//!
//! There is no maintained client crate, so the protocol is implemented here.
//!
//! Names and values are strings of Java, so that Hazelcast's own tools show them; the map plays the part of a prefix. A bind is
//! `putIfAbsent`, a move is `putIfAbsent` and, where something is kept, `replaceIfSame` with what was kept. What the map's
//! listener tells of entries that were updated, or added by a move, are the announcements.
//!
//! - [`frame`], [`data`], [`request`] and [`response`]: the codec, pure.
//! - [`connection`]: the protocol on a connection shared by all requests to a member. [`dial`]: authentication.
//! - [`member`] and [`cluster`]: the view of the cluster, routing and retries.
//! - [`supervise`]: discovery, reconnects, subscriptions.
//! - [`writes`]: bind, rebind and touch. [`list`]: pagination.
//!
//! Sources: "Hazelcast Open Binary Client Protocol" 2.8 and its protocol definitions; traffic of members of 5.7.

mod cluster;
mod connection;
mod data;
mod dial;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod list;
mod member;
mod request;
mod response;
pub mod settings;
mod supervise;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::select_ok;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use uuid::Uuid;

use self::cluster::{Call, Cluster};
use self::frame::Message;
use self::request::{Credentials, DELETE, GET, GET_ALL};
use self::settings::HazelcastSettings;
use super::engine::settings::EngineSettings;
use super::engine::{Capabilities, Engine, Name, OnEvent, Page, StoreError, Value, WriteResult};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::session::token::UnixMillis;

/// A Hazelcast cluster. The tasks end with it.
pub struct HazelcastEngine {
    cluster: Arc<Cluster>,
    supervisor: AbortHandle,
    clock: fn() -> UnixMillis,
}

impl HazelcastEngine {
    /// Returns at once; connects on `runtime`. `patience` is the limit for each step of connecting. The clock is compared
    /// with the expiry times that members report.
    ///
    /// # Errors
    /// Without members.
    pub fn start(
        settings: &HazelcastSettings,
        patience: Duration,
        runtime: &Handle,
        clock: fn() -> UnixMillis,
        on_event: OnEvent,
    ) -> Result<Arc<Self>, StoreError> {
        if settings.members.is_empty() {
            return Err(StoreError::Refused("no members of Hazelcast; name one in `members`".to_owned()));
        }
        let credentials = Credentials { cluster_name: settings.cluster_name.clone(), client: Uuid::new_v4() };
        let cluster = Arc::new(Cluster::new(credentials, &settings.map, patience, on_event));
        let supervised = supervise::supervise(Arc::clone(&cluster), settings.members.clone());
        let supervisor = runtime.spawn(supervised).abort_handle();
        Ok(Arc::new(Self { cluster, supervisor, clock }))
    }
}

impl EngineSettings for HazelcastSettings {
    const ABOUT: &'static str = "Hazelcast, shared by several proxies.";

    fn check(&self, at: NodeRef<'_>, _: &CheckContext<'_>, diagnostics: &mut Diagnostics) -> Self {
        self.check(at, diagnostics)
    }

    fn start(
        &self,
        connect_timeout: Duration,
        runtime: &Handle,
        clock: fn() -> UnixMillis,
        on_event: OnEvent,
    ) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(HazelcastEngine::start(self, connect_timeout, runtime, clock, on_event)?)
    }
}

impl Drop for HazelcastEngine {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.cluster.stop();
    }
}

#[async_trait]
impl Engine for HazelcastEngine {
    fn capabilities(&self) -> Capabilities {
        let version = self.cluster.view().version.clone();
        let server = format!("hazelcast {}", version.as_deref().unwrap_or_default()).trim_end().to_owned();
        Capabilities { server, compare_and_set: "replace", announces: self.cluster.announces(), list: true }
    }

    /// Whether any member responds. The partitions of a lost one are unreachable by themselves until they are reassigned.
    async fn ping(&self) -> Result<(), StoreError> {
        let members = self.cluster.view();
        let pings: Vec<_> = members
            .members
            .iter()
            .filter_map(|member| member.connection())
            .map(|connection| Box::pin(async move { connection.ask(vec![request::ping()]).await.map(drop) }))
            .collect();
        if pings.is_empty() {
            return self.cluster.any().map(drop);
        }
        select_ok(pings).await.map(|((), _)| ())
    }

    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError> {
        let lookup = Lookup::new(&self.cluster, names);
        let answers = self.cluster.ask_all(lookup.calls(&self.cluster.map)).await;
        lookup.read(answers)
    }

    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        writes::bind(&self.cluster, name, value, ttl).await
    }

    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError> {
        writes::rebind(&self.cluster, name, value, ttl).await
    }

    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError> {
        writes::touch(&self.cluster, touches, self.clock).await
    }

    async fn forget(&self, names: &[Name]) -> Result<(), StoreError> {
        let calls = names.iter().map(|name| {
            let key = data::key(name);
            let partition = data::partition(&key, self.cluster.partitions());
            Call { partition, requests: vec![request::delete(&self.cluster.map, partition, &key)], kind: DELETE }
        });
        for answers in self.cluster.ask_all(calls.collect()).await {
            response::boolean(answers?.first().ok_or(StoreError::Timeout)?, DELETE)?;
        }
        Ok(())
    }

    async fn list(&self, prefix: &Name, cursor: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        list::list(&self.cluster, prefix, cursor, limit).await
    }

    fn partition(&self, name: &Name) -> Option<u32> {
        u32::try_from(data::partition(&data::key(name), self.cluster.partitions())).ok()
    }
}

/// A lookup of several names: one request for each partition.
struct Lookup {
    keys: Vec<Vec<u8>>,
    /// Partitions, and the indices of their keys.
    shares: Vec<(i32, Vec<usize>)>,
}

impl Lookup {
    fn new(cluster: &Cluster, names: &[Name]) -> Self {
        let keys: Vec<_> = names.iter().map(data::key).collect();
        let mut shares: Vec<(i32, Vec<usize>)> = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let partition = data::partition(key, cluster.partitions());
            match shares.iter_mut().find(|(other, _)| *other == partition) {
                Some((_, share)) => share.push(at),
                None => shares.push((partition, vec![at])),
            }
        }
        Self { keys, shares }
    }

    fn calls(&self, map: &str) -> Vec<Call> {
        let calls = self.shares.iter().map(|(partition, share)| {
            let keys = share.iter().filter_map(|at| self.keys.get(*at).map(Vec::as_slice));
            let (kind, request) = match *share.as_slice() {
                [at] => (GET, request::get(map, *partition, self.keys.get(at).map_or(&[], Vec::as_slice))),
                _ => (GET_ALL, request::get_all(map, *partition, keys)),
            };
            Call { partition: *partition, requests: vec![request], kind }
        });
        calls.collect()
    }

    fn read(&self, answers: Vec<Result<Vec<Message>, StoreError>>) -> Result<Vec<Option<Value>>, StoreError> {
        let mut values = vec![None; self.keys.len()];
        for ((_, share), answers) in self.shares.iter().zip(answers) {
            let answers = answers?;
            let answer = answers.first().ok_or(StoreError::Timeout)?;
            let mut put = |at: usize, data: &[u8]| -> Result<(), StoreError> {
                if let Some(place) = values.get_mut(at) {
                    *place = Some(data::read_value(data)?);
                }
                Ok(())
            };
            if let [at] = *share.as_slice() {
                response::nullable(answer, GET)?.map(|data| put(at, data)).transpose()?;
                continue;
            }
            for (key, data) in response::entries(answer, GET_ALL)? {
                // In the members' order, without those that are not there; and a name may have been asked for twice.
                for at in share.iter().filter(|at| self.keys.get(**at).is_some_and(|asked| asked == key)) {
                    put(*at, data)?;
                }
            }
        }
        Ok(values)
    }
}
