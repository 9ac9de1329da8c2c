//! What is open to a server ends with it: when it is found down at once, in `maint` and when it is removed after a grace.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::world::client::request_text;
use crate::world::h2c::{H2Request, h2_try};
use crate::world::http1::Head;
use crate::world::net::Address;
use crate::world::websocket::is_alive;
use crate::world::{App, Browser, Conf, PATIENCE, QUICK_CHECK, SESSION_COOKIE, Wire, World, eventually};

/// Longer than any test waits for an end.
const FOREVER: &str = "600000";
/// The proxy looks at its servers every 100 ms. What must not be ended is still open after several looks: there is no event to
/// wait for.
const SEVERAL_PASSES: Duration = Duration::from_secs(1);
/// As `proxy.shutdown_grace` in these tests.
const GRACE: Duration = Duration::from_secs(2);
const MOVES: &str = "homing_session_moves_total";

fn conf() -> Conf {
    conf_of("a b")
}

fn conf_of(servers: &str) -> Conf {
    Conf::servers(servers)
        .listener("protocols: [http1, h2c]")
        .pool(QUICK_CHECK)
        .pool("connection: { read_timeout: 10m }")
        .top("proxy: { shutdown_grace: 2s }")
}

/// A client on its server, with what names it.
struct Client {
    browser: Browser,
    home: String,
    cookie: String,
}

fn client(world: &World) -> Client {
    let browser = world.browser();
    let home = browser.server();
    let cookie = format!("{SESSION_COOKIE}={}", browser.token().expect("a token"));
    Client { browser, home, cookie }
}

impl Client {
    fn begin(&self, address: &Address, method: &str, target: &str, headers: &[(&str, &str)]) -> Wire {
        let own = [("Host", "example.test"), ("Cookie", &self.cookie)];
        let headers: Vec<_> = own.iter().chain(headers).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut wire = Wire::connect(address);
        wire.send(request_text(method, target, &headers, b""));
        wire
    }

    fn websocket(&self, address: &Address) -> Wire {
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut wire = self.begin(address, "GET", "/ws", &upgrade);
        wire.receive("GET").expect(101);
        assert!(is_alive(&mut wire));
        wire
    }

    fn events(&self, address: &Address) -> (Wire, Head) {
        let mut wire = self.begin(address, "GET", &format!("/sse?events=2&every={FOREVER}"), &[]);
        let head = wire.receive_head().expect(200).head;
        (wire, head)
    }
}

/// A response over HTTP/2, on a thread of its own.
fn over_http2(address: &Address, client: &Client, target: &str) -> thread::JoinHandle<Result<u16, String>> {
    let (address, request) = (address.clone(), H2Request::get(target).header("cookie", &client.cookie));
    thread::spawn(move || h2_try(&address, vec![request]).remove(0).map(|response| response.status))
}

/// Waits until so many requests have reached the servers.
fn arrived(world: &World, count: usize, path: &str) {
    let total = || world.apps().map(|app| app.seen().iter().filter(|seen| seen.path() == path).count()).sum::<usize>();
    eventually(PATIENCE, &format!("{count} requests for {path}"), || total() == count);
}

fn other(world: &World, home: &str) -> String {
    world.apps().map(App::name).find(|name| *name != home).expect("another server").to_owned()
}

#[test]
fn websockets_and_streams_of_a_server_that_is_found_down_are_ended_and_their_clients_move() {
    let world = World::start(conf());
    let alice = client(&world);
    let mut websocket = alice.websocket(&world.address);
    let (mut events, head) = alice.events(&world.address);
    let http2 = over_http2(&world.address, &alice, &format!("/sse?events=2&every={FOREVER}"));
    arrived(&world, 2, "/sse");
    world.app(&alice.home).set_health(500);
    assert!(websocket.time_to_close(PATIENCE).is_some(), "the WebSocket ends");
    assert!(events.reader.body(&head, true, |_| {}).is_err(), "the stream ends, and not as if it were whole");
    assert!(http2.join().expect("a client").is_err(), "over HTTP/2 too");
    assert_eq!(alice.browser.server(), other(&world, &alice.home));
    assert_eq!(world.metric(MOVES, &[("reason", "down")]), 1.0);
    assert!(world.log().contains("open connections to the server ended"), "{}", world.log());
}

#[test]
fn streams_of_other_servers_stay() {
    let world = World::start(conf());
    let (alice, mut bob) = (client(&world), client(&world));
    while bob.home == alice.home {
        bob = client(&world);
    }
    let (mut hers, mut his) = (alice.websocket(&world.address), bob.websocket(&world.address));
    world.app(&alice.home).set_health(500);
    assert!(hers.time_to_close(PATIENCE).is_some());
    thread::sleep(SEVERAL_PASSES);
    assert!(is_alive(&mut his));
}

