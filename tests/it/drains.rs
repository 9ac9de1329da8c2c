//! A draining server keeps its sessions until its deadline is over; then they leave, with their data, and not all at once.

use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::admin_api::ask;
use crate::handoff::{handing_over, kill, shopping};
use crate::overrides::with_state_file;
use crate::snapshot::with_snapshot;
use crate::world::app::answers::saying;
use crate::world::client::{get_with, request_text};
use crate::world::websocket::is_alive;
use crate::world::{Browser, Conf, PATIENCE, QUICK_CHECK, SESSION_COOKIE, Wire, World, eventually};

const MOVES: &str = "homing_session_moves_total";
const SESSIONS: &str = "homing_sessions";
const UP: &str = "homing_server_up";

/// The window after it is a second: half of it for sessions, half for streams.
const DEADLINE: Duration = Duration::from_secs(3);

fn with_deadline(conf: Conf) -> Conf {
    conf.pool("drain_deadline: 3s")
}

/// So many clients on this server, each with two requests, so that the table knows them.
pub(crate) fn clients_on(world: &World, server: &str, count: usize) -> Vec<Browser> {
    let mut clients = Vec::new();
    for _ in 0..count * 20 {
        let browser = world.browser();
        if browser.server() == server {
            browser.server();
            clients.push(browser);
        }
        if clients.len() == count {
            return clients;
        }
    }
    panic!("{server} is given few sessions: {}", clients.len());
}

