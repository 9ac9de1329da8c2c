//! Limits of a listener on connections and on heads of requests.

use std::time::Duration;

use crate::world::h2c::{H2Request, h2, h2_try};
use crate::world::tls::{Authority, Client};
use crate::world::{Conf, PATIENCE, Wire, World, eventually};

const LIMITED: &str = "homing_limited_total";
const REQUEST: &str = "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n";

fn limited(limits: &str) -> Conf {
    Conf::servers("a").listener(&format!("limits: {{ {limits} }}"))
}

/// A connection that is served; `None` when it was closed without an answer.
fn connect(world: &World, before: &[u8]) -> Option<Wire> {
    let mut wire = Wire::try_connect(&world.address).ok()?;
    wire.try_send([before, REQUEST.as_bytes()].concat()).ok()?;
    if let Ok(response) = wire.try_receive("GET") {
        response.expect(200);
        return Some(wire);
    }
    assert_eq!(wire.reader.pending(), b"", "closed without an answer");
    None
}

/// The header of a balancer that names a client.
fn from(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6 {} ::1" } else { "TCP4 {} 127.0.0.1" };
    format!("PROXY {} 4711 443\r\n", family.replace("{}", client)).into_bytes()
}

fn behind_a_balancer(limits: &str) -> World {
    let conf = limited(limits).listener("trusted_proxies: [127.0.0.1/32]").listener("proxy_protocol: accept");
    World::start(conf)
}

#[test]
fn exactly_the_limit_of_connections_is_open_and_one_more_is_closed() {
    let world = World::start(limited("connections: 3"));
    let mut open: Vec<_> = (0..3).map(|n| connect(&world, b"").unwrap_or_else(|| panic!("connection {n}"))).collect();
    assert!(connect(&world, b"").is_none(), "the fourth");
    world.expect_metric(LIMITED, &[("limit", "connections"), ("listener", &world.address.to_string())], 1.0);
    for wire in &mut open {
        wire.send(REQUEST);
        wire.receive("GET").expect(200);
    }
    open.pop();
    eventually(PATIENCE, "a closed connection makes room", || connect(&world, b"").is_some());
}

#[test]
fn a_client_has_its_own_limit_of_connections_and_is_a_64_of_ipv6() {
    let world = behind_a_balancer("connections_per_client: 2");
    for (client, same, other) in
        [("203.0.113.7", "203.0.113.7", "203.0.113.8"), ("2001:db8:1:2::7", "2001:db8:1:2:ffff::1", "2001:db8:1:3::7")]
    {
        let _open: Vec<_> = [client, same].map(|client| connect(&world, &from(client)).expect("two are open")).into();
        assert!(connect(&world, &from(same)).is_none(), "a third of {client}");
        assert!(connect(&world, &from(other)).is_some(), "another client");
    }
    world.expect_metric(LIMITED, &[("limit", "connections_per_client")], 2.0);
    let _balancer: Vec<_> = (0..5).map(|_| connect(&world, b"").expect("the balancer itself")).collect();
}

