//! Idle sessions leave crowded servers for servers that were added.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::handoff::{ON, shopping};
use crate::snapshot::with_snapshot;
use crate::world::client::request_text;
use crate::world::{Browser, Conf, PATIENCE, SESSION_COOKIE, Wire, World, eventually};

const MOVES: &str = "homing_session_moves_total";
const COMPLETE: &str = "homing_sessions_complete";
const IDLE: Duration = Duration::from_secs(1);
/// The servers are compared once a second.
const COMPARED: Duration = Duration::from_millis(1500);

fn conf(servers: &str, per_minute: u32) -> Conf {
    let rebalance = format!("rebalance: {{ idle_for: 1s, per_minute: {per_minute}, above_mean: 1.2 }}");
    with_snapshot(Conf::servers(servers).pool(&rebalance), "sessions", "1h")
}

/// So many sessions on `a` and `b` alike, in a proxy that knows them all.
fn start(conf: &Conf, count: usize) -> (World, Vec<Browser>) {
    let mut world = World::start(conf);
    let clients: Vec<_> = (0..count).map(|_| world.browser()).collect();
    for client in &clients {
        client.server();
        client.server();
    }
    world.restart_proxy();
    assert_eq!(world.metric(COMPLETE, &[]), 1.0);
    (world, clients)
}

fn servers_of(clients: &[Browser]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for client in clients {
        *counts.entry(client.server()).or_default() += 1;
    }
    counts
}

#[test]
fn sessions_that_were_idle_level_out_over_added_servers_with_the_fewest_moves() {
    let (mut world, clients) = start(&conf("a b", 60_000), 40);
    world.reload(conf("a b c d", 60_000));
    thread::sleep(COMPARED.max(IDLE));
    // A share is 10 and the threshold 12.
    eventually(PATIENCE, "they level out", || {
        let counts = servers_of(&clients);
        thread::sleep(COMPARED.max(IDLE));
        counts.get("a") == Some(&12) && counts.get("b") == Some(&12)
    });
    let counts = servers_of(&clients);
    assert_eq!(counts.values().sum::<usize>(), 40);
    assert!(counts["c"] <= 10 && counts["d"] <= 10, "{counts:?}");
    assert_eq!(world.metric(MOVES, &[("reason", "rebalance")]), 16.0);
    assert_eq!(world.metric(MOVES, &[]), 16.0);
}

#[test]
fn no_more_move_than_per_minute_says() {
    let (mut world, clients) = start(&conf("a b", 30), 20);
    world.reload(conf("a b c d", 30));
    thread::sleep(COMPARED.max(IDLE));
    servers_of(&clients);
    assert_eq!(world.metric(MOVES, &[]), 1.0, "one every two seconds");
}

#[test]
fn sessions_in_use_stay() {
    let conf = |servers: &str| conf(servers, 60_000).pool("connection: { read_timeout: 10m }");
    let (mut world, clients) = start(&conf("a b"), 8);
    world.reload(conf("a b c d"));
    let streams: Vec<_> = clients.iter().map(|client| stream(&world, client)).collect();
    let before = servers_of(&clients);
    thread::sleep(COMPARED.max(IDLE));
    assert_eq!(servers_of(&clients), before, "a stream is open, though the last request was long ago");
    drop(streams);
    eventually(PATIENCE, "then they may leave", || {
        thread::sleep(COMPARED.max(IDLE));
        servers_of(&clients) != before
    });
}

fn stream(world: &World, client: &Browser) -> Wire {
    let cookie = format!("{SESSION_COOKIE}={}", client.token().expect("a token"));
    let headers = [("Host".to_owned(), "example.test".to_owned()), ("Cookie".to_owned(), cookie)];
    let mut wire = Wire::connect(&world.address);
    wire.send(request_text("GET", "/sse?events=2&every=600000", &headers, b""));
    wire.receive_head().expect(200);
    // One that only closed its side might still read (`on_client_half_close`).
    wire.reader.stream.reset_on_close();
    wire
}

#[test]
fn nothing_moves_while_sessions_from_before_the_start_may_be_missing() {
    let mut world = World::start(conf("a b", 60_000));
    let clients: Vec<_> = (0..8).map(|_| world.browser()).collect();
    servers_of(&clients);
    let before = servers_of(&clients);
    assert_eq!(world.metric(COMPLETE, &[]), 0.0);
    world.reload(conf("a b c d", 60_000));
    thread::sleep(COMPARED.max(IDLE));
    assert_eq!(servers_of(&clients), before);
}

#[test]
fn a_cart_goes_with_its_session() {
    let conf = |servers: &str| conf(servers, 60_000).persistence(ON);
    let mut world = World::start(conf("a"));
    let clients: Vec<_> = (0..4).map(|_| world.browser()).collect();
    for client in &clients {
        assert_eq!(shopping(client), "a");
    }
    world.restart_proxy();
    world.reload(conf("a b"));
    thread::sleep(COMPARED.max(IDLE));
    let carts: Vec<String> = clients.iter().map(|client| client.get("/kept-cart").expect(200).text()).collect();
    assert!(carts.iter().all(|cart| cart.starts_with("alice has tea,milk on ")), "{carts:?}");
    assert_eq!(carts.iter().filter(|cart| cart.ends_with(" b")).count(), 2, "{carts:?}");
    assert_eq!(world.metric(MOVES, &[("reason", "rebalance")]), 2.0);
}
