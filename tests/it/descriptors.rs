//! The proxy runs out of file descriptors: that is its own trouble, and no server's.

use std::io::ErrorKind;

use rlimit::Resource;

use crate::world::app::answers::saying;
use crate::world::client::{Response, Wire};
use crate::world::proxy::Launch;
use crate::world::stores::{Kind, RedisServer};
use crate::world::{Browser, Conf, Environment, PATIENCE, Proxy, QUICK_CHECK, World, eventually};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const EXHAUSTED: &str = "homing_resource_exhausted_total";
const MOVES: &str = "homing_session_moves_total";

/// Servers, and a proxy that may have so many files open.
fn limited(conf: &Conf, descriptors: u64) -> (Environment, Proxy) {
    let mut environment = World::builder(conf).without_proxy();
    let launch = Launch { descriptors: Some(descriptors), ..environment.launch("") };
    let proxy = Proxy::start(&launch, environment.directory());
    (environment, proxy)
}

/// A browser, and the server that it is at home on. The server closes each connection, so that the next request needs a
/// fresh one.
fn log_in(proxy: &Proxy) -> (Browser, String) {
    let browser = proxy.browser();
    let home = browser.get("/close").expect(200).text();
    (browser, home)
}

/// Opens WebSockets, each with a connection on both sides, until one is refused.
fn open_websockets(proxy: &Proxy) -> (Vec<Wire>, Response) {
    let mut open = Vec::new();
    loop {
        let mut wire = proxy.wire();
        wire.send(format!("{UPGRADE}\r\n"));
        let response = wire.receive("GET");
        if response.status != 101 {
            return (open, response);
        }
        open.push(wire);
        assert!(open.len() < 1000, "the limit is never reached");
    }
}

fn expect_refusal(response: &Response) {
    assert_eq!(response.status, 503, "{:?} {}", response.head, response.text());
    assert!(response.header("retry-after").is_some(), "{:?}", response.head);
    assert!(response.set_cookies("SESSIONID").is_empty(), "the binding stays: {:?}", response.head);
}

fn expect_nothing_happened_to_servers(proxy: &Proxy, servers: &[&str]) {
    let metrics = proxy.metrics();
    for server in servers {
        assert!((metrics.sum("homing_server_up", &[("server", server)]) - 1.0).abs() < 0.1, "{server} is up");
    }
    for metric in [MOVES, "homing_upstream_errors_total"] {
        assert!(metrics.sum(metric, &[]) < 0.5, "no {metric}:\n{}", metrics.text);
    }
    for outcome in ["moved", "borrowed"] {
        let count = metrics.sum("homing_session_outcomes_total", &[("outcome", outcome)]);
        assert!(count < 0.5, "{count} were {outcome}");
    }
    assert!(!proxy.log().contains("server does not accept connections"), "{}", proxy.log());
    assert!(!proxy.log().contains("is down"), "{}", proxy.log());
}

#[test]
fn sessions_stay_and_metrics_answer_while_the_proxy_is_out_of_descriptors() {
    let (_environment, proxy) = limited(&Conf::servers("a b c").pool(QUICK_CHECK), 120);
    let clients: Vec<_> = (0..12).map(|_| log_in(&proxy)).collect();
    let (open, refused) = open_websockets(&proxy);
    expect_refusal(&refused);
    assert!(open.len() > 10, "there was room for {} only", open.len());
    for (n, (client, home)) in clients.iter().enumerate() {
        let response = if n % 2 == 0 { client.get("/close") } else { client.post("/close", "order") };
        match response.status {
            200 => assert_eq!(&response.text(), home),
            _ => expect_refusal(&response),
        }
        let newcomer = proxy.browser().get("/close");
        if newcomer.status != 200 {
            expect_refusal(&newcomer);
        }
    }
    // The admin address answers: readiness and metrics.
    assert_eq!(proxy.readiness(), Some(200));
    assert!(proxy.metric(EXHAUSTED, &[("resource", "descriptors")]) >= 1.0, "counted apart");
    let checks = || proxy.metric("homing_health_checks_total", &[("result", "success")]);
    let before = checks();
    eventually(PATIENCE, "health checks go on", || checks() >= before + 6.0);
    drop(open);
    for (client, home) in &clients {
        let mut status = 0;
        eventually(PATIENCE, "the descriptors are free again", || {
            let response = client.get("/close");
            status = response.status;
            assert!(status == 503 || &response.text() == home, "every session comes home");
            status == 200
        });
    }
    expect_nothing_happened_to_servers(&proxy, &["a", "b", "c"]);
    let log = proxy.log();
    let lines = log.lines().filter(|line| line.contains("resource=\"descriptors\"")).count();
    assert!((1..=3).contains(&lines), "one line in ten seconds, not {lines}:\n{log}");
}

