//! The tasks that keep the connections: discovery by the configured members, one connection to each member of the cluster, and
//! the subscription to cluster and entry events on one of them. When that connection ends, the next one is subscribed.
//!
//! Reconnects back off exponentially, up to two seconds.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::SliceRandom;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, warn};
use uuid::Uuid;

use super::cluster::{Cluster, View};
use super::connection::{Connection, MemberCodec};
use super::data;
use super::dial::{dial, label};
use super::frame::Message;
use super::member::{Member, Route};
use super::request::{self, CLUSTER_VIEW, ENTRY_LISTENER, MAP_CONFIG};
use super::response::{self, MemberInfo, answer};
use crate::store::connection::{Backoff, ConnectionEnd, drive};
use crate::store::engine::{Event, Kind, StoreError};

/// Limit for the first view of the cluster after the subscription.
const FIRST_VIEW: Duration = Duration::from_secs(2);

/// Keeps the connections until the task is aborted.
pub(super) async fn supervise(cluster: Arc<Cluster>, mut seeds: Vec<String>) {
    // Not every proxy subscribes at the same member.
    seeds.shuffle(&mut rand::thread_rng());
    let mut backoff = Backoff::new();
    let mut reported = false;
    loop {
        let changed = cluster.changed.notified();
        let why = match cluster.any() {
            Ok(connection) => match subscribe(&cluster, &connection).await {
                Ok(()) => {
                    backoff.reset();
                    stay(&cluster, &connection).await;
                    // The task of the connection has reported why it ended.
                    reported = true;
                    continue;
                }
                Err(error) => error,
            },
            Err(_) => match find(&cluster, &seeds).await {
                Ok(()) => {
                    until_connected(&cluster).await;
                    continue;
                }
                Err(error) => error,
            },
        };
        if !std::mem::replace(&mut reported, true) {
            cluster.emit(Event::Lost(why.reason()));
        }
        rest(&mut backoff, changed).await;
    }
}

async fn until_connected(cluster: &Cluster) {
    let connected = async {
        loop {
            let changed = cluster.changed.notified();
            if cluster.any().is_ok() {
                return;
            }
            changed.await;
        }
    };
    // Else the members of the configuration are asked again.
    let _ = timeout(cluster.patience, connected).await;
}

async fn rest(backoff: &mut Backoff, woken: impl Future<Output = ()>) {
    // The same after a timeout as after a wake-up.
    let _ = timeout(backoff.pause(), woken).await;
}

