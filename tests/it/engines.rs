//! Every engine against real servers: what it promises ([`engine_contract`](super::engine_contract)), and what it does when
//! its server goes away and comes back.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use homing::config::Secret;
use homing::store::engine::{Engine, Event, Kind as ValueKind, OnEvent, StoreError, WriteResult};
use homing::store::memcached::MemcachedEngine;
use homing::store::memcached::settings::MemcachedSettings;
use homing::store::redis::RedisEngine;
use homing::store::redis::settings::{RedisMode, RedisSettings};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::engine_contract::{announces_moves, holds, name, value};
use crate::world::PATIENCE;
use crate::world::stores::{Cluster, Kind, MemcachedServer, RedisServer, Sentinels};

/// For each step of connecting. A log-in takes Java long, on a busy machine over a second.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// An engine, what it tells, and what it runs on.
pub(crate) struct Running {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) events: UnboundedReceiver<Event>,
    runtime: Runtime,
}

impl Running {
    pub(crate) fn start(make: impl FnOnce(&Runtime, OnEvent) -> Arc<dyn Engine>) -> Self {
        let runtime = Runtime::new().unwrap();
        let (tell, events) = unbounded_channel();
        let engine = make(&runtime, Arc::new(move |event| drop(tell.send(event))));
        let mut running = Self { engine, events, runtime };
        running.await_event("the first connection", |event| matches!(event, Event::Reconnected));
        running
    }

    fn redis(addresses: &[SocketAddr], mode: RedisMode) -> Self {
        let urls = addresses.iter().map(|address| Secret::new(format!("redis://{address}"))).collect();
        let master_name = Some("homing".to_owned());
        let settings = RedisSettings { urls, mode, master_name, key_prefix: "t".to_owned() };
        Self::start(|runtime, told| RedisEngine::start(&settings, CONNECT, runtime.handle(), told).unwrap())
    }

    fn memcached(servers: &[&MemcachedServer]) -> Self {
        let servers = servers.iter().map(|server| server.address().to_string()).collect();
        let settings = MemcachedSettings { servers, key_prefix: "t".to_owned() };
        Self::start(|runtime, told| MemcachedEngine::start(&settings, CONNECT, runtime.handle(), told).unwrap())
    }

    pub(crate) fn run<T>(&self, check: impl Future<Output = T>) -> T {
        self.runtime.block_on(check)
    }

    #[track_caller]
    pub(crate) fn await_event(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) {
        let events = &mut self.events;
        let mut lost = None;
        let found = self.runtime.block_on(async {
            let found = async {
                while let Some(event) = events.recv().await {
                    if is_it(&event) {
                        return true;
                    }
                    if let Event::Lost(reason) = event {
                        lost = Some(reason);
                    }
                }
                false
            };
            timeout(PATIENCE, found).await
        });
        assert_eq!(found, Ok(true), "waited for {what}; last loss: {lost:?}");
    }

