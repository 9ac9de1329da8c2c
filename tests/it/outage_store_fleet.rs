//! Proxies that share a store, as the files `outage_store_*` have them: each may reach it another way, and so may be parted
//! from it alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::world::app::answers::saying;
use crate::world::client::{get_with, request_with};
use crate::world::namespace::Namespace;
use crate::world::proxy::Launch;
use crate::world::stores::{HazelcastMember, IgniteNode, JavaStore, Kind, MemcachedServer, RedisServer};
use crate::world::{Conf, PATIENCE, Proxy, Signal, Town, World, eventually};

pub(crate) const OPERATIONS: &str = "homing_store_operations_total";
pub(crate) const PENDING: &str = "homing_store_pending_writes";
pub(crate) const UP: &str = "homing_store_up";
pub(crate) const LOOKUPS: &str = "homing_session_lookups_total";
pub(crate) const MOVES: &str = "homing_session_moves_total";

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Redis,
    Valkey,
    Memcached,
    Hazelcast,
    Ignite,
}

impl Of {
    const ALL: [Self; 5] = [Self::Redis, Self::Valkey, Self::Memcached, Self::Hazelcast, Self::Ignite];

    /// Those whose programs are here.
    fn all() -> Vec<Self> {
        let is_here = |of: &Self| match of {
            Self::Hazelcast => JavaStore::Hazelcast.is_here(),
            Self::Ignite => JavaStore::Ignite.is_here(),
            Self::Redis | Self::Valkey | Self::Memcached => true,
        };
        Self::ALL.into_iter().filter(is_here).collect()
    }

    /// The same with each of them, at the same time: most of an outage is waiting.
    pub(crate) fn each(test: impl Fn(Self) + Sync) {
        let test = &test;
        let all = Self::all();
        let results: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = all.iter().map(|of| scope.spawn(move || test(*of))).collect();
            running.into_iter().map(ScopedJoinHandle::join).collect()
        });
        for (result, of) in results.into_iter().zip(all) {
            assert!(result.is_ok(), "it failed with {of:?}; see above");
        }
    }
}

/// A server of it.
#[derive(Debug)]
pub(crate) enum Store {
    Redis(RedisServer),
    Memcached(MemcachedServer),
    Hazelcast(HazelcastMember),
    Ignite(IgniteNode),
}

impl Store {
    #[track_caller]
    pub(crate) fn start(of: Of) -> Self {
        match of {
            Of::Redis => Self::Redis(RedisServer::start(Kind::Redis)),
            Of::Valkey => Self::Redis(RedisServer::start(Kind::Valkey)),
            Of::Memcached => Self::Memcached(MemcachedServer::start()),
            Of::Hazelcast => Self::Hazelcast(HazelcastMember::start()),
            Of::Ignite => Self::Ignite(IgniteNode::start()),
        }
    }

    /// In a network of its own.
    #[track_caller]
    pub(crate) fn within(of: Of, namespace: &Namespace) -> Self {
        match of {
            Of::Redis => Self::Redis(RedisServer::setup(Kind::Redis).within(namespace).start()),
            Of::Valkey => Self::Redis(RedisServer::setup(Kind::Valkey).within(namespace).start()),
            Of::Memcached => Self::Memcached(MemcachedServer::within(namespace)),
            Of::Hazelcast => Self::Hazelcast(HazelcastMember::within(namespace)),
            Of::Ignite => Self::Ignite(IgniteNode::within(namespace)),
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
        // A list of memcached's writes a colon otherwise.
        let all: BTreeMap<_, _> = match self {
            Self::Redis(server) => {
                server.keys().into_iter().filter_map(|key| Some((key.clone(), server.value(&key)?))).collect()
            }
            Self::Memcached(server) => {
                let keys = server.keys().into_iter().map(|key| key.replace("%3A", ":"));
                keys.filter_map(|key| Some((key.clone(), server.get(&key)?))).collect()
            }
            Self::Hazelcast(member) => member.all(),
            Self::Ignite(node) => node.all(),
        };
        let bindings = all.into_iter().filter(|(key, _)| !key.ends_with(":d"));
        bindings.map(|(key, text)| (key, read(&text))).collect()
    }
}

/// `1 <epoch> <server> <created> <node>`.
#[track_caller]
fn read(text: &str) -> (u32, String) {
    let words: Vec<_> = text.split(' ').collect();
    assert_eq!((words.len(), words[0]), (6, "1"), "no record: {text:?}");
    (words[1].parse().expect("an epoch"), words[2].to_owned())
}

/// Some proxies with the same servers and keys.
#[derive(Debug)]
pub(crate) struct Fleet {
    proxies: Vec<Option<Proxy>>,
    launches: Vec<Launch>,
    pub(crate) town: Town,
}

impl Fleet {
    /// A proxy for each of these entries of `store`, connected to it.
    #[track_caller]
    pub(crate) fn start(conf: &Conf, entries: &[String]) -> Self {
        let confs: Vec<_> = entries.iter().map(|entry| conf.clone().store(entry)).collect();
        Self::of(&confs)
    }

