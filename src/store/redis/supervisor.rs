//! Keeps a connection for as long as the engine runs: connects, watches, and connects again.
//!
//! A connection that fails soon after it was made is followed by growing pauses, up to two seconds, so that a server in
//! trouble is not flooded.

use std::sync::Arc;

use redis::ConnectionInfo;
use tokio::time::sleep;
use tracing::debug;

use super::cluster;
use super::connect::{self, Endpoints, Node, Subscription};
use super::connection::{Connection, Handle};
use super::errors::{Failure, Remedy};
use super::heartbeat::{self, Proven};
use super::sentinel::Sentinels;
use super::settings::RedisMode;
use super::state::EngineState;
use crate::store::connection::Backoff;
use crate::store::engine::{Event, StoreError};

/// Runs until the task is aborted.
pub(super) async fn supervise(state: Arc<EngineState>) {
    let mut reported = false;
    let mut backoff = Backoff::new();
    // A connection that has lasted is replaced at once.
    let mut at_once = true;
    loop {
        let lost = match connect(&state).await {
            Ok(established) => {
                let Established { connection, address, .. } = &established;
                debug!(server = %connection.server.label, %address, "connected to the store");
                reported = false;
                state.connect(Arc::clone(connection));
                state.emit(Event::Reconnected);
                let proven = Proven::default();
                let reason = watch(&state, established, &proven).await;
                if proven.into_inner() {
                    backoff.reset();
                    at_once = true;
                }
                StoreError::Unreachable(reason)
            }
            Err(failure) => failure.error,
        };
        state.disconnect(lost.clone());
        if !std::mem::replace(&mut reported, true) {
            state.emit(Event::Lost(lost.reason()));
        }
        if !std::mem::replace(&mut at_once, false) {
            sleep(backoff.pause()).await;
        }
    }
}

/// A connection with its announcements.
struct Established {
    connection: Arc<Connection>,
    /// `None` where the user has no permission to subscribe.
    subscription: Option<Subscription>,
    /// For logs.
    address: String,
    /// The primary that the sentinels reported.
    primary: Option<Node>,
}

/// Connects for commands and announcements, both or neither.
async fn connect(state: &EngineState) -> Result<Established, Failure> {
    let seeds = &state.endpoints.seeds;
    match state.endpoints.mode {
        RedisMode::Standalone => first_primary(state, seeds.iter().map(|info| (info.clone(), None)).collect()).await,
        RedisMode::Sentinel => {
            let mut servers = Vec::new();
            for node in sentinels(state).primaries().await? {
                servers.extend(seeds.first().map(|info| (node.info(info), Some(node))));
            }
            first_primary(state, servers).await
        }
        RedisMode::Cluster => {
            let subscription = cluster::subscribe(state).await?;
            let connection = Arc::new(cluster::connect(state, subscription.is_some()).await?);
            Ok(Established { connection, subscription, address: "a cluster".to_owned(), primary: None })
        }
    }
}

/// The first of these servers that accepts writes.
async fn first_primary(
    state: &EngineState,
    servers: Vec<(ConnectionInfo, Option<Node>)>,
) -> Result<Established, Failure> {
    let mut first_failure = None;
    for (info, node) in servers {
        let address = connect::address(&info);
        match connect_to(state, &info, node).await {
            Ok(established) => return Ok(established),
            Err(failure) => first_failure = first_failure.or(Some(failure.at(&address))),
        }
    }
    Err(first_failure.unwrap_or_else(|| Failure::unreachable("no server is known", Remedy::None)))
}

async fn connect_to(state: &EngineState, info: &ConnectionInfo, primary: Option<Node>) -> Result<Established, Failure> {
    let (connection, server) = state.connector.identified(info).await?;
    if server.primary == Some(false) {
        return Err(Failure::unreachable("it is a replica, which accepts no writes", Remedy::Reconnect));
    }
    let subscription = state.connector.subscribe_if_permitted(info, state.keys.channel()).await?;
    let connection = Arc::new(Connection::new(Handle::Single(connection), server, subscription.is_some()));
    Ok(Established { connection, subscription, address: connect::address(info), primary })
}

/// Waits until the connection has to be replaced. Returns the reason.
async fn watch(state: &EngineState, established: Established, proven: &Proven) -> String {
    let Established { connection, subscription, address, primary } = established;
    if state.endpoints.mode == RedisMode::Cluster {
        return cluster::watch(state, connection, subscription, proven).await;
    }
    let (sink, stream) = subscription.map(|Subscription { sink, stream }| (sink, stream)).unzip();
    let reason = tokio::select! {
        reason = connection.failed() => reason,
        reason = heartbeat::watch(&connection, sink, proven) => reason,
        reason = heartbeat::forward_announcements(state, stream) => reason,
        reason = watch_sentinels(state, primary.as_ref()) => reason,
    };
    format!("{address}: {reason}")
}

/// Without sentinels, never returns.
async fn watch_sentinels(state: &EngineState, primary: Option<&Node>) -> String {
    match (state.endpoints.mode, primary) {
        (RedisMode::Sentinel, Some(primary)) => sentinels(state).watch(primary).await,
        _ => std::future::pending().await,
    }
}

fn sentinels(state: &EngineState) -> Sentinels<'_> {
    let Endpoints { seeds, master_name, .. } = &state.endpoints;
    Sentinels { urls: seeds, master: master_name, connector: &state.connector }
}