    /// Until the engine does what it did before.
    #[track_caller]
    pub(crate) fn await_writes(&self) {
        let written = self.run(async {
            let written = async {
                while !matches!(self.bind_new_name().await, Ok(WriteResult::Stored)) {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, written).await
        });
        assert!(written.is_ok(), "it takes writes again: {:?}", self.run(self.bind_new_name()));
    }

    pub(crate) async fn bind_new_name(&self) -> Result<WriteResult, StoreError> {
        let name = name(ValueKind::Binding);
        self.engine.bind(&name, &value(0, "a"), Duration::from_secs(60)).await
    }

    /// Also where others have given up.
    pub(crate) fn gives_each_caller_its_own_response(&self) {
        self.run(async {
            for _ in 0..300 {
                let hurried = timeout(Duration::from_micros(50), self.bind_new_name());
                let name = name(ValueKind::Binding);
                let mine = value(7, "z");
                let patient = self.engine.bind(&name, &mine, Duration::from_secs(60));
                let (_, bound) = tokio::join!(hurried, patient);
                assert_eq!(bound, Ok(WriteResult::Stored));
                assert_eq!(self.engine.lookup(&[name]).await, Ok(vec![Some(mine)]));
            }
        });
    }

    pub(crate) fn satisfies_the_contract(mut self) {
        self.run(holds(&self.engine));
        if self.engine.capabilities().announces {
            let (engine, events) = (Arc::clone(&self.engine), &mut self.events);
            self.runtime.block_on(announces_moves(&engine, events));
        }
    }
}

#[test]
fn redis_satisfies_the_contract() {
    let server = RedisServer::start(Kind::Redis);
    let running = Running::redis(&[server.address()], RedisMode::Standalone);
    assert!(running.engine.capabilities().server.starts_with("redis "), "{:?}", running.engine.capabilities());
    running.satisfies_the_contract();
}

#[test]
fn valkey_satisfies_the_contract() {
    let server = RedisServer::start(Kind::Valkey);
    let running = Running::redis(&[server.address()], RedisMode::Standalone);
    let capabilities = running.engine.capabilities();
    assert!(capabilities.server.starts_with("valkey "), "{capabilities:?}");
    assert_eq!(capabilities.compare_and_set, "ifeq", "chosen by what the server says it is");
    running.satisfies_the_contract();
}

#[test]
fn a_redis_that_allows_no_scripts_says_why_it_cannot_move_and_a_valkey_can() {
    for (kind, moves) in [(Kind::Redis, false), (Kind::Valkey, true)] {
        let server = RedisServer::setup(kind).user("edge", "secret-enough", "~* &* +@all -@scripting").start();
        let urls = vec![Secret::new(format!("redis://edge:secret-enough@{}", server.address()))];
        let settings = RedisSettings { urls, key_prefix: "t".to_owned(), ..RedisSettings::default() };
        let running =
            Running::start(|runtime, told| RedisEngine::start(&settings, CONNECT, runtime.handle(), told).unwrap());
        let moved = running.run(async {
            let (name, minute) = (name(ValueKind::Binding), Duration::from_secs(60));
            assert_eq!(running.engine.bind(&name, &value(0, "a"), minute).await, Ok(WriteResult::Stored));
            running.engine.rebind(&name, &value(1, "b"), minute).await
        });
        if moves {
            assert_eq!(moved, Ok(WriteResult::Stored));
        } else {
            assert!(matches!(&moved, Err(StoreError::Refused(why)) if why.contains("NOPERM")), "{moved:?}");
        }
    }
}

#[test]
fn a_cluster_satisfies_the_contract() {
    let cluster = Cluster::start(Kind::Redis);
    let addresses: Vec<_> = cluster.nodes().iter().map(RedisServer::address).collect();
    Running::redis(&addresses, RedisMode::Cluster).satisfies_the_contract();
}

#[test]
fn a_primary_that_sentinels_watch_satisfies_the_contract_and_its_successor_too() {
    let sentinels = Sentinels::start(Kind::Redis);
    let addresses: Vec<_> = (0..3).map(|number| sentinels.sentinel(number).address()).collect();
    let running = Running::redis(&addresses, RedisMode::Sentinel);
    sentinels.fail_over();
    running.await_writes();
    running.satisfies_the_contract();
}

#[test]
fn memcached_satisfies_the_contract() {
    let server = MemcachedServer::start();
    Running::memcached(&[&server]).satisfies_the_contract();
}

#[test]
fn three_of_memcached_keep_their_promises() {
    let servers = [MemcachedServer::start(), MemcachedServer::start(), MemcachedServer::start()];
    let [first, second, third] = &servers;
    Running::memcached(&[first, second, third]).satisfies_the_contract();
}

#[test]
fn a_store_that_dies_is_missed_at_once_and_found_again_when_it_is_back() {
    let (redis, memcached) = (RedisServer::start(Kind::Redis), MemcachedServer::start());
    let mut to_redis = Running::redis(&[redis.address()], RedisMode::Standalone);
    let mut to_memcached = Running::memcached(&[&memcached]);
    redis.kill();
    memcached.kill();
    for running in [&mut to_redis, &mut to_memcached] {
        running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
        assert!(matches!(running.run(running.bind_new_name()), Err(StoreError::Unreachable(_))));
        assert!(running.run(running.engine.ping()).is_err());
    }
    redis.start_again();
    memcached.start_again();
    for running in [&mut to_redis, &mut to_memcached] {
        running.await_event("the store's return", |event| matches!(event, Event::Reconnected));
        running.await_writes();
    }
}

#[test]
fn a_frozen_store_is_noticed_without_a_request() {
    let (redis, memcached) = (RedisServer::start(Kind::Valkey), MemcachedServer::start());
    let mut to_redis = Running::redis(&[redis.address()], RedisMode::Standalone);
    let mut to_memcached = Running::memcached(&[&memcached]);
    redis.freeze();
    memcached.freeze();
    for running in [&mut to_redis, &mut to_memcached] {
        running.await_event("the loss", |event| matches!(event, Event::Lost(_)));
    }
    redis.thaw();
    memcached.thaw();
    for running in [&mut to_redis, &mut to_memcached] {
        running.await_event("the store's return", |event| matches!(event, Event::Reconnected));
        running.await_writes();
    }
}

#[test]
fn a_caller_that_gives_up_leaves_no_other_with_its_response() {
    let (redis, memcached) = (RedisServer::start(Kind::Redis), MemcachedServer::start());
    for running in [Running::redis(&[redis.address()], RedisMode::Standalone), Running::memcached(&[&memcached])] {
        running.gives_each_caller_its_own_response();
    }
}
