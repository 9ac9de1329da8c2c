//! A store of any engine, as tests use it that are the same for all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::{self, ScopedJoinHandle};

use super::{HazelcastMember, IgniteNode, JavaStore, Kind, MemcachedServer, RedisServer};
use crate::world::namespace::Namespace;
use crate::world::{PATIENCE, eventually};

/// The kinds of store that a test runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Redis,
    Valkey,
    Memcached,
    Hazelcast,
    Ignite,
}

impl Engine {
    pub(crate) const ALL: [Self; 5] = [Self::Redis, Self::Valkey, Self::Memcached, Self::Hazelcast, Self::Ignite];

    /// Whether its programs are here; of those of Java they may be out of reach, which is said then.
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::Hazelcast => JavaStore::Hazelcast.is_here(),
            Self::Ignite => JavaStore::Ignite.is_here(),
            Self::Redis | Self::Valkey | Self::Memcached => true,
        }
    }

    /// Runs a test with each of those whose programs are here, at the same time: most of an outage is waiting.
    pub(crate) fn each(test: impl Fn(Self) + Sync) {
        let test = &test;
        let all: Vec<_> = Self::ALL.into_iter().filter(|engine| engine.is_here()).collect();
        let results: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = all.iter().map(|engine| scope.spawn(move || test(*engine))).collect();
            running.into_iter().map(ScopedJoinHandle::join).collect()
        });
        for (result, engine) in results.into_iter().zip(all) {
            assert!(result.is_ok(), "it failed with {engine:?}; see above");
        }
    }
}

/// A server of one of the engines.
#[derive(Debug)]
pub(crate) enum Store {
    Redis(RedisServer),
    Memcached(MemcachedServer),
    Hazelcast(HazelcastMember),
    Ignite(IgniteNode),
}

impl Store {
    #[track_caller]
    pub(crate) fn start(engine: Engine) -> Self {
        match engine {
            Engine::Redis => Self::Redis(RedisServer::start(Kind::Redis)),
            Engine::Valkey => Self::Redis(RedisServer::start(Kind::Valkey)),
            Engine::Memcached => Self::Memcached(MemcachedServer::start()),
            Engine::Hazelcast => Self::Hazelcast(HazelcastMember::start()),
            Engine::Ignite => Self::Ignite(IgniteNode::start()),
        }
    }

    /// In a network of its own.
    #[track_caller]
    pub(crate) fn within(engine: Engine, namespace: &Namespace) -> Self {
        match engine {
            Engine::Redis => Self::Redis(RedisServer::setup(Kind::Redis).within(namespace).start()),
            Engine::Valkey => Self::Redis(RedisServer::setup(Kind::Valkey).within(namespace).start()),
            Engine::Memcached => Self::Memcached(MemcachedServer::within(namespace)),
            Engine::Hazelcast => Self::Hazelcast(HazelcastMember::within(namespace)),
            Engine::Ignite => Self::Ignite(IgniteNode::within(namespace)),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Redis(server) => server.address(),
            Self::Memcached(server) => server.address(),
            Self::Hazelcast(member) => member.address(),
            Self::Ignite(node) => node.address(),
        }
    }

    pub(crate) fn entry(&self) -> String {
        self.entry_at(self.address())
    }

    pub(crate) fn entry_at(&self, address: SocketAddr) -> String {
        match self {
            Self::Redis(server) => server.entry_at(address),
            Self::Memcached(_) => MemcachedServer::entry_at(&[address]),
            Self::Hazelcast(_) => HazelcastMember::entry_at(&[address]),
            Self::Ignite(_) => IgniteNode::entry_at(&[address]),
        }
    }

    pub(crate) fn kill(&self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Memcached(server) => server.kill(),
            Self::Hazelcast(member) => member.kill(),
            Self::Ignite(node) => node.kill(),
        }
    }

    pub(crate) fn start_again(&self) {
        match self {
            Self::Redis(server) => server.start_again(),
            Self::Memcached(server) => server.start_again(),
            Self::Hazelcast(member) => member.start_again(),
            Self::Ignite(node) => node.start_again(),
        }
    }

    pub(crate) fn freeze(&self) {
        match self {
            Self::Redis(server) => server.freeze(),
            Self::Memcached(server) => server.freeze(),
            Self::Hazelcast(member) => member.freeze(),
            Self::Ignite(node) => node.freeze(),
        }
    }

    pub(crate) fn thaw(&self) {
        match self {
            Self::Redis(server) => server.thaw(),
            Self::Memcached(server) => server.thaw(),
            Self::Hazelcast(member) => member.thaw(),
            Self::Ignite(node) => node.thaw(),
        }
    }

    /// Where sessions are bound, by key: epoch and server (`-` of one that has ended).
    #[track_caller]
    pub(crate) fn records(&self) -> BTreeMap<String, (u32, String)> {
        let bindings = self.all().into_iter().filter(|(key, _)| !key.ends_with(":d"));
        bindings.map(|(key, text)| (key, read(&text))).collect()
    }

    /// Whether it tells proxies of moves.
    pub(crate) fn announces(&self) -> bool {
        !matches!(self, Self::Memcached(_))
    }

    /// All that is kept, by name.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        match self {
            Self::Redis(server) => {
                server.keys().into_iter().filter_map(|key| Some((key.clone(), server.value(&key)?))).collect()
            }
            Self::Memcached(server) => {
                // Its list writes a colon otherwise.
                let keys = server.keys().into_iter().map(|key| key.replace("%3A", ":"));
                keys.filter_map(|key| Some((key.clone(), server.get(&key)?))).collect()
            }
            Self::Hazelcast(member) => member.all(),
            Self::Ignite(node) => node.all(),
        }
    }

    /// The words of all bindings: format, epoch, server, start, and the writer.
    pub(crate) fn bindings(&self) -> Vec<Vec<String>> {
        let words = |text: String| text.split(' ').map(str::to_owned).collect();
        self.all().into_iter().filter(|(key, _)| !key.ends_with(":d")).map(|(_, text)| words(text)).collect()
    }

    /// Epoch and server of the only session that is kept.
    #[track_caller]
    pub(crate) fn binding(&self) -> (String, String) {
        let mut all = self.bindings();
        assert_eq!(all.len(), 1, "one session is kept: {all:?}");
        let words = all.remove(0);
        (words[1].clone(), words[2].clone())
    }

    /// Waits until the only session that is kept is bound so.
    #[track_caller]
    pub(crate) fn expect_binding(&self, epoch: u32, server: &str) {
        let expected = (epoch.to_string(), server.to_owned());
        eventually(PATIENCE, &format!("the store has epoch {epoch} and {server}: {:?}", self.bindings()), || {
            self.bindings().len() == 1 && self.binding() == expected
        });
    }
}

/// `1 <epoch> <server> <created> <node>`.
#[track_caller]
fn read(text: &str) -> (u32, String) {
    let words: Vec<_> = text.split(' ').collect();
    assert_eq!((words.len(), words[0]), (6, "1"), "no record: {text:?}");
    (words[1].parse().expect("an epoch"), words[2].to_owned())
}