/// Asks until every client is elsewhere; returns when each was first seen there.
pub(crate) fn departures(clients: &[Browser], home: &str) -> Vec<Instant> {
    let mut left = vec![None; clients.len()];
    let start = Instant::now();
    while left.iter().any(Option::is_none) {
        assert!(start.elapsed() < PATIENCE, "they leave: {left:?}");
        for (client, left) in clients.iter().zip(&mut left) {
            let server = client.server();
            match left {
                None if server != home => *left = Some(Instant::now()),
                Some(_) => assert_ne!(server, home, "who has left does not come back"),
                None => {}
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    left.into_iter().flatten().collect()
}

fn assert_spread(departures: &[Instant], started: Instant) {
    let first = departures.iter().min().expect("some");
    let last = departures.iter().max().expect("some");
    assert!(first.duration_since(started) >= DEADLINE, "none before the deadline");
    let spread = last.duration_since(*first);
    assert!(spread >= Duration::from_millis(150), "not at one instant: {spread:?}");
}

#[test]
fn after_the_deadline_sessions_leave_one_after_the_other_and_before_it_none() {
    let conf = || with_deadline(Conf::servers("a b c"));
    let mut world = World::start(conf());
    let clients = clients_on(&world, "b", 12);
    let started = Instant::now();
    world.reload(conf().server("b", "state: drain"));
    assert_spread(&departures(&clients, "b"), started);
    assert_eq!(world.metric(MOVES, &[("reason", "drain")]), 12.0);
    assert_eq!(world.metric(MOVES, &[]), 12.0, "no other session moved");
    assert_eq!(world.metric(SESSIONS, &[("server", "b")]), 0.0);
}

#[test]
fn a_server_that_is_ready_again_in_time_keeps_its_sessions() {
    let conf = || with_deadline(Conf::servers("a b"));
    let mut world = World::start(conf());
    let clients = clients_on(&world, "b", 3);
    world.reload(conf().server("b", "state: drain"));
    thread::sleep(DEADLINE / 2);
    world.reload(conf());
    thread::sleep(DEADLINE / 2 + Duration::from_secs(2));
    world.reload(conf().server("b", "state: drain"));
    for client in &clients {
        assert_eq!(client.server(), "b", "the clock starts again");
    }
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn their_data_goes_with_them() {
    let conf = || with_deadline(handing_over("a b"));
    let mut world = World::start(conf());
    let alice = world.browser();
    let home = shopping(&alice);
    world.reload(conf().server(&home, "state: drain"));
    let next = if home == "a" { "b" } else { "a" };
    let cart = |server: &str| format!("alice has tea,milk on {server}");
    eventually(PATIENCE, "the cart is elsewhere", || {
        let text = alice.get("/kept-cart").expect(200).text();
        assert!(text == cart(&home) || text == cart(next), "{text}");
        text == cart(next)
    });
    assert_eq!(world.metric(MOVES, &[("reason", "drain")]), 1.0);
}

#[test]
fn a_drain_that_a_check_asks_for_shows_its_progress_at_once() {
    let check = QUICK_CHECK.replace("type: http", "type: http, drain_status: [404]");
    let world = World::start(Conf::servers("a b").pool(&check));
    for status in [404, 200, 404, 200, 404] {
        world.app("b").set_health(status);
        let expected = if status == 404 { "drain" } else { "ready" };
        let mut server = Value::Null;
        eventually(PATIENCE, "the check is seen", || {
            server = ask(&world, "GET", "/api/v1/pools", &[], "").json()["items"][0]["servers"][1].clone();
            server["state"] == expected
        });
        if status == 404 {
            assert!(server["drain"]["started"].is_string(), "{server}");
        }
    }
}

#[test]
fn a_server_that_drains_by_its_own_checks_has_a_deadline_too() {
    let check = QUICK_CHECK.replace("type: http", "type: http, drain_status: [404]");
    let world = World::start(with_deadline(Conf::servers("a b").pool(&check)));
    let clients = clients_on(&world, "b", 6);
    let started = Instant::now();
    world.app("b").set_health(404);
    assert_spread(&departures(&clients, "b"), started);
    assert_eq!(world.metric(MOVES, &[("reason", "drain")]), 6.0);
    assert_eq!(world.metric("homing_server_state", &[("server", "b"), ("state", "drain")]), 1.0);
}

#[test]
fn learned_sessions_leave_too() {
    let conf = || with_deadline(Conf::servers("a b").persistence("sources: [{ learn: { cookie: SID } }]"));
    let mut world = World::start(conf());
    let begin = |n: usize| get_with(&world.address, &saying(200, &[&format!("Set-Cookie: SID=id-{n}; Path=/")]), &[]);
    let homes: Vec<_> = (0..8).map(|n| begin(n).server()).collect();
    let server = |world: &World, n: usize| {
        get_with(&world.address, "/plain", &[("Cookie", &format!("SID=id-{n}"))]).expect(200).text()
    };
    world.reload(conf().server("b", "state: drain"));
    let on_b: Vec<_> = (0..8).filter(|n| homes[*n] == "b").collect();
    assert!(!on_b.is_empty());
    for n in &on_b {
        assert_eq!(server(&world, *n), "b");
    }
    eventually(PATIENCE, "they leave", || on_b.iter().all(|n| server(&world, *n) == "a"));
    world.expect_metric(MOVES, &[("reason", "drain")], on_b.len() as f64);
}

#[test]
fn where_no_other_server_can_take_them_sessions_stay() {
    let conf = || with_deadline(Conf::servers("a b").server("a", "state: maint"));
    let mut world = World::start(conf());
    let alice = world.browser();
    assert_eq!(alice.server(), "b");
    let mut stream = websocket(&world, &alice);
    world.reload(conf().server("b", "state: drain"));
    thread::sleep(DEADLINE + Duration::from_secs(2));
    assert_eq!(alice.server(), "b", "better there than nowhere");
    assert!(is_alive(&mut stream));
}

fn websocket(world: &World, client: &Browser) -> Wire {
    let cookie = format!("{SESSION_COOKIE}={}", client.token().expect("a token"));
    let headers = [
        ("Host", "example.test"),
        ("Cookie", &cookie),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut wire = Wire::connect(&world.address);
    wire.send(request_text("GET", "/ws", &headers, b""));
    wire.receive("GET").expect(101);
    wire
}

#[test]
fn streams_are_ended_one_after_the_other_and_their_clients_come_to_another_server() {
    let conf = || with_deadline(Conf::servers("a b").pool("connection: { read_timeout: 10m }"));
    let mut world = World::start(conf());
    let clients = clients_on(&world, "b", 12);
    let streams: Vec<_> = clients.iter().map(|client| websocket(&world, client)).collect();
    let on_a = clients_on(&world, "a", 1);
    let mut untouched = websocket(&world, &on_a[0]);
    let started = Instant::now();
    world.reload(conf().server("b", "state: drain"));
    let ended: Vec<Instant> = thread::scope(|scope| {
        let wait = |mut stream: Wire| {
            move || {
                assert!(stream.time_to_close(PATIENCE).is_some(), "the WebSocket ends");
                Instant::now()
            }
        };
        let threads: Vec<_> = streams.into_iter().map(|stream| scope.spawn(wait(stream))).collect();
        threads.into_iter().map(|thread| thread.join().expect("an end")).collect()
    });
    assert_spread(&ended, started);
    for client in &clients {
        assert_eq!(client.server(), "a", "the first request after the end is for another server");
    }
    assert!(is_alive(&mut untouched), "of other servers none is ended");
}

#[test]
fn a_request_without_a_response_at_the_deadline_goes_to_another_server_if_it_may_be_repeated() {
    let breaker = "circuit_breaker: { consecutive_failures: 1, ejection_time: 1h, max_ejection_time: 1h }";
    let conf = || with_deadline(handing_over("a b").pool("connection: { read_timeout: 10m }").pool(breaker));
    let mut world = World::start(conf());
    let clients = clients_on(&world, "b", 4);
    let slow = "/slow?ms=600000&only=b";
    world.reload(conf().server("b", "state: drain"));
    let statuses: Vec<u16> = thread::scope(|scope| {
        let ask = |(n, client): (usize, &'_ Browser)| {
            let method = if n == 0 { "POST" } else { "GET" };
            client.request(method, slow).send().status
        };
        let asked: Vec<_> = clients.iter().enumerate().map(|asks| scope.spawn(move || ask(asks))).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    assert_eq!(statuses, [502, 200, 200, 200], "a POST is not repeated");
    assert_eq!((world.app("a").count("GET", "/slow"), world.app("a").count("POST", "/slow")), (3, 0));
    for client in &clients {
        assert_eq!(client.server(), "a");
    }
    world.expect_metric(MOVES, &[("reason", "drain")], 4.0);
    world.expect_metric(MOVES, &[], 4.0);
    assert!(!world.log().contains("server ejected"), "what the proxy ends is no failure: {}", world.log());
}

#[test]
fn a_removed_server_drains_first_and_is_gone_when_it_is_empty_or_its_time_is_over() {
    // Time for two reloads on a busy machine.
    let conf = |servers: &str| Conf::servers(servers).pool("drain_deadline: 10s");
    let mut world = World::start(conf("a b c"));
    let clients = clients_on(&world, "b", 4);
    world.reload(conf("a c"));
    for client in &clients {
        assert_eq!(client.server(), "b", "bound sessions stay");
    }
    world.reload(conf("a c").server("a", "weight: 2"));
    assert!((0..8).map(|_| world.browser().server()).all(|server| server != "b"), "it gets no new ones");
    for client in &clients {
        assert_eq!(client.server(), "b", "through another reload");
    }
    departures(&clients, "b");
    assert_eq!(world.metric(MOVES, &[("reason", "removed")]), 4.0);
    eventually(PATIENCE, "it is gone", || !world.metrics().text.contains("server=\"b\",state"));
    assert_eq!(world.log().matches("server web/b removed").count(), 1, "{}", world.log());
    assert!(world.log().contains("removed server has drained"), "{}", world.log());
}

#[test]
fn a_removed_server_comes_back_whole() {
    let conf = |servers: &str| Conf::servers(servers).pool("drain_deadline: 1m");
    let mut world = World::start(conf("a b"));
    let clients = clients_on(&world, "b", 4);
    world.reload(conf("a"));
    assert!(world.metric(UP, &[("server", "b")]) > 0.5);
    world.reload(conf("a b"));
    for client in &clients {
        assert_eq!(client.server(), "b");
    }
    clients_on(&world, "b", 1);
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn a_removed_server_without_a_deadline_is_gone_at_once() {
    let mut world = World::start(Conf::servers("a b"));
    let clients = clients_on(&world, "b", 2);
    world.reload(Conf::servers("a"));
    assert!(clients.iter().all(|client| client.server() == "a"));
}

#[test]
fn a_removed_server_that_dies_loses_its_sessions_like_any_other() {
    let conf = |servers: &str| Conf::servers(servers).pool("drain_deadline: 1m");
    let mut world = World::start(conf("a b"));
    let clients = clients_on(&world, "b", 1);
    world.reload(conf("a"));
    kill(&world, "b", &clients[0]);
    assert_eq!(clients[0].server(), "a");
    assert_eq!(world.metric(MOVES, &[("reason", "connect_failure")]), 1.0);
}

pub(crate) fn millis_ago(ago: Duration) -> u128 {
    (SystemTime::now() - ago).duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis()
}

/// An operator has set this server to drain so long ago.
fn draining_since(server: &str, ago: Duration) -> String {
    let at = millis_ago(ago);
    format!(
        "{{ \"version\": 1, \"servers\": [{{ \"pool\": \"web\", \"server\": \"{server}\", \"state\": \"drain\", \
         \"by\": \"ops\", \"at\": {at}, \"state_at\": {at} }}] }}"
    )
}

#[test]
fn the_clock_of_an_operators_drain_goes_on_over_a_restart() {
    let conf = with_state_file(with_snapshot(Conf::servers("a b").pool("drain_deadline: 1h"), "sessions", "1h"));
    let mut world = World::start(conf);
    let clients = clients_on(&world, "b", 4);
    let restart = |world: &mut World, ago| {
        world.stop_proxy();
        fs::write(world.directory().join("servers.json"), draining_since("b", ago)).expect("a file");
        world.start_proxy();
    };
    restart(&mut world, Duration::from_secs(60));
    assert_eq!(world.metric(SESSIONS, &[("server", "b")]), 4.0);
    assert!(clients.iter().all(|client| client.server() == "b"));
    restart(&mut world, Duration::from_secs(2 * 3600));
    assert!(clients.iter().all(|client| client.server() == "a"), "the deadline was over meanwhile");
    assert_eq!(world.metric(MOVES, &[("reason", "drain")]), 4.0);
}

/// What the admin API says of a server's drain.
fn drain_of(world: &World, server: &str) -> Value {
    let pools = ask(world, "GET", "/api/v1/pools", &[], "").expect(200).json();
    let servers = pools["items"][0]["servers"].as_array().expect("servers").clone();
    servers.into_iter().find(|one| one["name"] == server).expect("the server")["drain"].clone()
}

#[test]
fn a_client_that_has_not_come_back_is_waited_for_over_a_restart_with_a_snapshot() {
    let conf = |idle: &str| {
        let conf = Conf::servers("a b").persistence(&format!("idle_timeout: {idle}"));
        with_state_file(with_snapshot(conf, "sessions", "1h"))
    };
    let mut world = World::start(conf("1h"));
    // Its token is all that there is of its session.
    let alice = (0..20).map(|_| world.browser()).find(|browser| browser.server() == "b").expect("a client of b");
    world.stop_proxy();
    fs::write(world.directory().join("servers.json"), draining_since("b", Duration::from_secs(60))).expect("a file");
    world.start_proxy();
    let drain = drain_of(&world, "b");
    assert_eq!((&drain["bound"], &drain["empty"]), (&json!(0), &json!(false)), "{drain}");
    assert!(drain["silent_until"].is_string(), "{drain}");
    assert_eq!(alice.server(), "b");
    // Tokens of before a drain that has begun longer ago than sessions may be idle.
    world.stop_proxy();
    world.environment.rewrite(conf("30s"));
    world.start_proxy();
    let drain = drain_of(&world, "b");
    assert!(drain["silent_until"].is_null(), "{drain}");
}