/// Tries the configured members in turn until one accepts the connection. The view is then this member alone, until it sends
/// the cluster's.
async fn find(cluster: &Arc<Cluster>, seeds: &[String]) -> Result<(), StoreError> {
    let mut last = StoreError::Unreachable("no members".to_owned());
    for seed in seeds {
        match dial(seed, &cluster.credentials, cluster.patience).await {
            Ok((_stream, identity)) => {
                let view = cluster.view();
                // One that is known by another address, at which it may not be reached from here, is begun with once more.
                let is_it = |member: &&Arc<Member>| member.uuid == identity.member && *member.address == **seed;
                if let Some(known) = view.members.iter().find(is_it) {
                    known.wake.notify_one();
                    return Ok(());
                }
                let member = Arc::new(Member::new(identity.member, seed));
                let partitions = usize::try_from(identity.partitions).unwrap_or_default();
                cluster.set_view(View {
                    members: vec![Arc::clone(&member)],
                    owners: vec![None; partitions].into(),
                    version: Some(identity.version.into()),
                });
                view.members.iter().for_each(|former| _ = former.leave());
                keep(cluster, member);
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Keeps a connection to a member, on a separate task.
fn keep(cluster: &Arc<Cluster>, member: Arc<Member>) {
    let task = tokio::spawn(keep_connected(Arc::clone(cluster), member));
    cluster.watch(task.abort_handle());
}

async fn keep_connected(cluster: Arc<Cluster>, member: Arc<Member>) {
    let mut backoff = Backoff::new();
    // The loss of a member is reported once.
    let mut reported = false;
    while !member.is_gone() {
        let (lost, served) = match connect(&cluster, &member).await {
            Ok(stream) => {
                let end = serve(&cluster, &member, stream, std::mem::replace(&mut reported, false)).await;
                if end.proven {
                    backoff.reset();
                }
                (StoreError::Unreachable(end.reason), true)
            }
            Err(error) => (error, false),
        };
        // A connection that broke: at once. A failed attempt: the former route holds while the others are asked.
        let is_forwarded = !served && cluster.reaches(&member).await;
        member.set_route(if is_forwarded { Route::Forwarded } else { Route::Lost(lost.clone()) });
        cluster.changed.notify_waiters();
        if member.is_gone() {
            return;
        }
        if !std::mem::replace(&mut reported, true) {
            cluster.emit(Event::Lost(lost.reason()));
        }
        rest(&mut backoff, member.wake.notified()).await;
    }
}

async fn connect(cluster: &Cluster, member: &Member) -> Result<TcpStream, StoreError> {
    let (stream, identity) = dial(&member.address, &cluster.credentials, cluster.patience).await?;
    if identity.member == member.uuid {
        return Ok(stream);
    }
    // A restarted member has a new id; the cluster's view will have it.
    Err(StoreError::Unreachable(format!("{}: another member is there now", label(&member.address))))
}

async fn serve(cluster: &Cluster, member: &Member, stream: TcpStream, was_lost: bool) -> ConnectionEnd {
    let label = label(&member.address);
    let (connection, requests) = Connection::new(Arc::clone(&label));
    member.set_route(Route::Direct(connection));
    cluster.changed.notify_waiters();
    if was_lost && cluster.is_subscribed() {
        cluster.emit(Event::Reconnected);
    }
    drive(stream, requests, MemberCodec::default(), &label).await
}

/// Subscribes to the view of the cluster: members and partitions.
async fn subscribe(cluster: &Arc<Cluster>, connection: &Connection) -> Result<(), StoreError> {
    let view = Arc::clone(cluster);
    let versions = Mutex::new(Versions { members: i32::MIN, partitions: i32::MIN, lost_some: false });
    let on_view = Box::new(move |message: &Message| follow(&view, &versions, message));
    let listens = timeout(FIRST_VIEW, connection.listen(request::cluster_view(), on_view));
    check(&listens.await.map_err(|_elapsed| StoreError::Timeout)??, CLUSTER_VIEW)
}

/// Subscribes to the events of entries too, and returns when the connection ends. The member registers the listener at all others
/// before it confirms, so a frozen one delays that until the cluster has removed it; until then announcements may be missing.
async fn stay(cluster: &Arc<Cluster>, connection: &Connection) {
    let mut listens = pin!(listen(cluster, connection));
    let at_once = timeout(cluster.patience, &mut listens).await;
    cluster.set_subscribed(true);
    cluster.set_announces(matches!(at_once, Ok(Ok(()))));
    cluster.emit(Event::Reconnected);
    check_map_config(cluster, connection).await;
    match at_once {
        Ok(done) => log_refusal(done),
        Err(_elapsed) => match listens.await {
            Ok(()) => {
                cluster.set_announces(true);
                cluster.emit(Event::Reconnected);
            }
            refused => log_refusal(refused),
        },
    }
    connection.closed().await;
    cluster.set_subscribed(false);
}

async fn listen(cluster: &Arc<Cluster>, connection: &Connection) -> Result<(), StoreError> {
    let entries = Arc::clone(cluster);
    let on_entry = Box::new(move |message: &Message| announce_entry(&entries, message));
    check(&connection.listen(request::entry_listener(&cluster.map), on_entry).await?, ENTRY_LISTENER)
}

fn log_refusal(listened: Result<(), StoreError>) {
    // A lost connection is reported by its own task.
    if let Err(why @ (StoreError::Refused(_) | StoreError::Unreadable(_))) = listened {
        warn!(%why, "Hazelcast refuses to announce moves; near_ttl applies");
    }
}

/// Whether this is a successful response to a request of this type.
fn check(answers: &[Message], kind: u32) -> Result<(), StoreError> {
    answer(answers.first().ok_or(StoreError::Timeout)?, kind).map(drop).map_err(StoreError::from)
}

/// Warns of a configuration of the map that loses sessions or keeps entries for ever.
async fn check_map_config(cluster: &Cluster, connection: &Connection) {
    let asked = timeout(cluster.patience, connection.ask(vec![request::map_config(&cluster.map)])).await;
    let Ok(Ok(answers)) = asked else { return };
    let Some(Ok(config)) = answers.first().map(|first| response::map_config(first, MAP_CONFIG)) else {
        // Clients may lack the permission.
        return debug!("the configuration of the Hazelcast map is not readable");
    };
    let map = &cluster.map;
    if config.ttl_seconds == 0 {
        warn!(
            %map,
            "the Hazelcast map has no time-to-live-seconds: an entry whose write was interrupted by a crash stays until its session is used again"
        );
    }
    if config.backups == 0 {
        warn!(%map, "the Hazelcast map has no backups: a member that fails takes its part of the sessions with it");
    }
}

/// Announces a binding that was written. A first bind (epoch 0) is not announced: no proxy has an older one.
fn announce_entry(cluster: &Cluster, message: &Message) {
    let Ok(Some(event)) = response::entry_event(message) else { return };
    let Some(name) = data::name(event.key).filter(|name| name.kind() == Kind::Binding) else { return };
    // Entries written by other programs may be anything.
    let Ok(value) = data::read_value(event.value) else { return };
    if event.kind != request::ADDED || value.epoch() > 0 {
        cluster.emit(Event::Announced(name, value));
    }
}

/// Of the last views received on one connection.
struct Versions {
    members: i32,
    partitions: i32,
    /// An unreachable member has left the cluster; its partitions are being reassigned.
    lost_some: bool,
}

/// Applies an event of the cluster view.
fn follow(cluster: &Arc<Cluster>, versions: &Mutex<Versions>, message: &Message) {
    let mut versions = versions.lock();
    match response::view(message) {
        Ok(response::View::Members(version, members)) if version >= versions.members => {
            versions.members = version;
            versions.lost_some |= follow_members(cluster, &members);
        }
        Ok(response::View::Partitions(version, owners)) if version >= versions.partitions => {
            versions.partitions = version;
            follow_partitions(cluster, &owners);
            if std::mem::take(&mut versions.lost_some) && cluster.is_subscribed() {
                // Entries without a backup are lost.
                cluster.emit(Event::Reconnected);
            }
        }
        Ok(_) => {}
        Err(malformed) => warn!("the view of the Hazelcast cluster is {malformed}"),
    }
}

/// Returns whether an unreachable member has left.
fn follow_members(cluster: &Arc<Cluster>, reported: &[MemberInfo]) -> bool {
    let view = cluster.view();
    let known = |uuid: Uuid| view.members.iter().find(|member| member.uuid == uuid);
    let mut added = Vec::new();
    let members = reported.iter().map(|info| {
        known(info.uuid).cloned().unwrap_or_else(|| {
            let member = Arc::new(Member::new(info.uuid, &info.address));
            added.push(Arc::clone(&member));
            member
        })
    });
    let members: Vec<_> = members.collect();
    let is_left = |former: &&Arc<Member>| !reported.iter().any(|info| info.uuid == former.uuid);
    let lost_some = view.members.iter().filter(is_left).filter(|former| former.leave()).count() > 0;
    let owner_now = |owner: usize| {
        let former = view.members.get(owner)?;
        members.iter().position(|member| member.uuid == former.uuid)
    };
    let owners = view.owners.iter().map(|owner| owner.and_then(owner_now)).collect();
    cluster.set_view(View { members, owners, version: view.version.clone() });
    for member in added {
        keep(cluster, member);
    }
    lost_some
}

fn follow_partitions(cluster: &Cluster, reported: &[(Uuid, Vec<i32>)]) {
    let mut view = View::clone(&cluster.view());
    let mut owners = vec![None; view.owners.len()];
    for (uuid, partitions) in reported {
        let owner = view.members.iter().position(|member| member.uuid == *uuid);
        for partition in partitions {
            if let Some(place) = usize::try_from(*partition).ok().and_then(|partition| owners.get_mut(partition)) {
                *place = owner;
            }
        }
    }
    view.owners = owners.into();
    cluster.set_view(view);
}
