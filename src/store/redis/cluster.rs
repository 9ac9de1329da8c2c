//! A cluster: the connections to its nodes, and which node owns which slots and answers.
//!
//! One node may be lost without the others: then only its slots are out of reach, and requests for them fail at once.
//! redis-rs finds the successor of a node that closed its connection, but not of one that is frozen or cut off, and blocks
//! every request while it looks for one. So every node is queried for its view of the cluster once a second over a separate
//! connection. When slots have a new owner, or a node is back, new connections replace the old ones. `PUBLISH` reaches
//! every node, so announcements come from any.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo, Slot};
use redis::{Cmd, ConnectionInfo, ProtocolVersion, Value as Response, cmd};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::connect::{Connector, Node, ServerInfo, Subscription, info_text, tcp};
use super::connection::{Connection, Handle};
use super::errors::{Failure, Remedy};
use super::heartbeat::{self, INTERVAL, LIMIT, Proven};
use super::state::EngineState;
use crate::store::engine::Event;

/// How often redis-rs sends a command to another node, or waits for one, before it returns an error.
const RETRIES: u32 = 4;
/// Milliseconds between two retries: the least and the most.
const RETRY_WAIT: (u64, u64) = (10, 200);

/// Connects to every node that the seeds know. RESP3, because redis-rs notices a node that closed an idle connection only
/// by its push messages.
pub(super) async fn connect(state: &EngineState, announces: bool) -> Result<Connection, Failure> {
    let connector = &state.connector;
    let client = ClusterClientBuilder::new(known_nodes(state))
        .use_protocol(ProtocolVersion::RESP3)
        .tcp_settings(tcp())
        .connection_timeout(connector.timeout)
        .response_timeout(Connector::RESPONSE_TIMEOUT)
        .retries(RETRIES)
        .min_retry_wait(RETRY_WAIT.0)
        .max_retry_wait(RETRY_WAIT.1)
        .build()?;
    let connecting = client.get_async_connection();
    let mut handle = connector.within("connecting to the cluster", Connector::CLUSTER_TIMEOUT, connecting).await?;
    let mut command = cmd("INFO");
    command.arg("server");
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
    let info = connector.within("INFO", connector.timeout, handle.route_command(command, any)).await;
    Ok(Connection::new(Handle::Cluster(handle), ServerInfo::parse(&info_text(info.ok())), announces))
}

/// Subscribes to announcements at the first node that answers.
pub(super) async fn subscribe(state: &EngineState) -> Result<Option<Subscription>, Failure> {
    let mut first_failure = None;
    for info in known_nodes(state) {
        match state.connector.subscribe_if_permitted(&info, state.keys.channel()).await {
            Ok(subscription) => return Ok(subscription),
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
    }
    Err(first_failure.unwrap_or_else(no_answer))
}

fn no_answer() -> Failure {
    Failure::unreachable("no node of the cluster answers", Remedy::None)
}

/// Whether any primary answers.
pub(super) async fn ping(handle: &ClusterConnection) -> Result<(), Failure> {
    let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::OneSucceeded)));
    handle.clone().route_command(cmd("PING"), route).await?;
    Ok(())
}

/// The nodes that own slots, in the order of their addresses.
pub(super) async fn primaries(handle: &ClusterConnection) -> Result<Vec<Node>, Failure> {
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let response = handle.clone().route_command(cluster_slots(), any).await?;
    Ok(owners(&parse_slots(&response, "")?))
}

/// Waits until no node answers. Returns the reason.
pub(super) async fn watch(
    state: &EngineState,
    connection: Arc<Connection>,
    subscription: Option<Subscription>,
    proven: &Proven,
) -> String {
    tokio::select! {
        reason = watch_nodes(state, connection, proven) => reason,
        reason = forward_announcements(state, subscription) => reason,
    }
}

async fn watch_nodes(state: &EngineState, mut connection: Arc<Connection>, proven: &Proven) -> String {
    let mut observer = Observer::default();
    let mut before: Option<Topology> = None;
    loop {
        sleep(INTERVAL).await;
        let topology = match observer.observe(&state.connector, known_nodes(state)).await {
            Ok(topology) => topology,
            Err(failure) => return failure.reason(),
        };
        proven.set();
        state.nodes.store(Arc::new(owners(&topology.ranges)));
        if before.as_ref() != Some(&topology) {
            connection.set_silent_slots(topology.silent_slots());
            log_silent_nodes(&topology, before.as_ref());
        }
        if before.as_ref().is_some_and(|before| topology.needs_new_connections(before)) {
            // After a failure, the next round finds the same difference.
            let Ok(new) = connect(state, connection.announces).await else { continue };
            new.set_silent_slots(topology.silent_slots());
            connection = Arc::new(new);
            state.connect(Arc::clone(&connection));
            state.emit(Event::Reconnected);
        }
        before = Some(topology);
    }
}

