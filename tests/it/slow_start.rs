//! A server that comes back gets its share of new sessions bit by bit.

use std::time::Duration;

use crate::failover::start_with_session;
use crate::world::{Conf, PATIENCE, QUICK_CHECK, World, eventually};

const WEIGHT: &str = "homing_server_weight";

fn weight(world: &World, server: &str) -> f64 {
    world.metric(WEIGHT, &[("server", server)])
}

/// Of so many new sessions, how many begin at this server.
fn share(world: &World, server: &str, sessions: usize) -> usize {
    (0..sessions).filter(|_| world.browser().server() == server).count()
}

#[test]
fn a_server_that_was_down_gets_few_new_sessions_at_first_and_keeps_its_own() {
    let conf = Conf::servers("a b").pool(QUICK_CHECK).pool("slow_start: 1h").persistence("on_server_down: borrow");
    let (world, alice, home) = start_with_session(conf);
    assert_eq!((weight(&world, "a"), weight(&world, "b")), (1.0, 1.0), "not at the start");
    assert_eq!(share(&world, &home, 10), 5);
    world.app(&home).set_health(500);
    world.wait_for_health(&home, false);
    assert_eq!(weight(&world, &home), 0.0);
    world.app(&home).set_health(200);
    world.wait_for_health(&home, true);
    assert!((weight(&world, &home) - 0.1).abs() < 0.001, "a tenth: {}", weight(&world, &home));
    assert_eq!(share(&world, &home, 33), 3, "one in eleven");
    for _ in 0..5 {
        assert_eq!(alice.server(), home, "its own sessions are all back");
    }
}

#[test]
fn the_share_rises_to_the_whole() {
    let conf = || Conf::servers("a b").pool("slow_start: 2s");
    let mut world = World::start(conf());
    world.reload(conf().server("a", "state: maint"));
    eventually(PATIENCE, "it gets none", || weight(&world, "a") == 0.0);
    world.reload(conf());
    let mut seen = Vec::new();
    eventually(PATIENCE, "it has its whole share", || {
        seen.push(weight(&world, "a"));
        seen.last() == Some(&1.0)
    });
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.iter().any(|weight| (0.1..1.0).contains(weight)), "bit by bit: {seen:?}");
    assert!(share(&world, "a", 10).abs_diff(5) <= 1);
}

#[test]
fn a_server_that_is_added_or_was_ejected_starts_slowly() {
    let breaker = "circuit_breaker: { consecutive_failures: 1, ejection_time: 200ms }";
    let conf = |servers: &str| Conf::servers(servers).pool("slow_start: 1h").pool(breaker);
    let mut world = World::start(conf("a b"));
    world.reload(conf("a b c"));
    eventually(PATIENCE, "it has a tenth", || (weight(&world, "c") - 0.1).abs() < 0.001);
    assert_eq!((weight(&world, "a"), weight(&world, "b")), (1.0, 1.0));
    assert!(share(&world, "c", 21) <= 2);
    eventually(PATIENCE, "a is ejected", || {
        world.browser().get("/status?code=503&only=a");
        weight(&world, "a") < 1.0
    });
    eventually(Duration::from_secs(30), "a is back, with a tenth", || {
        let closed = [("server", "a"), ("state", "closed")];
        world.browser().server();
        world.metric("homing_server_breaker", &closed) > 0.5 && (weight(&world, "a") - 0.1).abs() < 0.001
    });
}

#[test]
fn with_balance_hash_there_is_no_slow_start() {
    let conf = |servers: &str| Conf::servers(servers).pool("balance: hash").pool("hash_on: uri").pool("slow_start: 1h");
    let mut world = World::start(conf("a"));
    world.reload(conf("a b"));
    assert_eq!(weight(&world, "b"), 1.0);
}
