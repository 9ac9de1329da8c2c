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

/// Asks every primary whether it is there; `policy` says how many have to be.
pub(super) async fn ping(connection: &ClusterConnection, policy: ResponsePolicy) -> Result<(), Failure> {
    let mut command = Cmd::new();
    command.arg("PING");
    let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, Some(policy)));
    connection.clone().route_command(command, route).await?;
    Ok(())
}

/// Whether any of them is there.
pub(super) async fn ping_any(connection: &ClusterConnection) -> Result<(), Failure> {
    ping(connection, ResponsePolicy::OneSucceeded).await
}

/// The nodes that have names, in the order of their addresses.
pub(super) async fn primaries(connection: &ClusterConnection) -> Result<Vec<Node>, Failure> {
    let mut command = Cmd::new();
    command.arg("CLUSTER").arg("SLOTS");
    let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
    let answer = connection.clone().route_command(command, any).await?;
    let Answer::Array(ranges) = answer else { return Err(Failure::odd_answer("CLUSTER SLOTS")) };
    let mut nodes: Vec<Node> = ranges.iter().filter_map(primary).collect();
    nodes.sort();
    nodes.dedup();
    Ok(nodes)
}

/// The first node of a range of slots: from, to, primary, replicas.
fn primary(range: &Answer) -> Option<Node> {
    let Answer::Array(parts) = range else { return None };
    let Some(Answer::Array(node)) = parts.get(2) else { return None };
    match (node.first(), node.get(1)) {
        (Some(Answer::BulkString(host)), Some(Answer::Int(port))) => {
            let host = String::from_utf8(host.clone()).ok().filter(|host| !host.is_empty())?;
            Some(Node { host, port: u16::try_from(*port).ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_slots_names_its_primary() {
        let bulk = |text: &str| Answer::BulkString(text.as_bytes().to_vec());
        let node = |host: &str, port| Answer::Array(vec![bulk(host), Answer::Int(port), bulk("id")]);
        let range = |node| Answer::Array(vec![Answer::Int(0), Answer::Int(5460), node]);
        let primary_of = |answer| primary(&answer).map(|node| node.to_string());
        assert_eq!(primary_of(range(node("10.0.0.1", 6379))).as_deref(), Some("10.0.0.1:6379"));
        for odd in [Answer::Nil, range(Answer::Nil), range(node("", 1)), range(node("a", 70_000))] {
            assert_eq!(primary_of(odd.clone()), None, "{odd:?}");
        }
    }
}
