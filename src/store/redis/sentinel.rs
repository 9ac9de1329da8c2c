//! The sentinels: whom they take for the primary, and hearing it when they change their mind. redis-rs asks them only when
//! it connects, so this is ours.
//!
//! A sentinel is asked without user and password first, as most have none, and with those of its URL when it wants them.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, RedisConnectionInfo, Value as Answer};
use tokio::time::sleep;

use super::cluster::Node;
use super::dial::{Dial, Subscription};
use super::failure::{Failure, Remedy};
use crate::store::engine::StoreError;

/// How often one of them is asked whether it still holds the same server for the primary: it may have told so while
/// nobody listened.
const EVERY: Duration = Duration::from_secs(1);
/// Where they tell that another server is the primary.
const SWITCHED: &str = "+switch-master";

/// The sentinels of one primary.
#[derive(Debug)]
pub(super) struct Sentinels<'a> {
    pub(super) urls: &'a [ConnectionInfo],
    /// What they call it.
    pub(super) master: &'a str,
    pub(super) dial: &'a Dial,
}

impl Sentinels<'_> {
    /// Whom they take for the primary, the one with the most votes first. Does not wait for the last vote once more than
    /// half agree.
    pub(super) async fn primaries(&self) -> Result<Vec<Node>, Failure> {
        let mut votes: Vec<(Node, usize)> = Vec::new();
        let mut first_failure = None;
        let mut asked: FuturesUnordered<_> = self.urls.iter().map(|url| self.knock(url)).collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(door) => count(&mut votes, door.primary),
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

    /// Waits until they take another server for the primary; then says so.
    pub(super) async fn change(&self, current: &Node) -> String {
        loop {
            for url in self.urls {
                if let Ok(changed) = self.listen(url, current).await {
                    return format!("the sentinels now take {changed} for the primary");
                }
            }
            sleep(EVERY).await;
        }
    }

    /// The same of one sentinel, for as long as it answers.
    async fn listen(&self, url: &ConnectionInfo, current: &Node) -> Result<Node, Failure> {
        let mut door = self.knock(url).await?;
        let Subscription { sink: _sink, mut stream } = self.dial.subscription(&door.info, SWITCHED).await?;
        loop {
            // One alone may be wrong, or late, so all of them are asked.
            if door.primary != *current
                && let Some(other) = self.primaries().await?.into_iter().next()
                && other != *current
            {
                return Ok(other);
            }
            tokio::select! {
                message = stream.next() => {
                    let message = message.ok_or_else(|| Failure::odd_answer("SUBSCRIBE"))?;
                    match switched(message.get_payload_bytes(), self.master) {
                        Some(other) if other != *current => return Ok(other),
                        _ => {}
                    }
                }
                () = sleep(EVERY) => {
                    let asking = address(&mut door.connection, self.master);
                    door.primary = self.dial.within("asking a sentinel", EVERY, asking).await.and_then(|answer| self.named(&answer))?;
                }
            }
        }
    }

    /// Connects to a sentinel and asks it.
    async fn knock(&self, url: &ConnectionInfo) -> Result<Door, Failure> {
        let settings = url.redis_settings();
        let open = url.clone().set_redis_settings(RedisConnectionInfo::default());
        match self.enter(open).await {
            Err((code, _)) if code == "NOAUTH" && settings.password().is_some() => {
                let settings = settings.clone().set_db(0);
                self.enter(url.clone().set_redis_settings(settings)).await.map_err(|(_, failure)| failure)
            }
            done => done.map_err(|(_, failure)| failure),
        }
    }

    /// The same; an error with the first word of the sentinel's answer.
    async fn enter(&self, info: ConnectionInfo) -> Result<Door, (String, Failure)> {
        let unnamed = |failure| (String::new(), failure);
        let mut connection = self.dial.bare(&info).await.map_err(unnamed)?;
        let asking = async { Ok(address(&mut connection, self.master).await) };
        let answer = self.dial.within("asking a sentinel", self.dial.timeout, asking).await.map_err(unnamed)?;
        match answer {
            Ok(answer) => {
                let primary = self.named(&answer).map_err(unnamed)?;
                Ok(Door { info, connection, primary })
            }
            Err(error) => Err((error.code().unwrap_or_default().to_owned(), error.into())),
        }
    }

    fn named(&self, answer: &Answer) -> Result<Node, Failure> {
        if matches!(answer, Answer::Nil) {
            let words = format!("a sentinel knows no `master_name: {}`", self.master);
            return Err(Failure::new(StoreError::Refused(words), Remedy::None));
        }
        read_address(answer).ok_or_else(|| Failure::odd_answer("SENTINEL get-master-addr-by-name"))
    }
}

/// A sentinel that answers.
struct Door {
    /// How it was entered.
    info: ConnectionInfo,
    connection: MultiplexedConnection,
    /// Whom it takes for the primary.
    primary: Node,
}

async fn address(connection: &mut MultiplexedConnection, master: &str) -> Result<Answer, redis::RedisError> {
    let mut command = Cmd::new();
    command.arg("SENTINEL").arg("get-master-addr-by-name").arg(master);
    command.query_async(connection).await
}

/// Host and port.
fn read_address(answer: &Answer) -> Option<Node> {
    let Answer::Array(parts) = answer else { return None };
    match parts.as_slice() {
        [Answer::BulkString(host), Answer::BulkString(port)] => Some(Node {
            host: String::from_utf8(host.clone()).ok()?,
            port: std::str::from_utf8(port).ok()?.parse().ok()?,
        }),
        _ => None,
    }
}

/// Of "name old-host old-port new-host new-port", the new address if it is of this name.
fn switched(payload: &[u8], master: &str) -> Option<Node> {
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
        Node::read(text).unwrap()
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
    fn a_switch_of_our_name_says_where_to_go() {
        let told = |text: &str| switched(text.as_bytes(), "main").map(|node| node.to_string());
        assert_eq!(told("main 10.0.0.1 6379 10.0.0.2 6380").as_deref(), Some("10.0.0.2:6380"));
        for other in ["", "main", "main 10.0.0.1 6379 10.0.0.2", "main 1 2 3 x", "other 10.0.0.1 6379 10.0.0.2 6380"] {
            assert_eq!(told(other), None, "{other:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let bulk = |text: &str| Answer::BulkString(text.as_bytes().to_vec());
        let read = |parts| read_address(&Answer::Array(parts)).map(|node| node.to_string());
        assert_eq!(read(vec![bulk("redis-1.internal"), bulk("6379")]).as_deref(), Some("redis-1.internal:6379"));
        for odd in [vec![], vec![bulk("a")], vec![bulk("a"), bulk("x")], vec![bulk("a"), Answer::Nil]] {
            assert_eq!(read(odd.clone()), None, "{odd:?}");
        }
    }
}
