//! Name by name through everything with `SCAN`, in a cluster node by node.
//!
//! A cursor is the server's own number; in a cluster it has the node before it: `10.0.0.1:6379 42`. Nodes are walked in
//! the order of their addresses, so that a page finds the next one even when nodes came or went.

use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, Value as Answer};

use super::cluster::{self, Node};
use super::failure::{Failure, Remedy};
use super::keys::Keys;
use super::link::{Connection, Link};
use super::reads;
use crate::store::engine::{Name, Page, StoreError};

/// Most rounds of `SCAN` for one page: where few names are ours, a page may have fewer values than were asked for.
const ROUNDS: usize = 16;
/// How many names a server looks at in one round.
const LOOKED_AT: std::ops::RangeInclusive<usize> = 100..=1000;

/// About `limit` values whose names begin with `prefix`.
pub(super) async fn list(
    link: &Link,
    keys: &Keys,
    prefix: &Name,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page, Failure> {
    let pattern = keys.pattern(prefix);
    let count = limit.clamp(*LOOKED_AT.start(), *LOOKED_AT.end());
    let mut place = Some(start(link, cursor).await?);
    let mut names = Vec::new();
    for _ in 0..ROUNDS {
        let Some(at) = place.take() else { break };
        let mut command = Cmd::new();
        command.arg("SCAN").arg(at.cursor.as_str()).arg("MATCH").arg(&pattern).arg("COUNT").arg(count);
        let (next, found) = page(scan(link, &at, command).await?)?;
        names.extend(found.iter().filter_map(|key| keys.name(key)));
        place = after(link, at, next).await?;
        if names.len() >= limit {
            break;
        }
    }
    let values = reads::lookup_found(link, keys, &names).await?;
    let values = names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
    Ok(Page { values, next: place.map(|place| place.text()) })
}

/// How far a walk has come.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// `None` = there is one server only.
    node: Option<Node>,
    /// The server's own.
    cursor: String,
}

impl Target {
    fn text(&self) -> String {
        self.node.as_ref().map_or_else(|| self.cursor.clone(), |node| format!("{node} {}", self.cursor))
    }

    /// What [`Target::text`] wrote.
    fn read(text: &str) -> Option<Self> {
        let (node, cursor) = match text.split_once(' ') {
            Some((node, cursor)) => (Some(Node::read(node)?), cursor),
            None => (None, text),
        };
        cursor.parse::<u64>().ok()?;
        Some(Self { node, cursor: cursor.to_owned() })
    }
}

async fn start(link: &Link, cursor: Option<&str>) -> Result<Target, Failure> {
    let connection = link.connection();
    let given = match cursor {
        Some(text) => Some(Target::read(text).ok_or_else(unknown_cursor)?),
        None => None,
    };
    match (connection, given) {
        (Connection::Single(_), None) => Ok(Target { node: None, cursor: "0".to_owned() }),
        (Connection::Single(_), Some(place)) if place.node.is_none() => Ok(place),
        (Connection::Cluster(connection), None) => {
            let first = cluster::primaries(&connection).await?.into_iter().next().ok_or_else(no_nodes)?;
            Ok(Target { node: Some(first), cursor: "0".to_owned() })
        }
        (Connection::Cluster(_), Some(place)) if place.node.is_some() => Ok(place),
        _ => Err(unknown_cursor()),
    }
}

async fn scan(link: &Link, place: &Target, command: Cmd) -> Result<Answer, Failure> {
    match (link.connection(), &place.node) {
        (Connection::Cluster(connection), Some(node)) => on_node(connection, node, command).await,
        _ => link.ask(&command).await,
    }
}

async fn on_node(mut connection: ClusterConnection, node: &Node, command: Cmd) -> Result<Answer, Failure> {
    let route = SingleNodeRoutingInfo::ByAddress { host: node.host.clone(), port: node.port };
    Ok(connection.route_command(command, RoutingInfo::SingleNode(route)).await?)
}

/// Where to go on: the same server, or the next node; `None` = everything has been seen.
async fn after(link: &Link, place: Target, cursor: String) -> Result<Option<Target>, Failure> {
    if cursor != "0" {
        return Ok(Some(Target { cursor, ..place }));
    }
    let (Connection::Cluster(connection), Some(node)) = (link.connection(), place.node) else { return Ok(None) };
    let next = cluster::primaries(&connection).await?.into_iter().find(|other| *other > node);
    Ok(next.map(|node| Target { node: Some(node), cursor }))
}

/// The next cursor and the names of one answer.
fn page(answer: Answer) -> Result<(String, Vec<Vec<u8>>), Failure> {
    let odd = || Failure::odd_answer("SCAN");
    let Answer::Array(parts) = answer else { return Err(odd()) };
    let mut parts = parts.into_iter();
    let (Some(Answer::BulkString(cursor)), Some(Answer::Array(found))) = (parts.next(), parts.next()) else {
        return Err(odd());
    };
    let cursor = String::from_utf8(cursor).ok().filter(|cursor| cursor.parse::<u64>().is_ok()).ok_or_else(odd)?;
    let names = found.into_iter().filter_map(|name| match name {
        Answer::BulkString(name) => Some(name),
        _ => None,
    });
    Ok((cursor, names.collect()))
}

fn unknown_cursor() -> Failure {
    Failure::new(StoreError::Refused("no page begins at this cursor: begin again without one".to_owned()), Remedy::None)
}

fn no_nodes() -> Failure {
    Failure::new(StoreError::Unreachable("no node of the cluster is known".to_owned()), Remedy::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        for text in ["0", "18446744073709551615", "10.0.0.1:6379 42", "::1:6379 0"] {
            assert_eq!(Target::read(text).map(|place| place.text()).as_deref(), Some(text));
        }
        for text in ["", "x", "-1", "10.0.0.1 42", "10.0.0.1:6379 ", "10.0.0.1:6379 x", "a:1 2 3"] {
            assert_eq!(Target::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_page_has_its_names_and_where_to_go_on() {
        let bulk = |text: &str| Answer::BulkString(text.as_bytes().to_vec());
        let answer = Answer::Array(vec![bulk("17"), Answer::Array(vec![bulk("a"), bulk("b")])]);
        assert_eq!(page(answer), Ok(("17".to_owned(), vec![b"a".to_vec(), b"b".to_vec()])));
        for odd in [Answer::Nil, Answer::Array(vec![]), Answer::Array(vec![bulk("x"), Answer::Array(vec![])])] {
            assert!(page(odd.clone()).is_err(), "{odd:?}");
        }
    }
}
