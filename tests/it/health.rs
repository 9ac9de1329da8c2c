//! Which servers are well, by the proxy's own checks.

use std::thread;
use std::time::{Duration, Instant};

use crate::world::{Browser, Conf, PATIENCE, QUICK_CHECK, World, eventually};

fn ask(world: &World, times: usize) -> Vec<String> {
    let ask = |_| {
        let browser: Browser = world.browser();
        browser.server()
    };
    (0..times).map(ask).collect()
}

fn up(world: &World, server: &str) -> f64 {
    world.metric("homing_server_up", &[("pool", "web"), ("server", server)])
}

#[test]
fn a_server_that_is_down_at_the_start_never_sees_a_request() {
    let world = World::builder(Conf::servers("a b").pool(QUICK_CHECK))
        .before(|environment| environment.app("b").set_health(503))
        .start();
    let servers = ask(&world, 20);
    assert!(servers.iter().all(|s| s == "a"), "the first verdict comes before traffic: {servers:?}");
    assert_eq!(world.app("b").requests(), 0);
    assert_eq!((up(&world, "a"), up(&world, "b")), (1.0, 0.0));
}

#[test]
fn a_server_that_refuses_at_the_start_does_not_keep_the_proxy_from_starting() {
    let world = World::builder(Conf::servers("a b").pool(QUICK_CHECK)).down("b").start();
    assert!(ask(&world, 10).iter().all(|s| s == "a"));
    world.app("b").start();
    world.wait_for_health("b", true);
    assert!(ask(&world, 10).iter().any(|s| s == "b"), "it joins when it is there");
}