#[test]
fn idle_clients_alone_do_not_keep_the_others_from_being_served() {
    let (_environment, proxy) = limited(&Conf::servers("a b"), 120);
    let (alice, home) = log_in(&proxy);
    let mut idle = Vec::new();
    let refused = loop {
        let mut wire = proxy.wire();
        wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = wire.receive("GET");
        if response.status != 200 {
            break response;
        }
        idle.push(wire);
        assert!(idle.len() < 1000, "the limit is never reached");
    };
    expect_refusal(&refused);
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(proxy.metric("homing_requests_rejected_total", &[("reason", "descriptors")]) >= 1.0);
    for wire in &mut idle {
        wire.send("GET /close HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(wire.receive("GET").status, 200, "descriptors are kept back for its server");
    }
    drop(idle);
    eventually(PATIENCE, "room for new clients", || alice.get("/close").status == 200);
    assert_eq!(alice.get("/close").text(), home);
}

#[test]
fn a_client_that_is_refused_and_sends_nothing_is_closed_soon() {
    let (_environment, proxy) = limited(&Conf::servers("a"), 96);
    let mut silent: Vec<Wire> = (0..120).map_while(|_| Wire::try_connect(&proxy.address).ok()).collect();
    assert_eq!(proxy.readiness(), Some(200), "the admin address answers");
    let mut last = silent.pop().expect("connections");
    assert!(last.time_to_close(PATIENCE).is_some(), "the connection above the limit ends");
}

/// Nothing at all can be opened, not even what is kept back.
struct Choked<'a>(&'a Proxy, (u64, u64));

impl<'a> Choked<'a> {
    fn begin(proxy: &'a Proxy) -> Self {
        let pid = proxy.pid().as_raw();
        let (mut soft, mut hard) = (0, 0);
        rlimit::prlimit(pid, Resource::NOFILE, None, Some((&mut soft, &mut hard))).expect("its limit");
        // The standard streams have all numbers below.
        rlimit::prlimit(pid, Resource::NOFILE, Some((3, hard)), None).expect("another limit");
        Self(proxy, (soft, hard))
    }
}

impl Drop for Choked<'_> {
    fn drop(&mut self) {
        rlimit::prlimit(self.0.pid().as_raw(), Resource::NOFILE, Some(self.1), None).expect("its limit");
    }
}

/// Clients whose connections are open, before nothing can be opened any more.
fn choke(
    conf: &Conf,
    clients: usize,
    during: impl FnOnce(&Environment, &[(Browser, String)]),
) -> (Environment, Proxy, Vec<(Browser, String)>) {
    let mut environment = World::builder(conf).without_proxy();
    let proxy = Proxy::start(&environment.launch(""), environment.directory());
    let clients: Vec<_> = (0..clients).map(|_| log_in(&proxy)).collect();
    let choked = Choked::begin(&proxy);
    during(&environment, &clients);
    drop(choked);
    (environment, proxy, clients)
}

fn expect_all_home(clients: &[(Browser, String)]) {
    for (client, home) in clients {
        client.disconnect();
        assert_eq!(&client.get("/close").expect(200).text(), home);
    }
}

#[test]
fn no_session_moves_and_no_server_is_found_down_when_nothing_can_be_opened() {
    let conf = Conf::servers("a b c").pool(QUICK_CHECK);
    let (_environment, proxy, clients) = choke(&conf, 12, |environment, clients| {
        for (n, (client, _)) in clients.iter().enumerate() {
            let response = if n % 2 == 0 { client.get("/close") } else { client.post("/close", "order") };
            expect_refusal(&response);
        }
        let probes = || ["a", "b", "c"].map(|name| environment.app(name).probes()).iter().sum::<usize>();
        let before = probes();
        std::thread::sleep(std::time::Duration::from_millis(1500)); // some rounds of checks that cannot be carried out
        assert_eq!(probes(), before, "no check arrives");
    });
    expect_all_home(&clients);
    expect_nothing_happened_to_servers(&proxy, &["a", "b", "c"]);
    for (operation, at_least) in [("connect", 12.0), ("health_check", 6.0)] {
        assert!(proxy.metric(EXHAUSTED, &[("operation", operation)]) >= at_least, "{operation}");
    }
    assert!(proxy.metric("homing_health_checks_total", &[("result", "local_error")]) >= 6.0);
    let reasons: Vec<_> = proxy.access_log().iter().map(|line| line["reason"].to_string()).collect();
    assert_eq!(reasons.iter().filter(|reason| reason.contains("local_resources")).count(), 12, "{reasons:?}");
}

/// One failure ejects a server, for a moment.
const BREAKER: &str = "circuit_breaker: { consecutive_failures: 1, ejection_time: 300ms, max_ejected_percent: 100 }";

fn breaker_is(proxy: &Proxy, server: &str, state: &str) -> bool {
    proxy.metric("homing_server_breaker", &[("server", server), ("state", state)]) > 0.5
}

