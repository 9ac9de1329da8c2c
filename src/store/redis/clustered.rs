//! Keeping a cluster. One node of it may be gone without the others: then only its names are out of reach, and fail at once.
//! redis-rs finds the successor of a node that closed its connection, not of one that is frozen or cut off, so every node
//! is watched ([`super::nodes`]), and when names have another node, or one is back, the connections are made anew beside
//! the old ones. `PUBLISH` reaches every node, so announcements come from any.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redis::ConnectionInfo;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::cluster;
use super::dial::Subscription;
use super::failure::{Failure, Remedy};
use super::link::{Connection, Link};
use super::nodes::{Nodes, View};
use super::pulse::{self, EVERY};
use super::supervisor::{Shared, is_steady};
use super::target;
use super::topology::permitted;
use crate::store::engine::{Event, StoreError};

/// Connections to all nodes, by those of the configuration and those that were found since.
pub(super) async fn connect(shared: &Shared, announces: bool) -> Result<Link, Failure> {
    let (connection, server) = cluster::connect(&shared.dial, &known(shared)).await?;
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
    let mut watched = Nodes::default();
    let mut before: Option<View> = None;
    loop {
        sleep(EVERY).await;
        let view = match watched.look(&shared.dial, known(shared)).await {
            Ok(view) => view,
            Err(failure) => return failure.why(),
        };
        is_steady(steady);
        shared.nodes.store(Arc::new(cluster::nodes(&view.ranges)));
        let changed = before.as_ref() != Some(&view);
        if changed {
            link.silence(view.silent_slots());
            tell_of(&view, before.as_ref());
        }
        if before.as_ref().is_some_and(|before| view.needs_new_connections(before)) {
            // When it does not succeed, the next second brings the same difference.
            let Ok(anew) = connect(shared, link.announces).await else { continue };
            anew.silence(view.silent_slots());
            link = Arc::new(anew);
            shared.publish(Arc::clone(&link));
            shared.tell(Event::Reconnected);
        }
        before = Some(view);
    }
}

/// Once for each node that fell silent, and once when all answer again.
fn tell_of(view: &View, before: Option<&View>) {
    for node in &view.silent {
        if !before.is_some_and(|before| before.silent.contains(node)) {
            warn!("{node} of the cluster does not answer: its part of the sessions is out of reach");
        }
    }
    if view.silent.is_empty() && before.is_some_and(|before| !before.silent.is_empty()) {
        info!("every node of the cluster answers");
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

fn nobody() -> Failure {
    Failure::new(StoreError::Unreachable("no node of the cluster answers".to_owned()), Remedy::None)
}