#[test]
fn with_keep_they_stay_when_their_server_is_found_down() {
    let world = World::start(conf().pool("streams_on_down: keep"));
    let alice = client(&world);
    let mut websocket = alice.websocket(&world.address);
    world.app(&alice.home).set_health(500);
    world.wait_for_health(&alice.home, false);
    thread::sleep(SEVERAL_PASSES);
    assert!(is_alive(&mut websocket));
}

#[test]
fn a_request_in_flight_to_a_server_that_is_found_down_goes_elsewhere_when_it_may() {
    let world = World::start(conf());
    let alice = client(&world);
    let slow = format!("/slow?ms={FOREVER}&only={}", alice.home);
    let mut get = alice.begin(&world.address, "GET", &slow, &[("Connection", "close")]);
    let mut post = alice.begin(&world.address, "POST", &slow, &[("Content-Length", "0"), ("Connection", "close")]);
    let mut upload = alice.begin(&world.address, "POST", "/echo", &[("Content-Length", "10"), ("Connection", "close")]);
    upload.send("first");
    let http2 = over_http2(&world.address, &alice, &slow);
    arrived(&world, 3, "/slow");
    world.app(&alice.home).set_health(500);
    assert_eq!(get.receive("GET").server(), other(&world, &alice.home));
    assert_eq!(http2.join().expect("a client"), Ok(200));
    post.receive("POST").expect(502);
    upload.receive("POST").expect(502);
    assert_eq!(world.count("POST", "/slow"), 1, "what may have been acted on is not sent twice");
    assert_eq!(world.metric(MOVES, &[]), 1.0);
}

#[test]
fn a_response_without_a_length_that_is_ended_is_not_passed_on_as_whole() {
    let world = World::start(conf());
    let alice = client(&world);
    let target = format!("/until-close?ms={FOREVER}");
    let mut wire = alice.begin(&world.address, "GET", &target, &[]);
    let head = wire.receive_head().expect(200).head;
    let http2 = over_http2(&world.address, &alice, &target);
    arrived(&world, 2, "/until-close");
    world.app(&alice.home).set_health(500);
    let chunked = head.has_token("transfer-encoding", "chunked");
    assert!(chunked && wire.reader.body(&head, true, |_| {}).is_err(), "{head:?}");
    assert!(http2.join().expect("a client").is_err());
}

#[test]
fn what_is_open_to_a_server_in_maint_is_ended_after_the_grace() {
    let mut world = World::start(conf());
    let alice = client(&world);
    let mut websocket = alice.websocket(&world.address);
    let (mut events, head) = alice.events(&world.address);
    let mut slow = alice.begin(&world.address, "GET", &format!("/slow?ms={FOREVER}&only={}", alice.home), &[]);
    let mut short = alice.begin(&world.address, "GET", &format!("/slow?ms=1000&only={}", alice.home), &[]);
    arrived(&world, 2, "/slow");
    let start = Instant::now();
    world.reload(conf().server(&alice.home, "state: maint"));
    assert_eq!(short.receive("GET").server(), alice.home, "a request has time to finish");
    assert!(is_alive(&mut websocket) || start.elapsed() >= GRACE);
    assert!(websocket.time_to_close(PATIENCE).is_some());
    assert!(start.elapsed() >= GRACE, "{:?}", start.elapsed());
    assert!(events.reader.body(&head, true, |_| {}).is_err());
    assert_eq!(slow.receive("GET").server(), other(&world, &alice.home), "it may go to another server");
    assert_eq!(alice.browser.server(), other(&world, &alice.home));
}

#[test]
fn a_server_that_leaves_maint_within_the_grace_keeps_what_is_open() {
    let mut world = World::start(conf());
    let alice = client(&world);
    let mut websocket = alice.websocket(&world.address);
    world.reload(conf().server(&alice.home, "state: maint"));
    world.reload(conf());
    thread::sleep(GRACE + SEVERAL_PASSES);
    assert!(is_alive(&mut websocket));
    assert_eq!(alice.browser.server(), alice.home);
}

