//! Keeping a cluster. One node of it may be gone without the others: then only its names are out of reach, and redis-rs
//! finds its successor. What redis-rs does not find is the successor of a node that is frozen, so the connections are made
//! anew, beside the old ones, while a node does not answer. `PUBLISH` reaches every node, so announcements come from any.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redis::ConnectionInfo;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::ResponsePolicy;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::cluster;
use super::dial::Subscription;
use super::failure::{Failure, Remedy};
use super::link::{Connection, Link};
use super::pulse::{self, EVERY, LIMIT};
use super::supervisor::{Shared, is_steady};
use super::target;
use super::topology::permitted;
use crate::store::engine::{Event, StoreError};

/// Connections to all nodes, by those of the configuration and those that were found since.
pub(super) async fn connect(shared: &Shared, announces: bool) -> Result<Link, Failure> {
    let (connection, server) = cluster::connect(&shared.dial, &known(shared)).await?;
    learn(shared, &connection).await;
    Ok(Link::new(Connection::Cluster(connection), server, announces))
}

/// Hears announcements from the first node that answers.
pub(super) async fn subscribe(shared: &Shared) -> Result<Option<Subscription>, Failure> {
    let mut first_failure = None;
    for info in known(shared) {
        match permitted(shared.dial.subscription(&info, shared.keys.channel()).await) {
            Ok(subscription) => return Ok(subscription),
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
    }
    Err(first_failure.unwrap_or_else(nobody))
}

/// Waits until no node answers; then says so.
pub(super) async fn watch(
    shared: &Shared,
    link: Arc<Link>,
    subscription: Option<Subscription>,
    steady: &AtomicBool,
) -> String {
    tokio::select! {
        why = beats(shared, link, steady) => why,
        why = hear(shared, subscription) => why,
    }
}

async fn beats(shared: &Shared, mut link: Arc<Link>, steady: &AtomicBool) -> String {
    let mut whole = true;
    loop {
        sleep(EVERY).await;
        match ping(&link, ResponsePolicy::AllSucceeded).await {
            Ok(()) if !whole => {
                info!("every node of the cluster answers");
                shared.tell(Event::Reconnected);
                whole = true;
            }
            Ok(()) => is_steady(steady),
            Err(all) => {
                if let Err(none) = ping(&link, ResponsePolicy::OneSucceeded).await {
                    return none.why();
                }
                if whole {
                    warn!(
                        "a node of the cluster does not answer, so a part of the sessions is out of reach: {}",
                        all.error
                    );
                    whole = false;
                }
                if let Ok(anew) = connect(shared, link.announces).await {
                    link = Arc::new(anew);
                    shared.publish(Arc::clone(&link));
                }
            }
        }
    }
}

async fn ping(link: &Link, policy: ResponsePolicy) -> Result<(), Failure> {
    let Connection::Cluster(connection) = link.connection() else { return Err(nobody()) };
    match timeout(LIMIT, cluster::ping(&connection, policy)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new(StoreError::Timeout, Remedy::None)),
    }
}

/// Passes announcements on, from another node when one is gone. Never ends.
async fn hear(shared: &Shared, mut subscription: Option<Subscription>) -> String {
    while let Some(Subscription { sink, stream }) = subscription {
        let why = tokio::select! {
            why = pulse::announcements(shared, Some(stream)) => why,
            why = pulse::subscription_beats(sink) => why,
        };
        debug!("announcements come from another node of the cluster: {why}");
        subscription = loop {
            match subscribe(shared).await {
                Ok(subscription) => break subscription,
                Err(_) => sleep(EVERY).await,
            }
        };
        // Some may have been missed.
        shared.tell(Event::Reconnected);
    }
    std::future::pending().await
}

/// The nodes of the configuration, and after them those that were found.
fn known(shared: &Shared) -> Vec<ConnectionInfo> {
    let mut infos = shared.target.seeds.clone();
    if let Some(first) = shared.target.seeds.first() {
        for node in shared.nodes.load().iter() {
            let info = target::at(first, &node.host, node.port);
            if infos.iter().all(|other| other.addr() != info.addr()) {
                infos.push(info);
            }
        }
    }
    infos
}

async fn learn(shared: &Shared, connection: &ClusterConnection) {
    if let Ok(Ok(nodes)) = timeout(LIMIT, cluster::primaries(connection)).await {
        shared.nodes.store(Arc::new(nodes));
    }
}

fn nobody() -> Failure {
    Failure::new(StoreError::Unreachable("no node of the cluster answers".to_owned()), Remedy::None)
}
