//! Health checks and name resolution in the background: one task each per server, started and stopped as the configuration
//! changes. A task whose settings did not change keeps running, with its counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::config::{HealthCheck, Pool, ServerAddress, UpstreamProtocol};
use crate::pool::condition::Health;
use crate::pool::health::{self, HealthTask, HealthTracker};
use crate::pool::resolve::Resolver;
use crate::pool::server::Server;

use super::runtime::Runtime;

/// Pool and server.
type Key = (Arc<str>, Arc<str>);
/// The settings that a task was started with; a change restarts it.
type Settings = (ServerAddress, Option<HealthCheck>, UpstreamProtocol, Option<u64>);

/// The running tasks.
#[derive(Default)]
pub(super) struct ServerTasks {
    running: HashMap<Key, (Settings, Vec<JoinHandle<()>>)>,
}

/// How many new servers are checked (or their names resolved) at a time.
const CHECKED_AT_ONCE: usize = 128;
/// When that many are running and none finishes within this time, one more is started: servers that do not answer must not hold up the
/// others.
const CHECK_PACE: Duration = Duration::from_millis(1);

/// Resolves names that have no address yet, then checks servers whose health is unknown. Each of the two steps lasts until its slowest
/// server is done; each server that does not answer adds one or two milliseconds.
pub(super) async fn check_new_servers(runtime: &Runtime) {
    let resolvers = servers_of(runtime).filter_map(|(_, pool, server)| resolver_of(pool, server));
    let unresolved: Vec<_> = resolvers.filter(|resolver| resolver.live.resolved().is_none()).collect();
    run_paced(unresolved, |resolver| async move { resolver.resolve().await }).await;
    let unknown =
        servers_of(runtime).filter(|(.., server)| server.is_checked() && server.live.health() == Health::Unknown);
    let checks: Vec<_> = unknown
        .filter_map(|(config, pool, server)| Some((health::task(config, pool, server)?, server.peer_address())))
        .collect();
    run_paced(checks, |(check, address)| async move {
        let mut tracker = HealthTracker::new(&check.config, Health::Unknown);
        check.round(&mut tracker, address).await;
    })
    .await;
}

/// Runs each check in a task of its own. In one task, thousands of checks would share Tokio's budget of operations per poll and time
/// out.
async fn run_paced<T, F: Future<Output = ()> + Send + 'static>(checks: Vec<T>, run: impl Fn(T) -> F) {
    let mut running = JoinSet::new();
    for check in checks {
        if running.len() >= CHECKED_AT_ONCE {
            // Ok: one has finished. Err: none has, in this time.
            let _ = timeout(CHECK_PACE, running.join_next()).await;
        }
        running.spawn(run(check));
    }
    while running.join_next().await.is_some() {}
}

impl ServerTasks {
    /// Starts and stops tasks so that they match the runtime.
    pub(super) fn update(&mut self, runtime: &Runtime) {
        let mut previous = std::mem::take(&mut self.running);
        for (config, pool, server) in servers_of(runtime) {
            let key = (Arc::clone(pool), Arc::clone(&server.name));
            let check = health::task(config, pool, server);
            let protocol = check.as_ref().map_or(UpstreamProtocol::Http1, |check| check.protocol);
            let settings = (
                server.address.clone(),
                check.as_ref().map(|check| check.config.clone()),
                protocol,
                server.tls().map(|tls| tls.group()),
            );
            let unchanged = previous.remove(&key).and_then(|(before, handles)| {
                if before == settings {
                    return Some(handles);
                }
                stop(handles);
                None
            });
            let handles = unchanged.unwrap_or_else(|| start(pool, server, check));
            self.running.insert(key, (settings, handles));
        }
        for (_, handles) in previous.into_values() {
            stop(handles);
        }
    }
}

fn start(pool: &Arc<str>, server: &Server, check: Option<HealthTask>) -> Vec<JoinHandle<()>> {
    let mut handles = Vec::new();
    if let Some(resolver) = resolver_of(pool, server) {
        handles.push(tokio::spawn(resolver.run()));
    }
    if let Some(check) = check {
        let fixed = server.peer_address();
        let live = Arc::clone(&server.live);
        let by_name = matches!(server.address, ServerAddress::Name { .. });
        let address = move || if by_name { live.resolved().map(PeerAddr::Inet) } else { fixed.clone() };
        handles.push(tokio::spawn(check.run(address)));
    }
    handles
}

fn stop(handles: Vec<JoinHandle<()>>) {
    for handle in handles {
        handle.abort();
    }
}

/// All servers, with the configuration of their pool, which has the place in the configuration that the pool has.
fn servers_of(runtime: &Runtime) -> impl Iterator<Item = (&Pool, &Arc<str>, &Server)> {
    let pools = runtime.config.pools.iter().zip(runtime.pools.iter());
    pools.flat_map(|(config, pool)| pool.pool.servers.iter().map(move |server| (config, &pool.pool.name, server)))
}

fn resolver_of(pool: &Arc<str>, server: &Server) -> Option<Resolver> {
    let ServerAddress::Name { host, port } = &server.address else { return None };
    Some(Resolver {
        pool: Arc::clone(pool),
        server: Arc::clone(&server.name),
        host: host.clone(),
        port: *port,
        live: Arc::clone(&server.live),
        failing: AtomicBool::new(false),
    })
}
