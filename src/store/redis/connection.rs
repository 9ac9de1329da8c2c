//! One connection for commands, or one to every node of a cluster, and the commands that its server supports.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::Slot;
use redis::{Arg, Cmd, Pipeline, RedisError, ToRedisArgs, Value, cmd};
use tokio::sync::Notify;

use super::connect::ServerInfo;
use super::errors::{Failure, Remedy};

/// Commands of one batch under way in a cluster at once: a pipeline cannot span nodes.
const MAX_IN_FLIGHT: usize = 128;

/// An established connection.
pub(super) struct Connection {
    handle: Handle,
    pub(super) server: ServerInfo,
    pub(super) set_nx_get: Feature,
    pub(super) expire_gt: Feature,
    pub(super) set_ifeq: Feature,
    pub(super) scripts: Feature,
    /// Whether announcements are received.
    pub(super) announces: bool,
    /// Slots whose node does not answer. redis-rs would look for that node again with every request and block all others
    /// meanwhile, so such a request fails at once. Written by the watcher of the cluster.
    silent: ArcSwap<HashSet<Slot>>,
    failure: OnceLock<String>,
    failed: Notify,
}

/// A cheap handle of redis-rs. It outlives a caller that gives up.
#[derive(Clone)]
pub(super) enum Handle {
    /// To one server.
    Single(MultiplexedConnection),
    /// To every node.
    Cluster(ClusterConnection),
}

/// Whether a form of a command is used; off once the server has rejected it.
pub(super) struct Feature(AtomicBool);

impl Feature {
    const fn new(usable: bool) -> Self {
        Self(AtomicBool::new(usable))
    }

    pub(super) fn is_usable(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn disable(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A Lua script, called by its hash once the server has it.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

/// How a command names a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptRef {
    /// `EVALSHA`: 40 bytes, when the server has the script.
    Hash,
    /// `EVAL`: the whole script, which the server then keeps.
    Code,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// The command up to its one key; arguments follow.
    pub(super) fn command(&self, by: ScriptRef, key: impl ToRedisArgs) -> Cmd {
        let (verb, script) = match by {
            ScriptRef::Hash => ("EVALSHA", self.hash.as_str()),
            ScriptRef::Code => ("EVAL", self.code),
        };
        let mut command = cmd(verb);
        command.arg(script).arg(1).arg(key);
        command
    }
}

impl Connection {
    pub(super) fn new(handle: Handle, server: ServerInfo, announces: bool) -> Self {
        Self {
            handle,
            set_nx_get: Feature::new(server.has_nx_get_and_gt()),
            expire_gt: Feature::new(server.has_nx_get_and_gt()),
            // Where the version is unknown, it is only tried when scripts are forbidden.
            set_ifeq: Feature::new(true),
            scripts: Feature::new(true),
            server,
            announces,
            silent: ArcSwap::default(),
            failure: OnceLock::new(),
            failed: Notify::new(),
        }
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Requests for these slots fail at once from now on.
    pub(super) fn set_silent_slots(&self, slots: HashSet<Slot>) {
        self.silent.store(Arc::new(slots));
    }

    /// One command, one round trip.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        self.check_slot(command)?;
        let mut handle = self.handle.clone();
        self.check(command.query_async::<Value>(&mut handle).await)
    }

    /// A script by its hash, and by its code when the server does not have it yet.
    pub(super) async fn send_script(&self, command: impl Fn(ScriptRef) -> Cmd) -> Result<Value, Failure> {
        match self.send(&command(ScriptRef::Hash)).await {
            Err(failure) if failure.remedy == Remedy::SendScript => self.send(&command(ScriptRef::Code)).await,
            response => response,
        }
    }

    /// All commands in one round trip (in a cluster, one for each, concurrently). The responses are in order.
    ///
    /// # Errors
    /// When there was no response. The error of one command stands among the responses.
    pub(super) async fn send_all(&self, commands: Vec<Cmd>) -> Result<Vec<Result<Value, Failure>>, Failure> {
        match &self.handle {
            // redis-rs rejects an empty pipeline.
            _ if commands.is_empty() => Ok(Vec::new()),
            Handle::Single(connection) => {
                let count = commands.len();
                let mut pipeline = Pipeline::with_capacity(count);
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.ignore_errors();
                let responses = self.check(connection.clone().req_packed_commands(&pipeline, 0, count).await)?;
                Ok(responses.into_iter().map(|response| self.check(response.extract_error())).collect())
            }
            Handle::Cluster(_) => {
                let responses = commands.into_iter().map(|command| async move { self.send(&command).await });
                Ok(stream::iter(responses).buffered(MAX_IN_FLIGHT).collect().await)
            }
        }
    }

    /// Waits until an error has made the connection useless. Returns the reason.
    pub(super) async fn failed(&self) -> String {
        loop {
            let failed = self.failed.notified();
            if let Some(reason) = self.failure.get() {
                return reason.clone();
            }
            failed.await;
        }
    }

    /// Whether the node that owns the command's slot answers.
    fn check_slot(&self, command: &Cmd) -> Result<(), Failure> {
        let silent = self.silent.load();
        if silent.is_empty() || !key(command).is_some_and(|key| silent.contains(&Slot::for_key(key))) {
            return Ok(());
        }
        Err(Failure::unreachable("the node of the cluster that owns this slot does not answer", Remedy::None))
    }

    fn check<T>(&self, response: Result<T, RedisError>) -> Result<T, Failure> {
        response.map_err(|error| match &self.handle {
            Handle::Single(_) => {
                let failure = Failure::from(error);
                if failure.remedy == Remedy::Reconnect && self.failure.set(failure.clone().reason()).is_ok() {
                    self.failed.notify_one();
                }
                failure
            }
            // redis-rs finds another node by itself.
            Handle::Cluster(_) => Failure::in_cluster(error),
        })
    }
}

/// The key of a command: the argument after a script and its number of keys, otherwise the first.
fn key(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter();
    let at = match words.next()? {
        Arg::Simple(b"EVALSHA" | b"EVAL") => 2,
        _ => 0,
    };
    match words.nth(at)? {
        Arg::Simple(key) => Some(key),
        _ => None,
    }
}

impl ConnectionLike for Handle {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> redis::RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> redis::RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_command_is_found() {
        for words in
            [&["GET", "k"][..], &["SET", "k", "v"], &["EVALSHA", "hash", "1", "k", "v"], &["EVAL", "code", "1", "k"]]
        {
            let mut command = Cmd::new();
            command.arg(words);
            assert_eq!(key(&command), Some(&b"k"[..]), "{words:?}");
        }
        assert_eq!(key(&cmd("PING")), None);
    }
}
