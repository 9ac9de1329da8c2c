//! The three ways to be set up: where to connect, and what says that another connection is needed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redis::ConnectionInfo;
use tracing::warn;

use super::cluster::Node;
use super::clustered;
use super::dial::Subscription;
use super::failure::{Failure, Remedy};
use super::link::{Connection, Link};
use super::pulse;
use super::sentinel::Sentinels;
use super::supervisor::Shared;
use super::target;
use crate::config::RedisMode;
use crate::store::engine::StoreError;

/// A connection with its announcements.
pub(super) struct Standing {
    pub(super) link: Arc<Link>,
    /// `None` where the user may not subscribe.
    pub(super) subscription: Option<Subscription>,
    /// For people.
    pub(super) address: String,
    /// The server that the sentinels named.
    node: Option<Node>,
}

/// Connects for commands and announcements, both or not at all.
pub(super) async fn connect(shared: &Shared) -> Result<Standing, Failure> {
    match &shared.target.mode {
        RedisMode::Standalone => {
            let mut first_failure = None;
            for info in &shared.target.seeds {
                match single(shared, info, None).await {
                    Ok(standing) => return Ok(standing),
                    Err(failure) => first_failure = first_failure.or(Some(failure)),
                }
            }
            Err(first_failure.unwrap_or_else(tombstone))
        }
        RedisMode::Sentinel { master_name } => {
            let mut first_failure = None;
            let sentinels = sentinels(shared, master_name);
            for node in sentinels.primaries().await? {
                let Some(info) = shared.target.seeds.first() else { break };
                match single(shared, &target::at(info, &node.host, node.port), Some(node)).await {
                    Ok(standing) => return Ok(standing),
                    Err(failure) => first_failure = first_failure.or(Some(failure)),
                }
            }
            Err(first_failure.unwrap_or_else(tombstone))
        }
        RedisMode::Cluster => {
            let subscription = clustered::subscribe(shared).await?;
            let link = clustered::connect(shared, subscription.is_some()).await?;
            Ok(Standing { link: Arc::new(link), subscription, address: "a cluster".to_owned(), node: None })
        }
    }
}

/// Waits until the connection has to be replaced; then says why.
pub(super) async fn watch(shared: &Shared, standing: Standing, steady: &AtomicBool) -> String {
    let Standing { link, subscription, address, node } = standing;
    if shared.target.mode == RedisMode::Cluster {
        return clustered::watch(shared, link, subscription, steady).await;
    }
    let (sink, stream) = subscription.map(|Subscription { sink, stream }| (sink, stream)).unzip();
    let why = tokio::select! {
        why = link.broken() => why,
        why = pulse::beats(&link, sink, steady) => why,
        why = pulse::announcements(shared, stream) => why,
        why = changes(shared, node.as_ref()) => why,
    };
    format!("{address}: {why}")
}

/// One server that takes writes.
async fn single(shared: &Shared, info: &ConnectionInfo, node: Option<Node>) -> Result<Standing, Failure> {
    let address = target::address(info);
    let told = |failure: Failure| at(&address, failure);
    let (connection, server) = shared.dial.commands(info).await.map_err(told)?;
    if server.primary == Some(false) {
        let words = "it is a replica, which takes no writes".to_owned();
        return Err(told(Failure::new(StoreError::Unreachable(words), Remedy::Replace)));
    }
    let subscription = permitted(shared.dial.subscription(info, shared.keys.channel()).await).map_err(told)?;
    let link = Arc::new(Link::new(Connection::Single(connection), server, subscription.is_some()));
    Ok(Standing { link, subscription, address, node })
}

/// A user who may not subscribe does without announcements.
pub(super) fn permitted(subscription: Result<Subscription, Failure>) -> Result<Option<Subscription>, Failure> {
    match subscription {
        Err(failure) if failure.remedy == Remedy::OtherCommand => {
            warn!("moves by other proxies are noticed late, as this user may not subscribe: {}", failure.error);
            Ok(None)
        }
        done => done.map(Some),
    }
}

/// What the sentinels have to say; nothing ever where there are none.
async fn changes(shared: &Shared, node: Option<&Node>) -> String {
    match (&shared.target.mode, node) {
        (RedisMode::Sentinel { master_name }, Some(node)) => sentinels(shared, master_name).change(node).await,
        _ => std::future::pending().await,
    }
}

fn sentinels<'a>(shared: &'a Shared, master: &'a str) -> Sentinels<'a> {
    Sentinels { urls: &shared.target.seeds, master, dial: &shared.dial }
}

/// The failure with the address at which it happened.
fn at(address: &str, failure: Failure) -> Failure {
    let error = match failure.error {
        StoreError::Unreachable(why) => StoreError::Unreachable(format!("{address}: {why}")),
        StoreError::Refused(why) => StoreError::Refused(format!("{address}: {why}")),
        StoreError::Unreadable(why) => StoreError::Unreadable(format!("{address}: {why}")),
        StoreError::Timeout => StoreError::Unreachable(format!("{address}: it did not answer in time")),
        other => other,
    };
    Failure { error, ..failure }
}

fn tombstone() -> Failure {
    Failure::new(StoreError::Unreachable("nobody knows a server to connect to".to_owned()), Remedy::None)
}
