//! The sentinels: the address of the primary, and its changes. redis-rs asks them only when it connects.
//!
//! A sentinel is queried without user and password first, since most have none, and with those of its URL when it requires
//! them.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, RedisConnectionInfo, RedisError, Value as Response, cmd};
use tokio::time::sleep;

use super::connect::{Connector, Node, Subscription};
use super::errors::{Failure, Remedy};
use crate::store::engine::StoreError;

/// How often a sentinel is queried again: its announcement of a switch may have been missed.
const INTERVAL: Duration = Duration::from_secs(1);
/// The channel on which sentinels announce a new primary.
const SWITCH: &str = "+switch-master";

/// The sentinels of one primary.
#[derive(Debug)]
pub(super) struct Sentinels<'a> {
    pub(super) urls: &'a [ConnectionInfo],
    /// The primary's name in their configuration.
    pub(super) master: &'a str,
    pub(super) connector: &'a Connector,
}

/// A sentinel that answers.
struct Sentinel {
    /// The address and credentials that it accepted.
    info: ConnectionInfo,
    connection: MultiplexedConnection,
    primary: Node,
}

impl Sentinels<'_> {
    /// The primary according to each sentinel, the one with the most votes first. Does not wait for further votes once
    /// more than half agree.
    pub(super) async fn primaries(&self) -> Result<Vec<Node>, Failure> {
        let mut votes: Vec<(Node, usize)> = Vec::new();
        let mut first_failure = None;
        let mut sentinels: FuturesUnordered<_> = self.urls.iter().map(|url| self.connect(url)).collect();
        while let Some(sentinel) = sentinels.next().await {
            match sentinel {
                Ok(sentinel) => count(&mut votes, sentinel.primary),
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
            if votes.iter().any(|(_, count)| count * 2 > self.urls.len()) {
                break;
            }
        }
        match (votes.is_empty(), first_failure) {
            (true, Some(failure)) => Err(failure),
            _ => Ok(ranked(votes)),
        }
    }

    /// Waits until another server is the primary. Returns the reason.
    pub(super) async fn watch(&self, current: &Node) -> String {
        loop {
            for url in self.urls {
                if let Ok(primary) = self.watch_one(url, current).await {
                    return format!("the sentinels report {primary} as the primary");
                }
            }
            sleep(INTERVAL).await;
        }
    }

    /// The same by one sentinel, for as long as it answers.
    async fn watch_one(&self, url: &ConnectionInfo, current: &Node) -> Result<Node, Failure> {
        let mut sentinel = self.connect(url).await?;
        let Subscription { sink: _sink, mut stream } = self.connector.subscribe(&sentinel.info, SWITCH).await?;
        loop {
            // One alone may be wrong or late, so all of them are asked.
            if sentinel.primary != *current
                && let Some(other) = self.primaries().await?.into_iter().next()
                && other != *current
            {
                return Ok(other);
            }
            tokio::select! {
                message = stream.next() => {
                    let message = message.ok_or_else(|| Failure::unexpected_response("SUBSCRIBE"))?;
                    match parse_switch(message.get_payload_bytes(), self.master) {
                        Some(other) if other != *current => return Ok(other),
                        _ => {}
                    }
                }
                () = sleep(INTERVAL) => {
                    let query = query_primary(&mut sentinel.connection, self.master);
                    let response = self.connector.within("asking a sentinel", INTERVAL, query).await?;
                    sentinel.primary = self.parse_primary(response)?;
                }
            }
        }
    }

    async fn connect(&self, url: &ConnectionInfo) -> Result<Sentinel, Failure> {
        let settings = url.redis_settings();
        let anonymous = url.clone().set_redis_settings(RedisConnectionInfo::default());
        match self.connect_as(anonymous).await {
            Err((code, _)) if code == "NOAUTH" && settings.password().is_some() => {
                let settings = settings.clone().set_db(0);
                self.connect_as(url.clone().set_redis_settings(settings)).await.map_err(|(_, failure)| failure)
            }
            result => result.map_err(|(_, failure)| failure),
        }
    }

    /// The error comes with the first word of the sentinel's response.
    async fn connect_as(&self, info: ConnectionInfo) -> Result<Sentinel, (String, Failure)> {
        let without_code = |failure| (String::new(), failure);
        let mut connection = self.connector.open(&info).await.map_err(without_code)?;
        let query = async { Ok(query_primary(&mut connection, self.master).await) };
        let response = self.connector.within("asking a sentinel", self.connector.timeout, query).await;
        match response.map_err(without_code)? {
            Ok(response) => {
                let primary = self.parse_primary(response).map_err(without_code)?;
                Ok(Sentinel { info, connection, primary })
            }
            Err(error) => Err((error.code().unwrap_or_default().to_owned(), error.into())),
        }
    }

    fn parse_primary(&self, response: Response) -> Result<Node, Failure> {
        if matches!(response, Response::Nil) {
            let message = format!("a sentinel knows no `master_name: {}`", self.master);
            return Err(Failure::new(StoreError::Refused(message), Remedy::None));
        }
        parse_address(response).ok_or_else(|| Failure::unexpected_response("SENTINEL get-master-addr-by-name"))
    }
}

async fn query_primary(connection: &mut MultiplexedConnection, master: &str) -> Result<Response, RedisError> {
    let mut command = cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(master);
    command.query_async(connection).await
}

pub(super) fn parse_address(response: Response) -> Option<Node> {
    let (host, port) = redis::from_redis_value(response).ok()?;
    Some(Node { host, port })
}

/// Of "name old-host old-port new-host new-port", the new address if the name is `master`.
pub(super) fn parse_switch(payload: &[u8], master: &str) -> Option<Node> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    (words.next()? == master).then_some(())?;
    let host = words.nth(2)?.to_owned();
    Some(Node { host, port: words.next()?.parse().ok()? })
}

fn count(votes: &mut Vec<(Node, usize)>, node: Node) {
    match votes.iter_mut().find(|(other, _)| *other == node) {
        Some((_, count)) => *count += 1,
        None => votes.push((node, 1)),
    }
}

fn ranked(mut votes: Vec<(Node, usize)>) -> Vec<Node> {
    votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    votes.into_iter().map(|(node, _)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        Node::parse(text).unwrap()
    }

    #[test]
    fn the_address_with_the_most_votes_is_tried_first() {
        let mut votes = Vec::new();
        for vote in ["10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.2:6379"] {
            count(&mut votes, node(vote));
        }
        assert_eq!(ranked(votes), [node("10.0.0.2:6379"), node("10.0.0.1:6379")]);
    }

    #[test]
    fn a_switch_of_our_primary_gives_its_new_address() {
        let switch = |text: &str| parse_switch(text.as_bytes(), "main").map(|node| node.to_string());
        assert_eq!(switch("main 10.0.0.1 6379 10.0.0.2 6380").as_deref(), Some("10.0.0.2:6380"));
        for other in ["", "main", "main 10.0.0.1 6379 10.0.0.2", "main 1 2 3 x", "other 10.0.0.1 6379 10.0.0.2 6380"] {
            assert_eq!(switch(other), None, "{other:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let bulk = |text: &str| Response::BulkString(text.as_bytes().to_vec());
        let parse = |parts| parse_address(Response::Array(parts)).map(|node| node.to_string());
        assert_eq!(parse(vec![bulk("redis-1.internal"), bulk("6379")]).as_deref(), Some("redis-1.internal:6379"));
        for odd in [vec![], vec![bulk("a")], vec![bulk("a"), bulk("x")], vec![bulk("a"), Response::Nil]] {
            assert_eq!(parse(odd.clone()), None, "{odd:?}");
        }
    }
}
