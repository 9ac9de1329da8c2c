//! Requests show that a server fails: it is ejected for some time, tested by one request, and comes back.

use std::thread;
use std::time::{Duration, Instant};

use crate::failover::{MOVES, OUTCOMES, start_with_session};
use crate::world::{Browser, Conf, PATIENCE, World, eventually};

const BREAKER: &str = "homing_server_breaker";
const UP: &str = "homing_server_up";

/// Three failures eject for a time that no test waits for.
const LONG: &str = "circuit_breaker: { consecutive_failures: 3, ejection_time: 1h, max_ejection_time: 1h }";
/// Three failures eject for a moment.
const SHORT: &str = "circuit_breaker: { consecutive_failures: 3, ejection_time: 400ms }";

/// A client that closes its side of the connection has left.
const CANCEL: &str = "on_client_half_close: cancel";

fn wait_for(world: &World, server: &str, state: &str) {
    eventually(PATIENCE, &format!("the breaker of {server} is {state}"), || {
        world.metric(BREAKER, &[("server", server), ("state", state)]) > 0.5
    });
}

fn expect_closed(world: &World) {
    assert_eq!(world.metric(BREAKER, &[("state", "closed")]), world.apps().count() as f64, "all are closed");
}

/// Three requests of a session fail at its server, which is ejected.
fn eject(world: &World, session: &Browser, home: &str) {
    for _ in 0..3 {
        session.get(&format!("/status?code=503&only={home}")).expect(503);
    }
    eventually(PATIENCE, "the server is ejected", || {
        world.metric(BREAKER, &[("server", home), ("state", "closed")]) < 0.5
    });
}

#[test]
fn a_server_whose_requests_fail_is_ejected_and_its_sessions_move() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c").pool(LONG));
    expect_closed(&world);
    assert_eq!(world.metric(UP, &[("server", &home)]), 1.0);
    for _ in 0..4 {
        alice.get(&format!("/status?code=503&only={home}")).expect(503);
        alice.get(&format!("/status?code=504&only={home}")).expect(504);
        alice.get(&format!("/status?code=500&only={home}")).expect(500);
    }
    expect_closed(&world);
    eject(&world, &alice, &home);
    wait_for(&world, &home, "open");
    assert_eq!(world.metric(UP, &[("server", &home)]), 0.0, "it is not up");
    let before = world.app(&home).requests();
    let next = alice.server();
    assert_ne!(next, home);
    for _ in 0..12 {
        assert_ne!(world.browser().server(), home, "no new session goes there");
        assert_eq!(alice.server(), next, "the session has moved once");
    }
    assert_eq!(world.app(&home).requests(), before, "an ejected server gets no request");
    world.expect_metric(MOVES, &[("pool", "web"), ("reason", "ejected")], 1.0);
    assert!(world.log().contains("server ejected"), "the log says so");
}

#[test]
fn an_ejected_server_comes_back_with_the_first_request_that_succeeds() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(SHORT));
    eject(&world, &alice, &home);
    wait_for(&world, &home, "half_open");
    assert_eq!(world.metric(UP, &[("server", &home)]), 0.0, "not known to be up");
    eventually(PATIENCE, "a new session tests it", || world.browser().server() == home);
    wait_for(&world, &home, "closed");
    assert_eq!(world.metric(UP, &[("server", &home)]), 1.0);
    assert!(world.log().contains("server takes requests again"));
}

#[test]
fn a_test_that_fails_ejects_for_twice_the_time() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(SHORT));
    eject(&world, &alice, &home);
    let mut took = Vec::new();
    for _ in 0..2 {
        wait_for(&world, &home, "half_open");
        let failing = format!("/status?code=502&only={home}");
        eventually(PATIENCE, "a test fails", || world.browser().get(&failing).status == 502);
        let ejected = Instant::now();
        wait_for(&world, &home, "half_open");
        took.push(ejected.elapsed());
    }
    assert!(took[0] >= Duration::from_millis(700), "twice 400 ms: {took:?}");
    assert!(took[1] >= Duration::from_millis(1500), "four times: {took:?}");
}

#[test]
fn one_request_at_a_time_tests_a_server() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(SHORT));
    eject(&world, &alice, &home);
    wait_for(&world, &home, "half_open");
    let slow = format!("/slow?ms=700&only={home}");
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| world.browser().get(&slow).expect(200));
        }
    });
    assert_eq!(world.app(&home).count("GET", "/slow"), 1, "the others went elsewhere");
    wait_for(&world, &home, "closed");
}

#[test]
fn a_test_whose_client_leaves_makes_room_for_the_next() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool(SHORT).listener(CANCEL));
    eject(&world, &alice, &home);
    wait_for(&world, &home, "half_open");
    for lost in 1..=3 {
        let mut wires = Vec::new();
        eventually(PATIENCE, "a request tests it", || {
            let mut wire = world.wire();
            wire.send(format!("GET /slow?ms=60000&only={home} HTTP/1.1\r\nHost: x\r\n\r\n"));
            wires.push(wire);
            thread::sleep(Duration::from_millis(30));
            world.app(&home).count("GET", "/slow") == lost
        });
        drop(wires);
        wait_for(&world, &home, "half_open");
    }
    eventually(PATIENCE, "the next test succeeds", || world.browser().server() == home);
    wait_for(&world, &home, "closed");
}

