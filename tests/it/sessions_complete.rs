//! `homing_sessions_complete`: whether the number of sessions is the whole truth, or sessions of before a restart are still out.

use std::fs;
use std::time::{Duration, Instant};

use crate::snapshot::with_snapshot;
use crate::world::stores::{Engine, Store};
use crate::world::{Conf, PATIENCE, World, eventually};

const COMPLETE: &str = "homing_sessions_complete";

fn complete(world: &World) -> bool {
    let metrics = world.metrics();
    let pools = metrics.matching(COMPLETE, &[("pool", "web")]).count();
    assert_eq!(pools, 1, "{}", metrics.text);
    metrics.sum(COMPLETE, &[]) == 1.0
}

fn idle_for(idle: &str) -> Conf {
    Conf::servers("a b").persistence(&format!("idle_timeout: {idle}"))
}

#[test]
fn after_a_restart_the_number_of_sessions_is_known_to_be_incomplete_until_the_idle_timeout() {
    let mut world = World::start(idle_for("3s"));
    let clients: Vec<_> = (0..12).map(|_| world.browser()).collect();
    let homes: Vec<_> = clients.iter().map(|client| (client.server(), client.server()).1).collect();
    world.expect_metric("homing_sessions", &[], 12.0);
    world.stop_proxy();
    let start = Instant::now();
    world.start_proxy();
    assert_eq!(world.metric("homing_sessions", &[]), 0.0, "none has come back");
    assert!(!complete(&world), "though twelve clients hold a token");
    for (client, home) in clients.iter().zip(&homes) {
        assert_eq!(client.server(), *home);
    }
    world.expect_metric("homing_sessions", &[], 12.0);
    eventually(PATIENCE, "the idle timeout is over", || complete(&world));
    assert!(start.elapsed() >= Duration::from_secs(3), "after {:?}", start.elapsed());
}

#[test]
fn every_source_of_tokens_and_every_shared_store_makes_it_incomplete_at_start() {
    for sources in ["[cookie: {}]", "[query: { name: sid }]", "[header: { name: X-S }]", "[client_ip: {}, cookie: {}]"]
    {
        let world = World::start(Conf::servers("a").persistence(&format!("sources: {sources}")));
        assert!(!complete(&world), "{sources}");
    }
    let store = Store::start(Engine::Redis);
    for sources in ["[learn: { cookie: SID }]", "[client_ip: {}]"] {
        let conf = Conf::servers("a").persistence(&format!("sources: {sources}"));
        assert!(!complete(&World::start(conf.clone().store(&store.entry()))), "{sources} in a store");
        assert!(complete(&World::start(conf)), "{sources}: what the table does not know is lost");
    }
}

#[test]
fn a_pool_without_persistence_has_nothing_to_miss() {
    assert!(complete(&World::start(Conf::servers("a").without_persistence())));
}

#[test]
fn with_a_snapshot_it_is_complete_at_once_and_with_a_damaged_one_it_is_not() {
    let mut world = World::start(with_snapshot(idle_for("1h"), "sessions", "1h"));
    assert!(!complete(&world), "there was no snapshot yet");
    let alice = world.browser();
    alice.server();
    alice.server();
    world.restart_proxy();
    assert!(complete(&world));
    assert_eq!(world.metric("homing_sessions", &[]), 1.0);
    world.stop_proxy();
    fs::write(world.directory().join("sessions"), "no snapshot").expect("a file");
    world.start_proxy();
    assert!(!complete(&world));
}

#[test]
fn a_longer_idle_timeout_makes_it_incomplete_again() {
    let mut world = World::start(idle_for("1s"));
    eventually(PATIENCE, "the idle timeout is over", || complete(&world));
    world.reload(idle_for("1h"));
    assert!(!complete(&world), "a token of half an hour ago is valid again");
}