#[test]
fn reloads_that_replace_other_servers_leave_what_is_open_alone() {
    let mut world = World::start(conf());
    let alice = client(&world);
    let mut websocket = alice.websocket(&world.address);
    let (mut events, _) = alice.events(&world.address);
    for round in 0..5 {
        let other = format!("x{round}");
        world.reload(conf_of(&format!("a b {other}")).address(&other, "127.0.0.1:9"));
        assert!(is_alive(&mut websocket), "reload {round}");
    }
    thread::sleep(GRACE + SEVERAL_PASSES);
    assert!(is_alive(&mut websocket));
    assert!(events.time_to_close(Duration::from_millis(1)).is_none(), "the stream goes on");
    assert_eq!(alice.browser.server(), alice.home);
}

#[test]
fn a_draining_server_keeps_what_is_open() {
    let mut world = World::start(conf());
    let alice = client(&world);
    let mut websocket = alice.websocket(&world.address);
    world.reload(conf().server(&alice.home, "state: drain"));
    thread::sleep(GRACE + SEVERAL_PASSES);
    assert!(is_alive(&mut websocket));
}

#[test]
fn what_is_open_to_a_removed_server_is_ended_after_the_grace() {
    let mut world = World::start(conf());
    let alice = client(&world);
    let mut websocket = alice.websocket(&world.address);
    let (mut events, head) = alice.events(&world.address);
    let stays = other(&world, &alice.home);
    let without = Conf::servers(&stays).listener("protocols: [http1, h2c]").pool(QUICK_CHECK);
    let start = Instant::now();
    world.reload(without.pool("connection: { read_timeout: 10m }").top("proxy: { shutdown_grace: 2s }"));
    assert!(is_alive(&mut websocket) || start.elapsed() >= GRACE);
    assert!(websocket.time_to_close(PATIENCE).is_some());
    assert!(start.elapsed() >= GRACE, "{:?}", start.elapsed());
    assert!(events.reader.body(&head, true, |_| {}).is_err());
    assert_eq!(alice.browser.server(), stays);
}

#[test]
fn what_is_open_over_a_unix_socket_is_ended_too() {
    let conf = conf().address("a", "unix:{{dir}}/a.sock").server("b", "backup: true");
    let builder = World::builder(conf);
    let world = builder.with_app(|directory| App::at("a", Address::Unix(directory.join("a.sock")), None)).start();
    let alice = client(&world);
    assert_eq!(alice.home, "a");
    let mut websocket = alice.websocket(&world.address);
    let (mut events, head) = alice.events(&world.address);
    world.app("a").set_health(500);
    assert!(websocket.time_to_close(PATIENCE).is_some());
    assert!(events.reader.body(&head, true, |_| {}).is_err());
}

#[test]
fn streams_over_http2_to_the_server_are_ended_too() {
    // The server that speaks HTTP/2 is another proxy.
    let patient = "connection: { read_timeout: 10m }";
    let inner = World::start(Conf::servers("a").listener("protocols: [h2c]").pool(patient));
    let outer = Conf::servers("a").address("a", &inner.address.to_string()).pool(QUICK_CHECK);
    let world = World::start(outer.pool("connection: { protocol: h2, read_timeout: 10m }"));
    let mut wire = world.wire();
    wire.send(format!("GET /sse?events=2&every={FOREVER} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let head = wire.receive_head().expect(200).head;
    inner.app("a").set_health(500);
    assert!(wire.reader.body(&head, true, |_| {}).is_err());
}

/// The timers of established connections with this local or remote port: local port, remote port, timer.
#[cfg(target_os = "linux")]
fn timers(port: u16) -> Vec<(u16, u16, String)> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the system's connections");
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap_or_default(), 16).unwrap_or(0);
    let established = lines.filter(|words| words[3] == "01");
    let all = established.map(|words| (port_of(words[1]), port_of(words[2]), words[5][..2].to_owned()));
    all.filter(|(local, remote, _)| *local == port || *remote == port).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn connections_on_both_sides_are_probed_while_they_are_silent() {
    const KEEPALIVE: &str = "02";
    let world = World::start(conf());
    let alice = client(&world);
    let _websocket = alice.websocket(&world.address);
    let _events = alice.events(&world.address);
    let (clients, servers) = (world.address.port(), world.app(&alice.home).address().port());
    eventually(PATIENCE, "both sides of both connections have a keepalive timer", || {
        let to_clients = timers(clients).into_iter().filter(|(local, ..)| *local == clients);
        let to_servers = timers(servers).into_iter().filter(|(_, remote, _)| *remote == servers);
        let probed = |timer: &str| timer == KEEPALIVE;
        let (to_clients, to_servers): (Vec<_>, Vec<_>) = (to_clients.collect(), to_servers.collect());
        to_clients.len() >= 2
            && to_clients.iter().all(|(.., timer)| probed(timer))
            && to_servers.len() >= 2
            && to_servers.iter().all(|(.., timer)| probed(timer))
    });
}
