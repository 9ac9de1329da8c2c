//! One connection for commands, or one to every node of a cluster, with what its server can do. Every operation asks
//! through it; what breaks it, it tells to whoever watches.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::Slot;
use redis::{Arg, Cmd, Pipeline, RedisError, Value};
use tokio::sync::Notify;

use super::failure::{Failure, Remedy};
use super::scripts::By;
use super::server::Server;
use crate::store::engine::StoreError;

/// Most commands of one batch that are under way in a cluster at once: it has no pipeline across nodes.
const IN_FLIGHT: usize = 128;

/// A connection that stands.
pub(super) struct Link {
    connection: Connection,
    /// Whom it leads to.
    pub(super) server: Server,
    /// Which forms of commands to use; off once the server has said that it does not know them.
    pub(super) set_nx_get: AtomicBool,
    pub(super) expire_gt: AtomicBool,
    pub(super) set_ifeq: AtomicBool,
    /// Off once the server has said that scripts may not be used.
    pub(super) script: AtomicBool,
    /// Whether announcements come in.
    pub(super) announces: bool,
    /// Slots whose node does not answer. redis-rs would look for that node anew with every request, and let all others
    /// wait meanwhile, so such a request fails at once. The watcher of the cluster writes it.
    silent: ArcSwap<HashSet<Slot>>,
    broken: OnceLock<String>,
    told: Notify,
}

/// The two kinds of connection; both are handles that are cheap to clone, and both outlive a caller that gives up.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To every node.
    Cluster(ClusterConnection),
}

impl Link {
    pub(super) fn new(connection: Connection, server: Server, announces: bool) -> Self {
        Self {
            connection,
            set_nx_get: AtomicBool::new(server.has_set_nx_get()),
            expire_gt: AtomicBool::new(server.has_expire_gt()),
            // Where the version is not known, it is only tried when scripts are forbidden.
            set_ifeq: AtomicBool::new(true),
            script: AtomicBool::new(true),
            server,
            announces,
            silent: ArcSwap::default(),
            broken: OnceLock::new(),
            told: Notify::new(),
        }
    }

    /// A handle of its connection.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// From now on, requests for these slots fail at once.
    pub(super) fn silence(&self, slots: HashSet<Slot>) {
        self.silent.store(Arc::new(slots));
    }

    /// One command, one round trip.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        self.reach(command)?;
        let mut connection = self.connection.clone();
        self.judge(command.query_async::<Value>(&mut connection).await)
    }

    /// A script by its hash, and by its code when the server does not have it yet.
    pub(super) async fn ask_script(&self, command: impl Fn(By) -> Cmd) -> Result<Value, Failure> {
        match self.ask(&command(By::Hash)).await {
            Err(failure) if failure.remedy == Remedy::WholeScript => self.ask(&command(By::Code)).await,
            answer => answer,
        }
    }

    /// All of them, in one round trip (in a cluster, one for each, together). Their answers in order.
    ///
    /// # Errors
    /// When there was no answer. An error of one command stands among the answers.
    pub(super) async fn ask_each(&self, commands: Vec<Cmd>) -> Result<Vec<Result<Value, Failure>>, Failure> {
        match &self.connection {
            // redis-rs takes an empty pipeline for a mistake.
            _ if commands.is_empty() => Ok(Vec::new()),
            Connection::Single(connection) => {
                let mut connection = connection.clone();
                let count = commands.len();
                let mut pipeline = Pipeline::with_capacity(count);
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.ignore_errors();
                let answers = self.judge(connection.req_packed_commands(&pipeline, 0, count).await)?;
                Ok(answers.into_iter().map(|answer| self.judge(answer.extract_error())).collect())
            }
            Connection::Cluster(connection) => {
                let asked = commands.into_iter().map(|command| {
                    let mut connection = connection.clone();
                    async move {
                        self.reach(&command)?;
                        self.judge(command.query_async::<Value>(&mut connection).await)
                    }
                });
                Ok(stream::iter(asked).buffered(IN_FLIGHT).collect().await)
            }
        }
    }

    /// Waits until something has broken it; then why.
    pub(super) async fn broken(&self) -> String {
        loop {
            let told = self.told.notified();
            if let Some(why) = self.broken.get() {
                return why.clone();
            }
            told.await;
        }
    }

    /// Whether a node answers for the name of this command.
    fn reach(&self, command: &Cmd) -> Result<(), Failure> {
        let silent = self.silent.load();
        if silent.is_empty() || !key(command).is_some_and(|key| silent.contains(&Slot::for_key(key))) {
            return Ok(());
        }
        let words = "the node of the cluster that has this name does not answer".to_owned();
        Err(Failure::new(StoreError::Unreachable(words), Remedy::None))
    }

    fn judge<T>(&self, answer: Result<T, RedisError>) -> Result<T, Failure> {
        answer.map_err(|error| match &self.connection {
            Connection::Single(_) => {
                let failure = Failure::from(error);
                if failure.remedy == Remedy::Replace && self.broken.set(failure.clone().why()).is_ok() {
                    self.told.notify_one();
                }
                failure
            }
            // It finds another node by itself.
            Connection::Cluster(_) => Failure::in_cluster(error),
        })
    }
}

/// The name that a command is about: after a script and the number of its names, else after the command.
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

/// Whether a form of a command is still to be used.
pub(super) fn usable(form: &AtomicBool) -> bool {
    form.load(Ordering::Relaxed)
}

/// The server has said that it does not know this form.
pub(super) fn give_up(form: &AtomicBool) {
    form.store(false, Ordering::Relaxed);
}

impl ConnectionLike for Connection {
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
    fn a_command_is_about_its_name() {
        for words in
            [&["GET", "k"][..], &["SET", "k", "v"], &["EVALSHA", "hash", "1", "k", "v"], &["EVAL", "code", "1", "k"]]
        {
            let mut command = Cmd::new();
            command.arg(words);
            assert_eq!(key(&command), Some(&b"k"[..]), "{words:?}");
        }
        let mut command = Cmd::new();
        command.arg("PING");
        assert_eq!(key(&command), None);
    }
}
