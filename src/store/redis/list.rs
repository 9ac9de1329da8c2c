//! Listing by `SCAN`, in a cluster node by node.
//!
//! A cursor is the server's own number, in a cluster with the node before it: `10.0.0.1:6379 42`. Nodes are visited in the
//! order of their addresses, so that listing continues correctly when nodes join or leave.

use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, Value as Response, cmd};

use super::cluster;
use super::commands;
use super::connect::Node;
use super::connection::{Connection, Handle};
use super::errors::{Failure, Remedy};
use super::keys::Keys;
use crate::store::engine::{Name, Page, StoreError};

/// Rounds of `SCAN` for one page: where most keys are foreign, a page may have fewer values than asked for.
const MAX_ROUNDS: usize = 16;
/// How many keys a server looks at in one round.
const MIN_COUNT: usize = 100;
const MAX_COUNT: usize = 1000;

/// About `limit` values whose names begin with `prefix`.
pub(super) async fn list(
    connection: &Connection,
    keys: &Keys,
    prefix: &Name,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page, Failure> {
    let pattern = keys.pattern(prefix);
    let count = limit.clamp(MIN_COUNT, MAX_COUNT);
    let mut next = Some(start(connection, cursor).await?);
    let mut names = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let Some(cursor) = next.take() else { break };
        let mut command = cmd("SCAN");
        command.arg(cursor.number).arg("MATCH").arg(&pattern).arg("COUNT").arg(count);
        let (number, found) = parse_scan(scan(connection, &cursor, command).await?)?;
        names.extend(found.iter().filter_map(|key| keys.name(key)));
        next = advance(connection, cursor, number).await?;
        if names.len() >= limit {
            break;
        }
    }
    let values = commands::lookup_listed(connection, keys, &names).await?;
    let values = names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect();
    Ok(Page { values, next: next.map(|cursor| cursor.text()) })
}

#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    /// `None` = there is only one server.
    node: Option<Node>,
    /// The server's own; 0 begins and ends a walk.
    number: u64,
}

impl Cursor {
    fn text(&self) -> String {
        self.node.as_ref().map_or_else(|| self.number.to_string(), |node| format!("{node} {}", self.number))
    }

    /// The inverse of [`Cursor::text`].
    fn parse(text: &str) -> Option<Self> {
        let (node, number) = match text.split_once(' ') {
            Some((node, number)) => (Some(Node::parse(node)?), number),
            None => (None, text),
        };
        Some(Self { node, number: number.parse().ok()? })
    }
}

async fn start(connection: &Connection, cursor: Option<&str>) -> Result<Cursor, Failure> {
    let cursor = match cursor {
        Some(text) => Some(Cursor::parse(text).ok_or_else(invalid_cursor)?),
        None => None,
    };
    match (connection.handle(), cursor) {
        (Handle::Single(_), None) => Ok(Cursor { node: None, number: 0 }),
        (Handle::Single(_), Some(cursor)) if cursor.node.is_none() => Ok(cursor),
        (Handle::Cluster(cluster), None) => {
            let none = || Failure::unreachable("the cluster has no primary", Remedy::None);
            let first = cluster::primaries(cluster).await?.into_iter().next().ok_or_else(none)?;
            Ok(Cursor { node: Some(first), number: 0 })
        }
        (Handle::Cluster(_), Some(cursor)) if cursor.node.is_some() => Ok(cursor),
        _ => Err(invalid_cursor()),
    }
}

async fn scan(connection: &Connection, cursor: &Cursor, command: Cmd) -> Result<Response, Failure> {
    match (connection.handle(), &cursor.node) {
        (Handle::Cluster(cluster), Some(node)) => {
            let route = SingleNodeRoutingInfo::ByAddress { host: node.host.clone(), port: node.port };
            Ok(cluster.clone().route_command(command, RoutingInfo::SingleNode(route)).await?)
        }
        _ => connection.send(&command).await,
    }
}

/// The next cursor, on the same server or at the next node; `None` at the end.
async fn advance(connection: &Connection, cursor: Cursor, number: u64) -> Result<Option<Cursor>, Failure> {
    if number != 0 {
        return Ok(Some(Cursor { number, ..cursor }));
    }
    let (Handle::Cluster(cluster), Some(node)) = (connection.handle(), cursor.node) else { return Ok(None) };
    let next = cluster::primaries(cluster).await?.into_iter().find(|other| *other > node);
    Ok(next.map(|node| Cursor { node: Some(node), number: 0 }))
}

/// The next cursor and the keys of one response.
pub(super) fn parse_scan(response: Response) -> Result<(u64, Vec<Vec<u8>>), Failure> {
    redis::from_redis_value(response).map_err(|_parsing| Failure::unexpected_response("SCAN"))
}

fn invalid_cursor() -> Failure {
    Failure::new(StoreError::Refused("invalid cursor: list again without one".to_owned()), Remedy::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_parsed_as_it_was_written() {
        for text in ["0", "18446744073709551615", "10.0.0.1:6379 42", "::1:6379 0"] {
            assert_eq!(Cursor::parse(text).map(|cursor| cursor.text()).as_deref(), Some(text));
        }
        for text in ["", "x", "-1", "10.0.0.1 42", "10.0.0.1:6379 ", "10.0.0.1:6379 x", "a:1 2 3"] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_page_has_its_keys_and_the_next_cursor() {
        let bulk = |text: &str| Response::BulkString(text.as_bytes().to_vec());
        let response = Response::Array(vec![bulk("17"), Response::Array(vec![bulk("a"), bulk("b")])]);
        assert_eq!(parse_scan(response), Ok((17, vec![b"a".to_vec(), b"b".to_vec()])));
        for odd in [Response::Nil, Response::Array(vec![]), Response::Array(vec![bulk("x"), Response::Array(vec![])])] {
            assert!(parse_scan(odd.clone()).is_err(), "{odd:?}");
        }
    }
}