#[test]
fn resets_timeouts_and_refused_connections_are_failures() {
    type Fault = (&'static str, fn(&World, &str));
    let faults: [Fault; 3] = [
        ("POST /reset", |_, _| {}),
        ("GET /slow?ms=5000", |_, _| {}),
        ("GET /echo", |world, home| world.app(home).kill()),
    ];
    for (request, prepare) in faults {
        let conf = Conf::servers("a b c").pool(LONG).pool("connection: { read_timeout: 200ms }");
        let (world, alice, home) = start_with_session(conf.persistence("on_server_down: borrow"));
        prepare(&world, &home);
        let (method, target) = request.split_once(' ').unwrap();
        let and = if target.contains('?') { '&' } else { '?' };
        for _ in 0..3 {
            alice.disconnect();
            alice.request(method, &format!("{target}{and}only={home}")).send();
        }
        wait_for(&world, &home, "open");
        assert_ne!(alice.server(), home, "{request}");
        world.expect_metric(
            OUTCOMES,
            &[("outcome", "borrowed")],
            if method == "GET" && target == "/echo" { 4.0 } else { 1.0 },
        );
    }
}

#[test]
fn a_client_that_leaves_is_no_failure() {
    let conf = Conf::servers("a").pool("circuit_breaker: { consecutive_failures: 1, max_ejected_percent: 100 }");
    let world = World::start(conf.listener(CANCEL));
    for n in 1..=5 {
        let mut wire = world.wire();
        wire.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually(PATIENCE, "the request arrives", || world.count("GET", "/slow") == n);
        drop(wire);
    }
    world.expect_metric("homing_server_requests_in_flight", &[("server", "a")], 0.0);
    expect_closed(&world);
    world.browser().get("/garbage").expect(502);
    let _ = world.browser().request("GET", "/die-midway").try_send();
    expect_closed(&world);
}

#[test]
fn a_server_that_swallows_connections_is_not_waited_for_again_and_again() {
    let conf = Conf::servers("a b c")
        .pool("connection: { connect_timeout: 300ms }")
        .pool("circuit_breaker: { consecutive_failures: 2, ejection_time: 1h, max_ejection_time: 1h }")
        .persistence("on_server_down: borrow");
    let (world, alice, home) = start_with_session(conf);
    world.app(&home).blackhole();
    for _ in 0..2 {
        assert_ne!(alice.server(), home);
    }
    wait_for(&world, &home, "open");
    let start = Instant::now();
    for _ in 0..10 {
        assert_ne!(alice.server(), home);
        assert_ne!(world.browser().server(), home);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "no request waits any more: {:?}", start.elapsed());
}

#[test]
fn a_guest_comes_home_when_its_server_is_back() {
    let conf = Conf::servers("a b").pool(SHORT).persistence("on_server_down: borrow");
    let (world, alice, home) = start_with_session(conf);
    eject(&world, &alice, &home);
    wait_for(&world, &home, "half_open");
    assert_eq!(alice.server(), home, "its own request tests the server");
    wait_for(&world, &home, "closed");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn sessions_of_an_ejected_server_are_refused_where_the_pool_says_so() {
    let conf = Conf::servers("a b").pool(LONG).persistence("on_server_down: refuse, refuse_status: 404");
    let (world, alice, home) = start_with_session(conf);
    eject(&world, &alice, &home);
    alice.get("/echo").expect(404);
    assert_ne!(alice.server(), home, "the next request begins a new session");
    assert_eq!(world.metric(OUTCOMES, &[("outcome", "refused")]), 1.0);
}

#[test]
fn only_a_share_of_the_servers_is_ejected_at_a_time() {
    let world = World::start(Conf::servers("a b").pool(LONG).without_persistence());
    for _ in 0..20 {
        world.browser().get("/status?code=503").expect(503);
    }
    let open = world.metric(BREAKER, &[("state", "open")]);
    assert_eq!(open, 1.0, "half of two");
    assert_eq!(world.metric(BREAKER, &[("state", "closed")]), 1.0);
}

#[test]
fn an_ejection_survives_a_reload_and_ends_when_the_breaker_is_switched_off() {
    let mut world = World::start(Conf::servers("a b").pool(LONG).without_persistence());
    let (home, alone) = ("a", "b");
    for _ in 0..20 {
        world.browser().get(&format!("/status?code=503&only={home}"));
    }
    wait_for(&world, home, "open");
    world.reload(Conf::servers("b a").pool(LONG).pool("balance: random").without_persistence());
    wait_for(&world, home, "open");
    for _ in 0..10 {
        assert_eq!(world.browser().server(), alone);
    }
    world.reload(Conf::servers("b a").pool(&LONG.replace("1h", "10ms")).without_persistence());
    wait_for(&world, home, "half_open");
    world.reload(Conf::servers("b a").without_persistence());
    assert!(!world.metrics().has(BREAKER, &[]), "no breaker, no series");
    eventually(PATIENCE, "it takes requests again", || world.browser().server() == home);
}