#[test]
fn the_proxy_starts_without_any_server() {
    let world = World::builder(Conf::servers("a b").pool(QUICK_CHECK)).down("a").down("b").start();
    world.browser().get("/echo").expect(503);
    world.app("a").start();
    world.wait_for_health("a", true);
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn checks_may_be_more_frequent_than_a_check_may_take() {
    for timeout in ["", ", timeout: 2s"] {
        let check = format!("health_check: {{ interval: 100ms{timeout} }}");
        let world = World::start(Conf::servers("a b").pool(&check));
        world.app("b").set_health(503);
        world.wait_for_health("b", false);
        assert!(ask(&world, 10).iter().all(|server| server == "a"));
    }
}

#[test]
fn fall_and_rise_say_how_many_verdicts_it_takes() {
    let check = "health_check: { type: http, path: /healthz, interval: 300ms, timeout: 300ms, rise: 3, fall: 3 }";
    let world = World::start(Conf::servers("a b").pool(check));
    let app = world.app("b");
    for (status, to) in [(500, false), (200, true)] {
        let before = app.probes();
        app.set_health(status);
        world.wait_for_health("b", to);
        let probes = app.probes() - before;
        assert!((3..=5).contains(&probes), "three in a row, not {probes}");
    }
    assert!(
        world.metric("homing_health_checks_total", &[("pool", "web"), ("server", "b")]) >= 6.0,
        "checks are counted"
    );
}

#[test]
fn one_bad_check_is_not_enough() {
    let check = "health_check: { type: http, path: /healthz, interval: 200ms, timeout: 200ms, rise: 1, fall: 10 }";
    let world = World::start(Conf::servers("a b").pool(check));
    let before = world.app("b").probes();
    world.app("b").set_health(500);
    eventually(PATIENCE, "a few bad checks", || world.app("b").probes() >= before + 3);
    assert_eq!(up(&world, "b"), 1.0);
}

#[test]
fn checks_keep_to_their_interval() {
    let check = "health_check: { type: http, path: /healthz, interval: 500ms, timeout: 500ms, rise: 1, fall: 2 }";
    let world = World::start(Conf::servers("a").pool(check));
    let (before, start) = (world.app("a").probes(), Instant::now());
    thread::sleep(Duration::from_millis(2600)); // the passing of time is the subject
    let probes = world.app("a").probes() - before;
    assert!((3..=7).contains(&probes), "about two a second: {probes} in {:?}", start.elapsed());
}

#[test]
fn a_frozen_server_is_found_down() {
    let world = World::start(Conf::servers("a b").pool(QUICK_CHECK));
    world.app("b").freeze();
    world.wait_for_health("b", false);
    assert!(ask(&world, 6).iter().all(|s| s == "a"));
    world.app("b").thaw();
    world.wait_for_health("b", true);
}

#[test]
fn an_unreachable_server_is_found_down() {
    let world = World::start(Conf::servers("a b").pool(QUICK_CHECK));
    world.app("b").blackhole();
    world.wait_for_health("b", false);
    assert!(ask(&world, 6).iter().all(|s| s == "a"));
}

#[test]
fn a_status_may_mean_alive_but_no_new_sessions() {
    let check = "health_check: { type: http, path: /healthz, drain_status: [404], interval: 250ms, timeout: 250ms, rise: 1, fall: 1 }";
    let world = World::start(Conf::servers("a b").pool(check));
    let alice = world.browser();
    let home = alice.server();
    world.app(&home).set_health(404);
    eventually(PATIENCE, "no new session goes there", || (0..6).all(|_| world.browser().server() != home));
    assert_eq!(alice.server(), home, "bound sessions stay");
    assert_eq!(up(&world, &home), 1.0, "it is alive");
    world.app(&home).set_health(200);
    eventually(PATIENCE, "new sessions again", || world.browser().server() == home);
    world.expect_metric("homing_session_moves_total", &[], 0.0);
}

#[test]
fn other_statuses_than_200_can_be_expected() {
    let check = "health_check: { type: http, path: /healthz, expect_status: [204, 401], interval: 250ms, timeout: 250ms, rise: 1, fall: 1 }";
    let world = World::builder(Conf::servers("a b c").pool(check))
        .before(|environment| {
            environment.app("a").set_health(401);
            environment.app("b").set_health(200);
            environment.app("c").set_health(202);
        })
        .start();
    assert!(ask(&world, 6).iter().all(|s| s == "a"), "only 401 is among them");
}

#[test]
fn a_tcp_check_asks_for_a_connection_only() {
    let check = "health_check: { type: tcp, interval: 250ms, timeout: 250ms, rise: 1, fall: 2 }";
    let world = World::start(Conf::servers("a b").pool(check));
    world.app("b").set_health(500);
    let before = world.app("b").connections();
    eventually(PATIENCE, "a few checks", || world.app("b").connections() >= before + 4);
    assert_eq!(up(&world, "b"), 1.0, "it listens, and no more is asked");
    assert_eq!(world.app("b").probes(), 0, "no request is sent");
    world.app("b").kill();
    world.wait_for_health("b", false);
    world.app("b").start();
    world.wait_for_health("b", true);
}

#[test]
fn without_checks_a_server_counts_as_up() {
    let world = World::start(Conf::servers("a b"));
    assert_eq!((up(&world, "a"), up(&world, "b")), (1.0, 1.0));
    assert_eq!(world.app("a").connections(), 0, "it is not checked");
}

#[test]
fn without_checks_a_server_that_takes_no_connections_is_not_up_until_it_responds() {
    let world = World::start(Conf::servers("a b"));
    world.app("a").kill();
    ask(&world, 4);
    assert_eq!((up(&world, "a"), up(&world, "b")), (0.0, 1.0));
    world.app("b").kill();
    world.browser().get("/echo").expect(503);
    assert_eq!((up(&world, "a"), up(&world, "b")), (0.0, 0.0), "an empty pool is seen");
    world.app("a").start();
    eventually(PATIENCE, "it serves again", || world.browser().get("/echo").status == 200);
    assert_eq!((up(&world, "a"), up(&world, "b")), (1.0, 0.0));
    world.app("b").start();
    eventually(PATIENCE, "all are up", || world.browser().server() == "b" && up(&world, "b") > 0.5);
}

#[test]
fn without_checks_a_server_whose_connections_time_out_is_not_up() {
    let world = World::start(Conf::servers("a b").pool("connection: { connect_timeout: 200ms }"));
    world.app("b").blackhole();
    eventually(PATIENCE, "a connection to b times out", || {
        world.browser().server();
        up(&world, "b") < 0.5
    });
    assert_eq!(up(&world, "a"), 1.0);
}

#[test]
fn with_slow_checks_a_server_that_takes_no_connections_is_not_up_until_a_check_succeeds() {
    let check = "health_check: { type: http, path: /healthz, interval: 300ms, timeout: 300ms, rise: 1, fall: 1000 }";
    let world = World::start(Conf::servers("a b").pool(check));
    world.app("b").kill();
    ask(&world, 4);
    assert_eq!((up(&world, "a"), up(&world, "b")), (1.0, 0.0), "before its checks have failed often enough");
    world.app("b").start();
    world.wait_for_health("b", true);
}

#[test]
fn a_server_may_be_known_by_name() {
    let world = World::start(Conf::servers("a b").address("b", "localhost:{{b:port}}").pool(QUICK_CHECK));
    let servers = ask(&world, 10);
    assert!(servers.iter().any(|s| s == "b"), "the name is resolved before traffic: {servers:?}");
}

#[test]
fn a_name_that_does_not_resolve_does_not_stop_the_other_servers() {
    let world = World::start(Conf::servers("a b").address("b", "no-such-host.invalid:{{b:port}}"));
    assert!(ask(&world, 6).iter().all(|s| s == "a"));
    assert!(world.log().contains("no-such-host.invalid"), "the log says which name:\n{}", world.log());
}

#[test]
fn a_change_of_health_is_logged_once() {
    let world = World::start(Conf::servers("a b").pool(QUICK_CHECK));
    world.app("b").kill();
    world.wait_for_health("b", false);
    let before = world.metric("homing_health_checks_total", &[("server", "b")]);
    eventually(PATIENCE, "a few more checks", || {
        world.metric("homing_health_checks_total", &[("server", "b")]) >= before + 3.0
    });
    let log = world.log();
    let lines = log.lines().filter(|l| l.to_lowercase().contains("down")).count();
    assert!((1..=2).contains(&lines), "said once, not with every check ({lines}):\n{log}");
}