#[test]
fn a_strangers_word_does_not_make_another_client_of_it() {
    let world = World::start(limited("connections_per_client: 1"));
    let _open = connect(&world, b"").expect("the first");
    let mut wire = world.wire();
    let _ = wire.try_send("GET /plain HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
    assert!(wire.try_receive("GET").is_err());
}

#[test]
fn a_slot_is_free_again_however_its_connection_ends() {
    let world = World::start(limited("connections_per_client: 1"));
    let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let endings: [(&str, &str, bool); 9] = [
        ("closed without a request", "", false),
        ("reset without a request", "", true),
        ("closed in a head", "GET /plain HT", false),
        ("reset in a head", "GET /plain HT", true),
        ("closed in a body", "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", false),
        ("reset in a response", "GET /download?bytes=100000000 HTTP/1.1\r\nHost: x\r\n\r\n", true),
        ("malformed", "GET / / HTTP/1.1\r\n\r\n", false),
        ("an upgrade that is reset", upgrade, true),
        ("HTTP/2 that is closed", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", false),
    ];
    for (what, bytes, reset) in endings {
        eventually(PATIENCE, &format!("a place before: {what}"), || {
            world.metric("homing_client_connections", &[]) == 0.0
        });
        let mut wire = world.wire();
        let _ = wire.try_send(bytes);
        if !bytes.is_empty() {
            // The proxy has seen it: it answers, or a part of the request has arrived.
            let _ = wire.drain(Duration::from_millis(100));
        }
        if what != "malformed" {
            eventually(PATIENCE, "it is accepted", || world.metric("homing_client_connections", &[]) == 1.0);
            assert!(connect(&world, b"").is_none(), "{what}: it holds its place while it is open");
        }
        if reset {
            wire.reader.stream.reset_on_close();
        }
        drop(wire);
        eventually(PATIENCE, &format!("a place after: {what}"), || connect(&world, b"").is_some());
    }
    eventually(PATIENCE, "a place for HTTP/2", || world.metric("homing_client_connections", &[]) == 0.0);
    assert_eq!(h2(&world.address, H2Request::get("/plain")).status, 200);
    eventually(PATIENCE, "a place after HTTP/2", || connect(&world, b"").is_some());
}

#[test]
fn a_slot_is_free_again_after_a_failed_handshake_and_a_broken_proxy_header() {
    let authority = Authority::new();
    let conf = limited("connections: 1, connections_per_client: 1")
        .listener("trusted_proxies: [127.0.0.1/32]")
        .listener("proxy_protocol: accept")
        .listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let host = "shop.example.org";
    let world =
        World::builder(conf).before(|environment| drop(authority.issue(environment.directory(), "a", &[host]))).start();
    let broken: [&[u8]; 5] = [
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n\x16\x03\x01\x00\x05hello",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"",
    ];
    for bytes in broken {
        let mut wire = world.wire();
        let _ = wire.try_send(bytes);
        if bytes.len() > 3 {
            assert!(wire.time_to_close(PATIENCE).is_some(), "{}", bytes.escape_ascii());
        }
        drop(wire);
        let before = from("203.0.113.7");
        let mut served = None;
        eventually(PATIENCE, &format!("a place after {}", bytes.escape_ascii()), || {
            served = Client::new(&authority).try_connect_after(&world.address, host, &before).ok();
            served.is_some()
        });
        let mut wire = served.expect("just connected");
        wire.send(REQUEST);
        wire.receive("GET").expect(200);
        assert!(
            Client::new(&authority).try_connect_after(&world.address, host, &before).is_err(),
            "a second one ends before its handshake"
        );
    }
}

#[test]
fn a_reload_keeps_the_counts_and_changes_the_limits() {
    let mut world = World::start(limited("max_headers: 100"));
    let mut open: Vec<_> = (0..2).map(|_| connect(&world, b"").expect("no limit")).collect();
    world.reload(limited("connections: 2"));
    assert!(connect(&world, b"").is_none(), "two are open since before there was a limit");
    world.reload(limited("connections: 3, connections_per_client: 2"));
    assert!(connect(&world, b"").is_none(), "and both are of this client");
    world.reload(limited("connections: 3, connections_per_client: 3"));
    open.push(connect(&world, b"").expect("room for another"));
    world.reload(limited("connections: 1"));
    for wire in &mut open {
        wire.send(REQUEST);
        wire.receive("GET").expect(200);
    }
    assert!(connect(&world, b"").is_none());
    world.reload(limited("connections: null"));
    assert!(connect(&world, b"").is_some());
}

#[test]
fn a_target_of_exactly_the_longest_length_passes_and_a_longer_one_gets_414() {
    let world = World::start(limited("max_uri_length: 100B"));
    let target = |length: usize| format!("/echo?{}", "q".repeat(length - "/echo?".len()));
    for (length, status) in [(100, 200), (101, 414), (5000, 414)] {
        let one = world.browser().request("GET", &target(length)).fresh().send();
        assert_eq!(one.status, status, "{length} bytes over HTTP/1.1: {:?}", one.head);
        assert_eq!(h2(&world.address, H2Request::get(&target(length))).status, status, "{length} bytes over HTTP/2");
    }
    assert_eq!(world.count("GET", "/echo"), 2, "no server saw the others");
    world.expect_metric(LIMITED, &[("limit", "max_uri_length")], 4.0);
    assert_eq!(world.access_line("/echo")["status"], 200);
    let mut refused = None;
    eventually(PATIENCE, "a line of the access log", || {
        refused = world.access_log().into_iter().find(|line| line["status"] == 414);
        refused.is_some()
    });
    let refused = refused.expect("just seen");
    assert_eq!(refused["reason"], "max_uri_length");
    assert_eq!(refused["client_ip"], "127.0.0.1");
}

#[test]
fn a_target_beyond_what_can_be_parsed_gets_414_too() {
    let world = World::start(Conf::servers("a"));
    for length in [16 * 1024 + 1, 65_000, 66_000, 300_000] {
        let mut wire = world.wire();
        let _ = wire.try_send(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "q".repeat(length - 1)));
        wire.receive("GET").expect(414);
    }
    let longest = format!("/echo?{}", "q".repeat(16 * 1024 - "/echo?".len()));
    world.browser().get(&longest).expect(200);
    world.expect_metric(LIMITED, &[("limit", "max_uri_length")], 4.0);
    assert_eq!(world.app("a").requests(), 1);
}

#[test]
fn exactly_the_most_headers_pass_and_more_get_431() {
    let world = World::start(limited("max_headers: 20"));
    let head = |count: usize| {
        let more = (1..count).fold(String::new(), |text, n| text + &format!("X-{n}: {n}\r\n"));
        format!("GET /plain HTTP/1.1\r\nHost: x\r\n{more}\r\n")
    };
    for (count, status) in [(20, 200), (21, 431), (256, 431), (257, 431), (400, 431)] {
        let mut wire = world.wire();
        wire.send(head(count));
        assert_eq!(wire.receive("GET").status, status, "{count} fields at once");
        let mut wire = world.wire();
        let text = head(count);
        let (first, second) = text.split_at(text.len() / 2);
        wire.send(first);
        std::thread::sleep(Duration::from_millis(50)); // so that it comes in two pieces
        let _ = wire.try_send(second);
        assert_eq!(wire.receive("GET").status, status, "{count} fields in two pieces");
    }
    world.expect_metric(LIMITED, &[("limit", "max_headers")], 8.0);
    assert_eq!(world.count("GET", "/plain"), 2, "no server saw the others");
}

#[test]
fn headers_are_counted_over_http2_and_cookies_in_pieces_are_one() {
    const NAMES: [&str; 4] = ["x-1", "x-2", "x-3", "x-4"];
    let world = World::start(limited("max_headers: 4"));
    let with = |names: &[&'static str]| names.iter().fold(H2Request::get("/plain"), |one, name| one.header(name, "1"));
    assert_eq!(h2(&world.address, with(&NAMES)).status, 200);
    assert_eq!(h2(&world.address, with(&NAMES).header("x-5", "1")).status, 431);
    let crumbs = |names| (0..50).fold(with(names), |one, n| one.header("cookie", &format!("c{n}=1")));
    assert_eq!(h2(&world.address, crumbs(&NAMES[..3])).status, 200, "a browser with 50 cookies");
    assert_eq!(h2(&world.address, crumbs(&NAMES)).status, 431);
    let many = (0..2000).fold(H2Request::get("/plain"), |one, _| one.header("x-many", "1"));
    if let Ok(response) = &h2_try(&world.address, vec![many])[0] {
        assert_eq!(response.status, 431);
    }
    assert_eq!(world.count("GET", "/plain"), 2);
}