    /// A proxy for each of these configurations, which name the same servers, connected to the store.
    #[track_caller]
    pub(crate) fn of(confs: &[Conf]) -> Self {
        let fleet = Self::among(&confs[0], |_| confs.to_vec());
        fleet.wait_for_store(true);
        fleet
    }

    /// One proxy, while its store is away.
    pub(crate) fn without_store(conf: &Conf, entry: &str) -> Self {
        Self::among(conf, |_| vec![conf.clone().store(entry)])
    }

    /// The same, when the servers of `conf` must be there before.
    pub(crate) fn among(conf: &Conf, confs: impl FnOnce(&Town) -> Vec<Conf>) -> Self {
        let mut town = World::builder(conf).without_proxy();
        let confs = confs(&town).into_iter().enumerate();
        let launches: Vec<_> = confs
            .map(|(number, conf)| {
                town.rewrite(conf.top(&format!("proxy: {{ node: edge-{number} }}")));
                town.launch(&format!("-{number}"))
            })
            .collect();
        let proxies = launches.iter().map(|launch| Some(Proxy::start(launch, town.directory()))).collect();
        Self { proxies, launches, town }
    }

    pub(crate) fn proxy(&self, number: usize) -> &Proxy {
        self.proxies[number].as_ref().expect("it runs")
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.iter().flatten()
    }

    /// TERM, or KILL; and its end.
    #[track_caller]
    pub(crate) fn end(&mut self, number: usize, signal: Signal) -> String {
        let proxy = self.proxies[number].take().expect("it runs");
        proxy.signal(signal);
        proxy.wait_for_exit(PATIENCE);
        proxy.log()
    }

    pub(crate) fn start_again(&mut self, number: usize) {
        self.proxies[number] = Some(Proxy::start(&self.launches[number], self.town.directory()));
    }

    /// Waits until all proxies find the store there (1) or not (0).
    #[track_caller]
    pub(crate) fn wait_for_store(&self, up: bool) {
        self.all().for_each(|proxy| store_is(proxy, up));
    }

    /// Waits until no proxy has anything to tell the store.
    #[track_caller]
    pub(crate) fn wait_until_written(&self) {
        eventually(PATIENCE, "the store is told all", || self.all().all(|proxy| proxy.metric(PENDING, &[]) < 0.5));
    }

    /// Asserts that no session has moved on any proxy.
    #[track_caller]
    pub(crate) fn expect_no_moves(&self) {
        self.all().for_each(|proxy| proxy.expect_metric(MOVES, &[], 0.0));
    }
}

#[track_caller]
pub(crate) fn store_is(proxy: &Proxy, up: bool) {
    let what = if up { "the store is there" } else { "the store is away" };
    eventually(PATIENCE, what, || (proxy.metric(UP, &[]) > 0.5) == up);
}

/// How often the store was asked so, with that result.
#[track_caller]
pub(crate) fn asked(proxy: &Proxy, operation: &str, result: &str) -> f64 {
    proxy.metric(OPERATIONS, &[("op", operation), ("result", result)])
}

/// Sessions by token, and by ids of the application, which DELETE ends.
pub(crate) fn learning(servers: &str) -> Conf {
    Conf::servers(servers).persistence("sources: [{ cookie: {} }, { learn: { cookie: SID, ends_on: [DELETE] } }]")
}

/// A session of that id begins; its server.
#[track_caller]
pub(crate) fn begin(proxy: &Proxy, id: &str) -> String {
    get_with(&proxy.address, &saying(200, &[&format!("Set-Cookie: SID={id}; Path=/")]), &[]).server()
}

/// The server of the session of that id, which has no token.
#[track_caller]
pub(crate) fn server(proxy: &Proxy, id: &str) -> String {
    get_with(&proxy.address, "/plain", &[("Cookie", &format!("SID={id}"))]).expect(200).text()
}

/// Its server lets the session of that id end.
#[track_caller]
pub(crate) fn end(proxy: &Proxy, id: &str) {
    request_with(&proxy.address, "DELETE", "/plain", &[("Cookie", &format!("SID={id}"))]).expect(200);
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
