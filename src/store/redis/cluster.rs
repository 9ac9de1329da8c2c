//! A cluster: its connection to every node, and which nodes there are.

use std::fmt;

use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, ConnectionInfo, ProtocolVersion, Value as Answer};

use super::dial::{Dial, tcp};
use super::failure::Failure;
use super::server::Server;

/// How often a command goes on to another node, or waits for one, before its caller is told.
const RETRIES: u32 = 4;
/// Milliseconds between such tries.
const RETRY_WAIT: (u64, u64) = (10, 200);

/// A node's address as the cluster gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Slots, both ends included, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) primary: Node,
}

impl Node {
    /// What `Display` wrote.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Connects to every node that the seeds know. RESP3, since only by its pushes does redis-rs notice a node that went away
/// while nobody waited for its answer.
pub(super) async fn connect(dial: &Dial, seeds: &[ConnectionInfo]) -> Result<(ClusterConnection, Server), Failure> {
    let client = ClusterClientBuilder::new(seeds.iter().cloned())
        .use_protocol(ProtocolVersion::RESP3)
        .tcp_settings(tcp())
        .connection_timeout(dial.timeout)
        .response_timeout(Dial::RESPONSE)
        .retries(RETRIES)
        .min_retry_wait(RETRY_WAIT.0)
        .max_retry_wait(RETRY_WAIT.1)
        .build()?;
    let mut connection = dial.within("connecting to the cluster", Dial::CLUSTER, client.get_async_connection()).await?;
    let mut command = Cmd::new();
    command.arg("INFO").arg("server");
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
    let info = dial.within("INFO", dial.timeout, connection.route_command(command, any)).await;
    let server = Server::read(&super::dial::info_text(info.ok()));
    Ok((connection, server))
}

/// Whether any of its primaries is there.
pub(super) async fn ping(connection: &ClusterConnection) -> Result<(), Failure> {
    let mut command = Cmd::new();
    command.arg("PING");
    let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::OneSucceeded)));
    connection.clone().route_command(command, route).await?;
    Ok(())
}

/// The nodes that have names, in the order of their addresses.
pub(super) async fn primaries(connection: &ClusterConnection) -> Result<Vec<Node>, Failure> {
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let answer = connection.clone().route_command(slots(), any).await?;
    Ok(nodes(&ranges(&answer, "")?))
}

/// Asks a node how it sees the cluster.
pub(super) fn slots() -> Cmd {
    let mut command = Cmd::new();
    command.arg("CLUSTER").arg("SLOTS");
    command
}

/// The answer to [`slots`] in order. A node that does not know its own host has that at which it was asked.
pub(super) fn ranges(answer: &Answer, asked: &str) -> Result<Vec<Range>, Failure> {
    let Answer::Array(ranges) = answer else { return Err(Failure::odd_answer("CLUSTER SLOTS")) };
    let mut ranges: Vec<_> = ranges.iter().filter_map(|range| read_range(range, asked)).collect();
    ranges.sort();
    Ok(ranges)
}

/// Whose they are, each once, in the order of their addresses.
pub(super) fn nodes(ranges: &[Range]) -> Vec<Node> {
    let mut nodes: Vec<_> = ranges.iter().map(|range| range.primary.clone()).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// From, to, primary, replicas.
fn read_range(range: &Answer, asked: &str) -> Option<Range> {
    let Answer::Array(parts) = range else { return None };
    let [Answer::Int(from), Answer::Int(to), Answer::Array(node), ..] = parts.as_slice() else { return None };
    let [host, Answer::Int(port), ..] = node.as_slice() else { return None };
    let host = match host {
        Answer::BulkString(host) if !host.is_empty() => std::str::from_utf8(host).ok()?,
        Answer::BulkString(_) | Answer::Nil if !asked.is_empty() => asked,
        _ => return None,
    };
    let primary = Node { host: host.to_owned(), port: u16::try_from(*port).ok()? };
    Some(Range { from: u16::try_from(*from).ok()?, to: u16::try_from(*to).ok()?, primary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_slots_names_its_primary() {
        let bulk = |text: &str| Answer::BulkString(text.as_bytes().to_vec());
        let node = |host, port| Answer::Array(vec![host, Answer::Int(port), bulk("id")]);
        let range = |node| Answer::Array(vec![Answer::Int(0), Answer::Int(5460), node]);
        let primary_of = |answer| {
            let ranges = ranges(&Answer::Array(vec![answer]), "10.0.0.9").unwrap();
            nodes(&ranges).first().map(ToString::to_string)
        };
        assert_eq!(primary_of(range(node(bulk("10.0.0.1"), 6379))).as_deref(), Some("10.0.0.1:6379"));
        for unknown in [bulk(""), Answer::Nil] {
            assert_eq!(
                primary_of(range(node(unknown, 6379))).as_deref(),
                Some("10.0.0.9:6379"),
                "the one that was asked"
            );
        }
        for odd in [Answer::Nil, range(Answer::Nil), range(node(Answer::Okay, 1)), range(node(bulk("a"), 70_000))] {
            assert_eq!(primary_of(odd.clone()), None, "{odd:?}");
        }
        assert!(ranges(&Answer::Nil, "").is_err());
    }
}
