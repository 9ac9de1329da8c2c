//! What an operator sees: metrics by server, log lines of moves and reloads, the name of the proxy, the client of a refusal.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::world::app::answers::saying;
use crate::world::client::{Wire, request_with};
use crate::world::{Browser, Conf, PATIENCE, World, eventually};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn at(server: &str) -> [(&str, &str); 2] {
    [("pool", "web"), ("server", server)]
}

#[test]
fn responses_are_counted_by_server_and_class_and_timed() {
    let world = World::start(Conf::servers("a"));
    for code in [200, 204, 302, 404, 500, 503] {
        world.browser().get(&format!("/status?code={code}"));
    }
    for (class, count) in [("2xx", 2.0), ("3xx", 1.0), ("4xx", 1.0), ("5xx", 2.0), ("1xx", 0.0)] {
        let labels = [("pool", "web"), ("server", "a"), ("class", class)];
        world.expect_metric("homing_server_responses_total", &labels, count);
    }
    world.expect_metric("homing_server_response_seconds_count", &at("a"), 6.0);
    world.browser().get("/slow?ms=300");
    world.expect_metric("homing_server_response_seconds_count", &at("a"), 7.0);
    let metrics = world.metrics();
    assert!(metrics.sum("homing_server_response_seconds_sum", &at("a")) >= 0.3, "to the first byte");
    let connects = metrics.sum("homing_server_connect_seconds_count", &at("a"));
    assert!((1.0..=7.0).contains(&connects), "new connections only: {connects}");
    assert!(metrics.sum("homing_server_connect_seconds_sum", &at("a")) < 0.3 * connects);
}

#[test]
fn a_response_over_http2_to_the_server_is_counted_too() {
    let world = World::start(Conf::servers("a"));
    let before = world.metric("homing_server_connect_seconds_count", &at("a"));
    let client = world.browser();
    for _ in 0..5 {
        client.get("/plain").expect(200);
    }
    let after = world.metric("homing_server_connect_seconds_count", &at("a"));
    assert!(after - before <= 2.0, "a reused connection is not timed again: {before} {after}");
}

#[test]
fn a_move_is_counted_and_logged_with_both_servers_and_the_reason() {
    let world = World::start(Conf::servers("a b c"));
    let alice = world.browser();
    let home = alice.server();
    world.app(&home).kill();
    let next = alice.server();
    let labels = [("pool", "web"), ("from", home.as_str()), ("to", next.as_str())];
    world.expect_metric("homing_server_moves_total", &labels, 1.0);
    world.expect_metric("homing_server_retries_total", &at(&next), 1.0);
    let log = world.log();
    let line = log.lines().find(|line| line.contains("session moved")).unwrap_or_else(|| panic!("no line:\n{log}"));
    for part in [
        format!("from=\"{home}\""),
        format!("to=\"{next}\""),
        "reason=\"connect_failure\"".into(),
        "pool=web".into(),
        " INFO ".into(),
    ] {
        assert!(line.contains(&part), "{part}: {line}");
    }
}

#[test]
fn the_log_shows_some_of_very_many_moves_and_the_metric_all() {
    let world = World::start(Conf::servers("a b"));
    let clients: Vec<Browser> = (0..120).map(|_| world.browser()).collect();
    let leaving = clients.iter().filter(|client| client.server() == "a").count();
    world.app("a").kill();
    thread::scope(|scope| {
        for part in clients.chunks(30) {
            scope.spawn(move || part.iter().for_each(|client| assert_eq!(client.server(), "b")));
        }
    });
    let moves = u32::try_from(leaving).expect("a number");
    world.expect_metric("homing_server_moves_total", &[("from", "a"), ("to", "b")], f64::from(moves));
    let lines = world.log().lines().filter(|line| line.contains("session moved")).count();
    assert!((10..=leaving).contains(&lines), "{lines} lines for {leaving} moves");
}