/// Once for each node that stops answering, and once when all answer again.
fn log_silent_nodes(now: &Topology, before: Option<&Topology>) {
    for node in &now.silent {
        if !before.is_some_and(|before| before.silent.contains(node)) {
            warn!("cluster node {node} does not answer: its sessions cannot be read or written");
        }
    }
    if now.silent.is_empty() && before.is_some_and(|before| !before.silent.is_empty()) {
        info!("all cluster nodes answer");
    }
}

/// Forwards announcements, from another node when one is lost. Never returns.
async fn forward_announcements(state: &EngineState, mut subscription: Option<Subscription>) -> String {
    while let Some(Subscription { sink, stream }) = subscription {
        let reason = tokio::select! {
            reason = heartbeat::forward_announcements(state, Some(stream)) => reason,
            reason = heartbeat::watch_subscription(sink) => reason,
        };
        debug!("subscribing at another node of the cluster: {reason}");
        subscription = loop {
            match subscribe(state).await {
                Ok(subscription) => break subscription,
                Err(_) => sleep(INTERVAL).await,
            }
        };
        // Announcements may have been missed.
        state.emit(Event::Reconnected);
    }
    std::future::pending().await
}

/// The nodes of the configuration, and then those that were discovered.
fn known_nodes(state: &EngineState) -> Vec<ConnectionInfo> {
    let mut infos = state.endpoints.seeds.clone();
    if let Some(first) = state.endpoints.seeds.first() {
        for node in state.nodes.load().iter() {
            let info = node.info(first);
            if infos.iter().all(|other| other.addr() != info.addr()) {
                infos.push(info);
            }
        }
    }
    infos
}

/// Slots, both ends included, and the primary that owns them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotRange {
    from: u16,
    to: u16,
    primary: Node,
}