#[test]
fn no_server_is_ejected_when_nothing_can_be_opened() {
    let (_environment, proxy, clients) = choke(&Conf::servers("a b c").pool(BREAKER), 6, |_, clients| {
        for (client, _) in clients {
            expect_refusal(&client.get("/close"));
        }
    });
    for server in ["a", "b", "c"] {
        assert!(breaker_is(&proxy, server, "closed"), "{server}");
    }
    assert!(!proxy.log().contains("server ejected"), "{}", proxy.log());
    expect_all_home(&clients);
    expect_nothing_happened_to_servers(&proxy, &["a", "b", "c"]);
}

#[test]
fn a_test_of_an_ejected_server_that_cannot_be_opened_says_nothing_and_makes_room_for_the_next() {
    let conf = Conf::servers("a b").pool(BREAKER).persistence("on_server_down: borrow");
    let mut environment = World::builder(&conf).without_proxy();
    let proxy = Proxy::start(&environment.launch(""), environment.directory());
    let (client, home) = log_in(&proxy);
    client.get(&format!("/status?code=503&only={home}")).expect(503);
    eventually(PATIENCE, "it is ejected and may be tested", || breaker_is(&proxy, &home, "half_open"));
    let choked = Choked::begin(&proxy);
    expect_refusal(&client.get("/close"));
    drop(choked);
    assert!(breaker_is(&proxy, &home, "half_open"), "no result is not a failure");
    assert_eq!(client.get("/close").expect(200).text(), home, "the next test succeeds");
    eventually(PATIENCE, "it takes requests again", || breaker_is(&proxy, &home, "closed"));
}

#[test]
fn a_websocket_of_a_session_is_refused_and_the_session_stays() {
    let conf = Conf::servers("a b c");
    let (_environment, proxy, clients) = choke(&conf, 6, |_, clients| {
        for (client, _) in clients {
            let upgrade = client.request("GET", "/ws").header("Connection", "Upgrade").header("Upgrade", "websocket");
            let upgrade = upgrade.header("Sec-WebSocket-Version", "13");
            expect_refusal(&upgrade.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").send());
        }
    });
    expect_all_home(&clients);
    expect_nothing_happened_to_servers(&proxy, &["a", "b", "c"]);
}

#[test]
fn no_session_of_any_source_or_policy_leaves_its_server() {
    for (persistence, sets) in [
        ("sources: [learn: { cookie: sid }]", true),
        ("on_server_down: borrow", false),
        ("on_server_down: refuse", false),
        ("hold: 500ms", false),
        ("sources: [client_ip: {}]", false),
    ] {
        let conf = Conf::servers("a b c").persistence(persistence);
        let mut environment = World::builder(&conf).without_proxy();
        let proxy = Proxy::start(&environment.launch(""), environment.directory());
        let clients: Vec<_> = (0..6)
            .map(|n| {
                let client = proxy.browser();
                if sets {
                    client.get(&saying(200, &[&format!("Set-Cookie: sid=s{n}; Path=/")])).expect(200);
                }
                let home = client.get("/close").expect(200).text();
                (client, home)
            })
            .collect();
        let choked = Choked::begin(&proxy);
        let mut refused = 0;
        for (client, home) in &clients {
            let response = client.get("/close");
            // A connection may still be in Pingora's pool.
            if response.status == 200 {
                assert_eq!(&response.text(), home, "{persistence}");
                continue;
            }
            expect_refusal(&response);
            refused += 1;
        }
        assert!(refused > 0, "{persistence}: nothing could be opened");
        drop(choked);
        expect_all_home(&clients);
        expect_nothing_happened_to_servers(&proxy, &["a", "b", "c"]);
    }
}

#[test]
fn a_shared_store_that_cannot_be_connected_to_moves_no_session_and_marks_no_server() {
    let store = RedisServer::start(Kind::Redis);
    let conf = Conf::servers("a b c").pool(QUICK_CHECK).store(&store.entry());
    let (_environment, proxy, clients) = choke(&conf, 6, |_, clients| {
        drop(store.command(&["CLIENT", "KILL", "TYPE", "normal"]));
        for (client, _) in clients {
            expect_refusal(&client.get("/close"));
        }
    });
    expect_all_home(&clients);
    expect_nothing_happened_to_servers(&proxy, &["a", "b", "c"]);
    eventually(PATIENCE, "the store is connected again", || proxy.metric("homing_store_up", &[]) > 0.5);
}

#[test]
fn a_flood_of_connections_leaves_the_admin_address_free() {
    let (_environment, proxy) = limited(&Conf::servers("a"), 96);
    let mut open = Vec::new();
    for _ in 0..300 {
        match Wire::try_connect(&proxy.address) {
            Ok(wire) => open.push(wire),
            Err(error) => assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "it still listens"),
        }
    }
    assert_eq!(proxy.admin("/readyz").status, 200);
    assert!(proxy.metric(EXHAUSTED, &[("operation", "accept")]) >= 1.0);
    drop(open);
    eventually(PATIENCE, "it serves again", || {
        let mut wire = proxy.wire();
        wire.try_send("GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").is_ok()
            && wire.try_receive("GET").is_ok_and(|response| response.status == 200)
    });
}
