//! What keeps the connections: finds a member, learns from it of the others, keeps one connection to each, and one of them
//! tells of the cluster and of moves. When that one goes, another does.
//!
//! A member that is frozen or cut off gives no error by itself, so every connection is pinged each second. One that breaks soon
//! after it came is waited for longer and longer, up to two seconds, so that a member in trouble is not stormed.

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
use super::connection::{self, Connection};
use super::data;
use super::dial::{dial, label, reason};
use super::frame::Message;
use super::member::{Member, Way};
use super::request::{self, CLUSTER_VIEW, ENTRY_LISTENER, MAP_CONFIG};
use super::response::{self, MemberInfo, answer};
use crate::store::engine::{Event, Kind, StoreError};

/// The first pause before a member is looked for again, and the longest; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the view of a cluster may take after it was asked for.
const FIRST_VIEW: Duration = Duration::from_secs(2);

/// Keeps the engine in touch with the cluster until the task is ended.
pub(super) async fn supervise(cluster: Arc<Cluster>, mut seeds: Vec<String>) {
    // Proxies begin with different members.
    seeds.shuffle(&mut rand::thread_rng());
    let mut pause = SHORTEST_PAUSE;
    let mut told_lost = false;
    loop {
        let changed = cluster.changed.notified();
        let why = match cluster.any() {
            Ok(connection) => match subscribe(&cluster, &connection).await {
                Ok(()) => {
                    pause = SHORTEST_PAUSE;
                    stay(&cluster, &connection).await;
                    // It has told why it ended.
                    told_lost = true;
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
        if !std::mem::replace(&mut told_lost, true) {
            cluster.tell(Event::Lost(reason(why)));
        }
        rest(&mut pause, changed).await;
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

/// Half of it is chance, so that all proxies do not come at once.
async fn rest(pause: &mut Duration, woken: impl Future<Output = ()>) {
    let chance: f64 = rand::random();
    // Whatever woke it, it looks again.
    let _ = timeout(pause.mul_f64(0.5 + chance / 2.0), woken).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}

/// Asks the members of the configuration, one after the other, until one lets us in; that one is the cluster, until it tells of
/// more.
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

/// Keeps a connection to a member, on a task of its own.
fn keep(cluster: &Arc<Cluster>, member: Arc<Member>) {
    let task = tokio::spawn(keep_connected(Arc::clone(cluster), member));
    cluster.watch(task.abort_handle());
}

async fn keep_connected(cluster: Arc<Cluster>, member: Arc<Member>) {
    let mut pause = SHORTEST_PAUSE;
    // Whether it has been told that the member is lost: it is told once.
    let mut told = false;
    while !member.is_gone() {
        let (lost, served) = match meet(&cluster, &member).await {
            Ok(stream) => {
                let broken = serve(&cluster, &member, stream, std::mem::replace(&mut told, false)).await;
                if broken.proven {
                    pause = SHORTEST_PAUSE;
                }
                (StoreError::Unreachable(broken.reason), true)
            }
            Err(error) => (error, false),
        };
        member.set_way(Way::Lost(lost.clone()));
        cluster.changed.notify_waiters();
        if member.is_gone() {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            cluster.tell(Event::Lost(reason(lost)));
        }
        if !served && cluster.reaches(&member).await {
            member.set_way(Way::Detour);
        }
        rest(&mut pause, member.wake.notified()).await;
    }
}

async fn meet(cluster: &Cluster, member: &Member) -> Result<TcpStream, StoreError> {
    let (stream, identity) = dial(&member.address, &cluster.credentials, cluster.patience).await?;
    if identity.member == member.uuid {
        return Ok(stream);
    }
    // One that was started again is another one; the view of the cluster will tell of it.
    Err(StoreError::Unreachable(format!("{}: another member is there now", label(&member.address))))
}

async fn serve(cluster: &Cluster, member: &Member, stream: TcpStream, was_lost: bool) -> connection::Broken {
    let label = label(&member.address);
    let (connection, requests) = Connection::new(Arc::clone(&label));
    member.set_way(Way::Direct(connection));
    cluster.changed.notify_waiters();
    if was_lost && cluster.is_subscribed() {
        cluster.tell(Event::Reconnected);
    }
    connection::drive(stream, requests, &label).await
}

/// From now on this connection tells of members and partitions.
async fn subscribe(cluster: &Arc<Cluster>, connection: &Connection) -> Result<(), StoreError> {
    let view = Arc::clone(cluster);
    let versions = Mutex::new(Versions { members: i32::MIN, partitions: i32::MIN, lost_some: false });
    let on_view = Box::new(move |message: &Message| follow(&view, &versions, message));
    let listens = timeout(FIRST_VIEW, connection.listen(request::cluster_view(), on_view));
    check(&listens.await.map_err(|_elapsed| StoreError::Timeout)??, CLUSTER_VIEW)
}

/// Until the connection ends, it tells of entries too. A member that is asked to registers at all others first, and so waits for
/// one that is frozen until the cluster gives that one up: until then moves are not announced for certain.
async fn stay(cluster: &Arc<Cluster>, connection: &Connection) {
    let mut listens = pin!(listen(cluster, connection));
    let at_once = timeout(cluster.patience, &mut listens).await;
    cluster.set_subscribed(true);
    cluster.set_announces(matches!(at_once, Ok(Ok(()))));
    cluster.tell(Event::Reconnected);
    look_at_map(cluster, connection).await;
    match at_once {
        Ok(done) => tell_refusal(done),
        Err(_elapsed) => match listens.await {
            Ok(()) => {
                cluster.set_announces(true);
                cluster.tell(Event::Reconnected);
            }
            refused => tell_refusal(refused),
        },
    }
    connection.closed().await;
    cluster.set_subscribed(false);
}

async fn listen(cluster: &Arc<Cluster>, connection: &Connection) -> Result<(), StoreError> {
    let entries = Arc::clone(cluster);
    let on_entry = Box::new(move |message: &Message| tell_of_entry(&entries, message));
    check(&connection.listen(request::entry_listener(&cluster.map), on_entry).await?, ENTRY_LISTENER)
}

fn tell_refusal(listened: Result<(), StoreError>) {
    // One that cannot be reached is told of by its connection.
    if let Err(why @ (StoreError::Refused(_) | StoreError::Unreadable(_))) = listened {
        warn!(%why, "Hazelcast refuses to announce moves; near_ttl applies");
    }
}

/// Whether the answer is one to this request.
fn check(answers: &[Message], kind: u32) -> Result<(), StoreError> {
    answer(answers.first().ok_or(StoreError::Timeout)?, kind).map(drop).map_err(StoreError::from)
}

/// Says what of the map's configuration an operator should know.
async fn look_at_map(cluster: &Cluster, connection: &Connection) {
    let asked = timeout(cluster.patience, connection.ask(vec![request::map_config(&cluster.map)])).await;
    let Ok(Ok(answers)) = asked else { return };
    let Some(Ok(config)) = answers.first().map(|first| response::map_config(first, MAP_CONFIG)) else {
        // Not every cluster lets its clients ask.
        return debug!("the map's configuration is not told");
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

/// A binding that was kept. The first of a session without a token is none that others wait for: they know of no other.
fn tell_of_entry(cluster: &Cluster, message: &Message) {
    let Ok(Some(event)) = response::entry_event(message) else { return };
    let Some(name) = data::name(event.key).filter(|name| name.kind() == Kind::Binding) else { return };
    // Others write to the map what they like.
    let Ok(value) = data::read_value(event.value) else { return };
    if event.kind != request::ADDED || value.epoch() > 0 {
        cluster.tell(Event::Announced(name, value));
    }
}

/// Of the last views that were told on one connection.
struct Versions {
    members: i32,
    partitions: i32,
    /// A member that was lost is gone for good, and its partitions are to be others'.
    lost_some: bool,
}

/// The cluster has changed.
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
                // What only that one kept is gone.
                cluster.tell(Event::Reconnected);
            }
        }
        Ok(_) => {}
        Err(malformed) => warn!("the view of the Hazelcast cluster is {malformed}"),
    }
}

/// Returns whether one that was lost is gone for good.
fn follow_members(cluster: &Arc<Cluster>, told: &[MemberInfo]) -> bool {
    let view = cluster.view();
    let known = |uuid: Uuid| view.members.iter().find(|member| member.uuid == uuid);
    let mut added = Vec::new();
    let members = told.iter().map(|info| {
        known(info.uuid).cloned().unwrap_or_else(|| {
            let member = Arc::new(Member::new(info.uuid, &info.address));
            added.push(Arc::clone(&member));
            member
        })
    });
    let members: Vec<_> = members.collect();
    let is_left = |former: &&Arc<Member>| !told.iter().any(|info| info.uuid == former.uuid);
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

fn follow_partitions(cluster: &Cluster, told: &[(Uuid, Vec<i32>)]) {
    let mut view = View::clone(&cluster.view());
    let mut owners = vec![None; view.owners.len()];
    for (uuid, partitions) in told {
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