fn cluster_slots() -> Cmd {
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

/// The response to [`cluster_slots`] in order. A node that does not know its own host has the one that was asked.
pub(super) fn parse_slots(response: &Response, asked: &str) -> Result<Vec<SlotRange>, Failure> {
    let Response::Array(ranges) = response else { return Err(Failure::unexpected_response("CLUSTER SLOTS")) };
    let mut ranges: Vec<_> = ranges.iter().filter_map(|range| parse_range(range, asked)).collect();
    ranges.sort();
    Ok(ranges)
}

/// From, to, primary, replicas.
fn parse_range(range: &Response, asked: &str) -> Option<SlotRange> {
    let Response::Array(parts) = range else { return None };
    let [Response::Int(from), Response::Int(to), Response::Array(node), ..] = parts.as_slice() else { return None };
    let [host, Response::Int(port), ..] = node.as_slice() else { return None };
    let host = match host {
        Response::BulkString(host) if !host.is_empty() => std::str::from_utf8(host).ok()?,
        Response::BulkString(_) | Response::Nil if !asked.is_empty() => asked,
        _ => return None,
    };
    let primary = Node { host: host.to_owned(), port: u16::try_from(*port).ok()? };
    Some(SlotRange { from: u16::try_from(*from).ok()?, to: u16::try_from(*to).ok()?, primary })
}

/// The owners of these slots, each once, in the order of their addresses.
fn owners(ranges: &[SlotRange]) -> Vec<Node> {
    ranges.iter().map(|range| range.primary.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Separate connections to the nodes that answered last.
#[derive(Default)]
struct Observer {
    connections: BTreeMap<Node, MultiplexedConnection>,
}

/// The cluster as most of the answering nodes see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Topology {
    ranges: Vec<SlotRange>,
    /// The owners that did not answer.
    silent: BTreeSet<Node>,
}

impl Observer {
    /// Asks all nodes concurrently, within [`LIMIT`].
    ///
    /// # Errors
    /// When none answers.
    async fn observe(&mut self, connector: &Connector, infos: Vec<ConnectionInfo>) -> Result<Topology, Failure> {
        let connections = &self.connections;
        let queries = infos.iter().filter_map(|info| Some((Node::of(info)?, info))).map(|(node, info)| async move {
            let open = connections.get(&node).cloned();
            let query = async { Ok(query_slots(connector, info, open, &node).await) };
            let result = connector.within("asking a node of the cluster", LIMIT, query).await;
            (node, result.and_then(|result| result))
        });
        let results = join_all(queries).await;
        self.connections.clear();
        let (mut views, mut silent) = (Vec::new(), BTreeSet::new());
        let mut first_failure = None;
        for (node, result) in results {
            match result {
                Ok((connection, ranges)) => {
                    self.connections.insert(node, connection);
                    views.push(ranges);
                }
                Err(failure) => {
                    first_failure = first_failure.or(Some(failure));
                    silent.insert(node);
                }
            }
        }
        match most_common(&views) {
            Some(ranges) => Ok(Topology::new(ranges, silent)),
            None => Err(first_failure.unwrap_or_else(no_answer)),
        }
    }
}

async fn query_slots(
    connector: &Connector,
    info: &ConnectionInfo,
    open: Option<MultiplexedConnection>,
    node: &Node,
) -> Result<(MultiplexedConnection, Vec<SlotRange>), Failure> {
    let mut connection = match open {
        Some(connection) => connection,
        None => connector.open(info).await?,
    };
    let response = cluster_slots().query_async(&mut connection).await?;
    Ok((connection, parse_slots(&response, &node.host)?))
}

impl Topology {
    /// Only the silence of a node that owns slots matters.
    fn new(ranges: Vec<SlotRange>, mut silent: BTreeSet<Node>) -> Self {
        silent.retain(|node| ranges.iter().any(|range| range.primary == *node));
        Self { ranges, silent }
    }

    /// The slots whose owner does not answer.
    fn silent_slots(&self) -> HashSet<Slot> {
        let ranges = self.ranges.iter().filter(|range| self.silent.contains(&range.primary));
        ranges.flat_map(|range| range.from..=range.to).filter_map(Slot::new).collect()
    }

    /// Slots have another owner than before, or a silent node answers again.
    fn needs_new_connections(&self, before: &Self) -> bool {
        self.ranges != before.ranges || before.silent.iter().any(|node| !self.silent.contains(node))
    }
}

/// The first of the most frequent views.
fn most_common(views: &[Vec<SlotRange>]) -> Option<Vec<SlotRange>> {
    let count = |view: &Vec<SlotRange>| views.iter().filter(|other| *other == view).count();
    let most = views.iter().map(count).max()?;
    views.iter().find(|view| count(view) == most).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u16, to: u16, primary: &str) -> SlotRange {
        SlotRange { from, to, primary: Node::parse(primary).unwrap() }
    }

    fn topology(owners: [&str; 2], silent: &[&str]) -> Topology {
        let ranges = vec![range(0, 8191, owners[0]), range(8192, 16383, owners[1])];
        Topology::new(ranges, silent.iter().map(|node| Node::parse(node).unwrap()).collect())
    }

    #[test]
    fn a_range_of_slots_names_its_primary() {
        let bulk = |text: &str| Response::BulkString(text.as_bytes().to_vec());
        let node = |host, port| Response::Array(vec![host, Response::Int(port), bulk("id")]);
        let range = |node| Response::Array(vec![Response::Int(0), Response::Int(5460), node]);
        let primary_of = |range| {
            let ranges = parse_slots(&Response::Array(vec![range]), "10.0.0.9").unwrap();
            owners(&ranges).first().map(ToString::to_string)
        };
        assert_eq!(primary_of(range(node(bulk("10.0.0.1"), 6379))).as_deref(), Some("10.0.0.1:6379"));
        for unknown in [bulk(""), Response::Nil] {
            let primary = primary_of(range(node(unknown, 6379)));
            assert_eq!(primary.as_deref(), Some("10.0.0.9:6379"), "the node that was asked");
        }
        let odd = [Response::Nil, range(Response::Nil), range(node(Response::Okay, 1)), range(node(bulk("a"), 70_000))];
        for odd in odd {
            assert_eq!(primary_of(odd.clone()), None, "{odd:?}");
        }
        assert!(parse_slots(&Response::Nil, "").is_err());
    }

    #[test]
    fn the_slots_of_a_silent_node_are_out_of_reach() {
        let silent = topology(["a:1", "b:1"], &["b:1", "replica:1"]).silent_slots();
        assert_eq!(silent.len(), 8192);
        assert!(silent.contains(&Slot::new(8192).unwrap()) && !silent.contains(&Slot::new(8191).unwrap()));
        assert!(topology(["a:1", "b:1"], &["replica:1"]).silent_slots().is_empty(), "it owns no slots");
    }

    #[test]
    fn a_successor_or_a_returned_node_gets_new_connections() {
        let whole = topology(["a:1", "b:1"], &[]);
        let wounded = topology(["a:1", "b:1"], &["b:1"]);
        let healed = topology(["a:1", "c:1"], &["b:1"]);
        for (before, now, needed) in [
            (&whole, &whole, false),
            (&whole, &wounded, false),
            (&wounded, &wounded, false),
            (&wounded, &whole, true),
            (&wounded, &healed, true),
            (&healed, &healed, false),
        ] {
            assert_eq!(now.needs_new_connections(before), needed, "{before:?} then {now:?}");
        }
    }

    #[test]
    fn the_view_of_most_nodes_counts() {
        let (one, other) = (vec![range(0, 1, "a:1")], vec![range(0, 1, "b:1")]);
        assert_eq!(most_common(&[one.clone(), other.clone(), other.clone()]), Some(other));
        assert_eq!(most_common(std::slice::from_ref(&one)), Some(one));
        assert_eq!(most_common(&[]), None);
    }
}
