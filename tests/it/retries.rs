//! What is tried again when a server fails in the middle of a request, and what never is.

use std::time::{Duration, Instant};

use crate::failover::{MOVES, others, start_with_session};
use crate::world::{Conf, SESSION_COOKIE, World};

#[test]
fn a_post_is_never_sent_twice() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    for n in 1..=3 {
        alice.request("POST", "/reset").body("order").fresh().send().expect(502);
        assert_eq!(world.count("POST", "/reset"), n, "one request, one arrival");
    }
    assert_eq!(alice.server(), home, "the session is kept");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_body_that_is_sent_again_counts_once() {
    let world = World::start(Conf::servers("a b c").listener("max_body_size: 1KiB"));
    for _ in 0..3 {
        let request = world.browser();
        let response = request.request("PUT", "/reset?only=a").body("x".repeat(1000)).fresh().send();
        assert_ne!(response.expect(200).server(), "a", "another server takes the same body");
    }
    assert!(world.count("PUT", "/reset") >= 4, "it was sent again, a thousand bytes each time");
}

#[test]
fn a_get_that_was_reset_is_tried_once_more_at_the_sessions_server_and_nowhere_else() {
    for (method, sources) in [("GET", "[cookie: {}]"), ("DELETE", "[cookie: {}]"), ("GET", "[client_ip: {}]")] {
        let (world, alice, home) =
            start_with_session(Conf::servers("a b c").persistence(&format!("sources: {sources}")));
        world.app(&home).restart(); // no connection is left that was used before
        let response = alice.request(method, &format!("/reset?only={home}")).send().expect(502);
        assert_eq!(response.set_cookie(SESSION_COOKIE), None, "the binding stays");
        assert_eq!(world.app(&home).count(method, "/reset"), 2, "{method} {sources}: once more, on a fresh connection");
        assert_eq!(world.count(method, "/reset"), 2, "{method} {sources}: no other server could know the session");
        for _ in 0..5 {
            assert_eq!(alice.server(), home, "a server that drops one request keeps its sessions");
        }
        world.expect_metric(MOVES, &[], 0.0);
        assert!(world.metric("homing_retries_total", &[("pool", "web")]) >= 1.0, "the retry is counted");
        let errors = world.metric("homing_upstream_errors_total", &[("pool", "web"), ("server", &home)]);
        assert!(errors >= 2.0, "so are the errors: {errors}");
    }
}

#[test]
fn a_server_that_drops_a_request_and_then_refuses_connections_loses_the_session() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    world.app(&home).kill();
    assert_ne!(alice.server(), home, "no connection: the session moves");
    world.expect_metric(MOVES, &[("reason", "connect_failure")], 1.0);
}

#[test]
fn no_server_is_tried_twice_for_one_request_without_a_session() {
    let conf = Conf::servers("a b c d").pool("retries: { attempts: 3, budget_percent: 100 }");
    let world = World::start(conf);
    world.browser().get("/reset").expect(502);
    for app in world.apps() {
        assert!(app.count("GET", "/reset") <= 1, "server {} saw it more than once", app.name());
    }
    assert!(world.count("GET", "/reset") >= 2, "but others were tried");
}

#[test]
fn a_reset_is_a_bad_gateway_also_when_no_other_server_is_left() {
    let conf = |servers: &str| Conf::servers(servers).pool("retries: { attempts: 3, budget_percent: 100 }");
    for servers in ["a", "a b"] {
        let world = World::start(conf(servers));
        world.browser().get("/reset").expect(502);
        assert_eq!(world.access_line("/reset")["reason"], "upstream_failed", "{servers}");
        for app in world.apps() {
            app.kill();
        }
        world.browser().get("/echo").expect(503);
    }
}

#[test]
fn without_retries_a_reset_is_the_clients_to_see() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c").pool("retries: { attempts: 0 }"));
    world.app(&home).restart(); // a reset on a connection used before would allow one more try
    alice.get(&format!("/reset?only={home}")).expect(502);
    assert_eq!(world.count("GET", "/reset"), 1);
}

#[test]
fn retries_have_a_budget() {
    let world = World::start(Conf::servers("a b c"));
    let before = world.count("GET", "/reset");
    for _ in 0..100 {
        world.browser().get("/reset").expect(502);
    }
    let sent = world.count("GET", "/reset") - before;
    assert!((101..=150).contains(&sent), "100 requests and a fifth of them again, a small reserve aside: {sent}");
}

#[test]
fn an_empty_budget_allows_no_later_retry() {
    let conf = Conf::servers("a b c").pool("retries: { attempts: 2, budget_percent: 0 }");
    let (world, alice, home) = start_with_session(conf);
    world.app(&home).restart(); // a reset on a connection used before would allow one more try
    alice.get(&format!("/reset?only={home}")).expect(502);
    assert_eq!(world.count("GET", "/reset"), 1);
}

#[test]
fn a_reset_on_a_reused_connection_is_no_failure_of_the_server() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    for _ in 0..3 {
        world.app(&home).reset_next_reused();
        let answer = alice.get("/again");
        assert_eq!((answer.server(), answer.set_cookie(SESSION_COOKIE)), (home.clone(), None), "the same server again");
        assert!(!world.app(&home).reset_is_pending(), "the reset has happened");
        assert_eq!(alice.server(), home);
    }
    for other in others(&world, &home) {
        assert_eq!(other.count("GET", "/again"), 0, "no other server was asked");
    }
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_server_that_closed_idle_connections_is_asked_over_new_ones() {
    let (world, alice, home) = start_with_session(Conf::servers("a b"));
    world.app(&home).restart();
    assert_eq!(alice.server(), home, "a restart between two requests is not noticed");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn half_an_answer_is_never_completed_or_repeated() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    for target in ["/die-midway", "/die-midway?chunked=1"] {
        let broken = alice.request("GET", target).fresh().try_send();
        assert!(broken.is_err(), "the client sees that the answer is not whole: {broken:?}");
    }
    assert_eq!(world.count("GET", "/die-midway"), 2, "it is not sent again");
    assert_eq!(alice.server(), home, "the session is kept");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_frozen_server_costs_its_clients_the_read_timeout_and_no_session() {
    let conf = Conf::servers("a b").pool("connection: { read_timeout: 700ms }");
    let (world, alice, home) = start_with_session(conf);
    world.app(&home).freeze();
    let start = Instant::now();
    let answer = alice.request("POST", "/frozen").body("x").fresh().send();
    assert!(matches!(answer.status, 502 | 504), "a gateway's error: {:?}", answer.head);
    assert!(start.elapsed() < Duration::from_secs(5), "after the read timeout: {:?}", start.elapsed());
    world.app(&home).thaw();
    assert_eq!(alice.server(), home, "the session is kept");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn an_error_of_the_application_moves_no_session() {
    let (world, alice, home) = start_with_session(Conf::servers("a b"));
    for code in [500, 502, 503, 504, 404] {
        let answer = alice.get(&format!("/status?code={code}")).expect(code);
        assert_eq!(answer.text(), home, "the server's own answer passes");
    }
    assert_eq!(alice.server(), home);
    world.expect_metric(MOVES, &[], 0.0);
}
