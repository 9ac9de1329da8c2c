//! What watches servers in the background: health checks and name resolution, one task each, started and stopped as the
//! configuration changes. A task whose settings did not change goes on undisturbed, with all that it has counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::future::join_all;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use tokio::task::JoinHandle;

use crate::app::runtime::Runtime;
use crate::config::{HealthCheck, ServerAddress};
use crate::pool::condition::Health;
use crate::pool::health::{self, Verdicts, Watch};
use crate::pool::resolve::Name;
use crate::pool::server::Server;

/// Pool and server.
type Key = (Arc<str>, Arc<str>);
/// What a task was started with; another needs another task.
type Settings = (ServerAddress, Option<HealthCheck>);

/// The tasks that run now.
#[derive(Default)]
pub(super) struct Tasks {
    running: HashMap<Key, (Settings, Vec<JoinHandle<()>>)>,
}

/// Resolves names that have no address yet and checks servers that have no verdict yet, all at once. Takes as long as the
/// slowest answer, at most some seconds.
pub(super) async fn first_verdicts(snapshot: &Runtime) {
    let servers = || servers_of(snapshot);
    join_all(servers().filter_map(|(pool, server)| name_of(pool, server)).map(async |name| {
        if name.live.resolved().is_none() {
            name.resolve().await;
        }
    }))
    .await;
    let unknown = servers().filter(|(_, server)| server.is_checked() && server.live.health() == Health::Unknown);
    join_all(
        unknown.filter_map(|(pool, server)| Some((watch_of(snapshot, pool, server)?, server.peer_address()))).map(
            async |(watch, address)| {
                let mut verdicts = Verdicts::new(&watch.config, Health::Unknown);
                watch.round(&mut verdicts, address).await;
            },
        ),
    )
    .await;
}

impl Tasks {
    /// Starts and stops tasks so that they match the snapshot.
    pub(super) fn follow(&mut self, snapshot: &Runtime) {
        let mut former = std::mem::take(&mut self.running);
        for (pool, server) in servers_of(snapshot) {
            let key = (Arc::clone(pool), Arc::clone(&server.name));
            let watch = watch_of(snapshot, pool, server);
            let settings = (server.address.clone(), watch.as_ref().map(|watch| watch.config.clone()));
            let kept = former.remove(&key).and_then(|(before, handles)| {
                if before == settings {
                    return Some(handles);
                }
                stop(handles);
                None
            });
            let handles = kept.unwrap_or_else(|| start(pool, server, watch));
            self.running.insert(key, (settings, handles));
        }
        for (_, handles) in former.into_values() {
            stop(handles);
        }
    }
}

fn start(pool: &Arc<str>, server: &Server, watch: Option<Watch>) -> Vec<JoinHandle<()>> {
    let mut handles = Vec::new();
    if let Some(name) = name_of(pool, server) {
        handles.push(tokio::spawn(name.run()));
    }
    if let Some(watch) = watch {
        let fixed = server.peer_address();
        let live = Arc::clone(&server.live);
        let by_name = matches!(server.address, ServerAddress::Name { .. });
        let address = move || if by_name { live.resolved().map(PeerAddr::Inet) } else { fixed.clone() };
        handles.push(tokio::spawn(watch.run(address)));
    }
    handles
}

fn stop(handles: Vec<JoinHandle<()>>) {
    for handle in handles {
        handle.abort();
    }
}

fn servers_of(snapshot: &Runtime) -> impl Iterator<Item = (&Arc<str>, &Server)> {
    snapshot.pools.iter().flat_map(|plan| plan.pool.servers.iter().map(|server| (&plan.pool.name, server)))
}

fn watch_of(snapshot: &Runtime, pool: &Arc<str>, server: &Server) -> Option<Watch> {
    let config = snapshot.config.pools.iter().find(|config| config.name == **pool)?;
    health::watch(config, pool, server)
}

fn name_of(pool: &Arc<str>, server: &Server) -> Option<Name> {
    let ServerAddress::Name { host, port } = &server.address else { return None };
    Some(Name {
        pool: Arc::clone(pool),
        server: Arc::clone(&server.name),
        host: host.clone(),
        port: *port,
        live: Arc::clone(&server.live),
        failing: AtomicBool::new(false),
    })
}