#[test]
fn a_session_that_goes_to_another_pool_of_a_split_is_counted_with_that_pool() {
    let conf = "version: 1
listeners: [{ address: '{{proxy}}' }]
admin: { address: '{{admin}}' }
log: { level: info }
keys: [{ id: k1, secret: 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=' }]
routes: [{ name: all, split: [{ pool: one, weight: 50 }, { pool: two, weight: 50 }] }]
pools:
  one: { servers: [{ name: a, address: '{{a}}' }], persistence: {} }
  two: { servers: [{ name: b, address: '{{b}}' }], persistence: {} }
";
    let world = World::start(conf);
    let mut clients = (0..100).map(|_| world.browser());
    let alice = clients.find(|client| client.server() == "a").expect("a client of the first pool");
    world.app("a").kill();
    assert_eq!(alice.server(), "b");
    let labels = [("pool", "one"), ("from", "a"), ("to", "two/b")];
    world.expect_metric("homing_server_moves_total", &labels, 1.0);
}

#[test]
fn connections_of_clients_are_counted_by_listener_while_they_are_open() {
    let mut world = World::start(Conf::servers("a").top("# one listener"));
    let listener = world.environment.address("proxy").to_string();
    let open = |world: &World| world.metric("homing_client_connections", &[("listener", &listener)]);
    eventually(PATIENCE, "the first ones are closed", || open(&world) < 0.5);
    let mut wires: Vec<Wire> = (0..5).map(|_| world.wire()).collect();
    for wire in &mut wires {
        wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(wire.receive("GET").status, 200);
    }
    assert!((open(&world) - 5.0).abs() < 0.5);
    drop(wires);
    eventually(PATIENCE, "they are closed", || open(&world) < 0.5);
}

#[test]
fn event_streams_are_counted_while_they_are_open() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("GET /sse?events=3&every=1000 HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive_head().expect(200);
    world.expect_metric("homing_streams_open", &at("a"), 1.0);
    world.browser().get("/plain").expect(200);
    world.expect_metric("homing_streams_open", &at("a"), 1.0);
    drop(wire);
    world.expect_metric("homing_streams_open", &at("a"), 0.0);
}

#[test]
fn upgraded_streams_are_counted_while_they_are_open_and_their_bytes_as_they_pass() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send(UPGRADE);
    assert_eq!(wire.receive("GET").status, 101);
    world.expect_metric("homing_streams_open", &at("a"), 1.0);
    world.expect_metric("homing_server_responses_total", &[("class", "1xx")], 1.0);
    let bytes = |direction| world.metric("homing_bytes_total", &[("pool", "web"), ("direction", direction)]);
    let before = (bytes("in"), bytes("out"));
    let frame = crate::world::websocket::Frame::Text("x".repeat(1000));
    crate::world::websocket::write_frame(&mut wire.reader, &frame, true).expect("it is taken");
    crate::world::websocket::read_frame(&mut wire.reader).expect("an echo");
    eventually(PATIENCE, "bytes of an open stream are counted", || {
        bytes("in") - before.0 >= 1000.0 && bytes("out") - before.1 >= 1000.0
    });
    drop(wire);
    world.expect_metric("homing_streams_open", &at("a"), 0.0);
}

#[test]
fn bytes_of_bodies_are_counted_both_ways_and_not_twice_for_a_request_that_is_sent_again() {
    let world = World::start(Conf::servers("a b"));
    world.browser().post("/echo", "x".repeat(5000)).expect(200);
    world.expect_metric("homing_bytes_total", &[("pool", "web"), ("direction", "in")], 5000.0);
    let out = world.metric("homing_bytes_total", &[("pool", "web"), ("direction", "out")]);
    let alice = world.browser();
    let home = alice.server();
    // An idempotent method with a body: sent again after the reset.
    let target = format!("/reset?only={home}");
    alice.request("PUT", &target).body("y".repeat(3000)).send();
    world.expect_metric("homing_bytes_total", &[("pool", "web"), ("direction", "in")], 8000.0);
    assert!(out > 0.0);
}

#[test]
fn the_weight_of_a_server_that_gets_no_new_sessions_is_0() {
    let conf = |state: &str| {
        Conf::servers("a b c").server("a", &format!("weight: 3, state: {state}")).server("c", "backup: true")
    };
    let mut world = World::start(conf("ready"));
    let weights = |world: &World| ["a", "b", "c"].map(|server| world.metric("homing_server_weight", &at(server)));
    assert_eq!(weights(&world), [3.0, 1.0, 0.0], "a backup that is not needed");
    for state in ["drain", "maint"] {
        world.reload(conf(state));
        assert_eq!(weights(&world), [0.0, 1.0, 0.0], "{state}");
    }
    assert!((world.metric("homing_server_state", &[("server", "a"), ("state", "maint")]) - 1.0).abs() < 0.1);
    let only_backup = conf("drain").server("b", "state: maint");
    world.reload(only_backup);
    assert_eq!(weights(&world), [0.0, 0.0, 1.0]);
}

#[test]
fn a_reload_says_what_changed_of_a_server_and_of_a_pool() {
    let mut world = World::start(Conf::servers("a b"));
    world.reload(Conf::servers("a b").server("b", "weight: 7, state: drain").pool("balance: random"));
    let log = world.log();
    assert!(log.contains("server web/b changed: weight 1 -> 7, state ready -> drain"), "{log}");
    assert!(log.contains("pool web changed: balance"), "{log}");
}

#[test]
fn the_name_of_the_proxy_stands_in_both_logs_and_in_the_metrics() {
    for format in ["text", "json"] {
        let log = format!("log: {{ level: info, format: {format}, access: \"{{{{access}}}}\" }}");
        let world = World::start(Conf::servers("a").top("proxy: { node: edge-7 }").top(&log));
        world.browser().get("/named").expect(200);
        assert_eq!(world.access_line("/named")["node"], "edge-7");
        assert!(world.metrics().has("homing_build_info", &[("node", "edge-7")]));
        world.stop();
        let log = world.log();
        assert!(log.lines().count() > 0);
        for line in log.lines() {
            let named = match format {
                "json" => serde_json::from_str::<Value>(line).expect("JSON")["node"] == "edge-7",
                _ => line.ends_with(" node=edge-7"),
            };
            assert!(named, "{line}");
        }
    }
}

#[test]
fn a_refused_request_is_logged_with_the_address_of_its_client() {
    let conf = Conf::servers("a").listener("max_header_size: 2KiB, trusted_proxies: [127.0.0.1]");
    let world = World::start(conf.top("log: { level: debug, access: \"{{access}}\" }"));
    let mut wire = world.wire();
    wire.send("TRACE /traced HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.receive("TRACE").status, 405);
    assert_eq!(world.access_line("/traced")["client_ip"], "127.0.0.1");
    let forwarded = ("X-Forwarded-For", "192.0.2.9");
    let large = ("X-Large", "x".repeat(4000));
    request_with(&world.address, "GET", "/large", &[forwarded, (large.0, &large.1)]).expect(431);
    assert_eq!(world.access_line("/large")["client_ip"], "192.0.2.9", "the one that a trusted proxy names");
    eventually(PATIENCE, "the log names both", || {
        let log = world.log();
        let said = |client: &str, reason: &str| {
            let parts = [format!("client={client}"), format!("reason=\"{reason}\"")];
            log.lines().any(|line| parts.iter().all(|part| line.contains(part)))
        };
        said("127.0.0.1", "method") && said("192.0.2.9", "header_too_large")
    });
}

#[test]
fn a_refused_connection_is_logged_with_the_address_of_its_client() {
    let listener = "proxy_protocol: accept, timeouts: { request_header: 300ms }";
    let world = World::start(Conf::servers("a").listener(listener).top("log: { level: debug }"));
    let mut forged = world.wire();
    forged.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    forged.drain(Duration::from_millis(500));
    let mut slow = world.wire();
    slow.send("GET / HT");
    slow.drain(Duration::from_secs(1));
    eventually(PATIENCE, "both are logged", || {
        let log = world.log();
        ["proxy_header", "header_timeout"]
            .iter()
            .all(|reason| log.lines().any(|line| line.contains(reason) && line.contains("client=127.0.0.1")))
    });
}

#[test]
fn a_session_that_stays_moves_no_counter() {
    let world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    alice.get(&saying(200, &["X-Any: 1"])).expect(200);
    alice.server();
    let metrics = world.metrics();
    for metric in ["homing_server_moves_total", "homing_server_retries_total"] {
        assert!(metrics.sum(metric, &[]) < 0.5, "{metric}");
    }
}
