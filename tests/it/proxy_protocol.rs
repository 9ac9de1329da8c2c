//! The PROXY protocol: trusted balancers set the client's address, other clients cannot.

use std::time::Duration;

use crate::world::tls::{Authority, Client};
use crate::world::{Conf, PATIENCE, Wire, World};

const TRUSTED: &str = "trusted_proxies: [127.0.0.1/32, 198.51.100.0/24]";
const REQUEST: &str = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n";
const HEADER_1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";

/// A header of version 2.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// `2001:db8::7` to `2001:db8::1`, then a TLV of three bytes.
fn header_2() -> Vec<u8> {
    let address = |last| [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    binary(0x21, 0x21, &[&address(7)[..], &address(1), &[0x12, 0x67, 1, 187], &[0x04, 0, 3, 1, 2, 3]].concat())
}

fn accepting() -> Conf {
    Conf::servers("a").listener(TRUSTED).listener("proxy_protocol: accept")
}

/// Sends a header and a request, and returns what the server heard of the client.
fn client_seen_by_server(world: &World, header: &[u8], request: &str) -> String {
    let mut wire = world.wire();
    wire.send([header, request.as_bytes()].concat());
    wire.receive("GET").expect(200).received("x-forwarded-for").join(" + ")
}

fn is_closed_unanswered(mut wire: Wire) -> bool {
    wire.try_receive_head().is_err() && wire.reader.pending().is_empty()
}

#[test]
fn a_balancer_passes_the_clients_address() {
    let world = World::start(accepting());
    assert_eq!(client_seen_by_server(&world, HEADER_1, REQUEST), "203.0.113.7");
    assert_eq!(world.access_line("/echo")["client_ip"], "203.0.113.7");
    assert_eq!(client_seen_by_server(&world, &header_2(), REQUEST), "2001:db8::7");
    assert_eq!(client_seen_by_server(&world, b"", REQUEST), "127.0.0.1", "health checks come without a header");
}

#[test]
fn the_client_stays_the_client_for_the_whole_connection() {
    let world = World::start(accepting());
    let mut wire = world.wire();
    wire.send(HEADER_1);
    for _ in 0..3 {
        wire.send(REQUEST);
        assert_eq!(wire.receive("GET").expect(200).received("x-forwarded-for"), ["203.0.113.7"]);
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let world = World::start(accepting());
    for (header, client) in [(HEADER_1.to_vec(), "203.0.113.7"), (header_2(), "2001:db8::7")] {
        let mut wire = world.wire();
        for byte in &header {
            wire.send([*byte]);
        }
        wire.send(REQUEST);
        assert_eq!(wire.receive("GET").expect(200).received("x-forwarded-for"), [client]);
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_is_the_peer() {
    let world = World::start(accepting());
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), binary(0x20, 0, b""), binary(0x21, 0x31, &[0; 216])] {
        assert_eq!(client_seen_by_server(&world, &header, REQUEST), "127.0.0.1", "{}", header.escape_ascii());
    }
}

#[test]
fn behind_two_proxies_the_source_of_the_header_decides_whose_word_counts() {
    let world = World::start(accepting());
    let request = "GET /echo HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.99\r\n\r\n";
    let from_our_proxy = b"PROXY TCP4 198.51.100.3 192.0.2.1 4711 443\r\n";
    assert_eq!(client_seen_by_server(&world, from_our_proxy, request), "192.0.2.99, 198.51.100.3");
    assert_eq!(world.access_line("/echo")["client_ip"], "192.0.2.99");
    assert_eq!(client_seen_by_server(&world, HEADER_1, request), "203.0.113.7", "a stranger's word does not count");
}

#[test]
fn a_strangers_header_closes_the_connection() {
    let conf = Conf::servers("a").listener("trusted_proxies: [10.0.0.0/8]").listener("proxy_protocol: accept");
    let world = World::start(conf);
    for header in [HEADER_1.to_vec(), header_2(), binary(0x20, 0, b"")] {
        let mut wire = world.wire();
        wire.send([&header, REQUEST.as_bytes()].concat());
        assert!(is_closed_unanswered(wire), "{}", header.escape_ascii());
    }
    world.expect_metric("homing_requests_rejected_total", &[("reason", "proxy_header")], 3.0);
    assert_eq!(world.count("GET", "/echo"), 0, "no server saw them");
    assert_eq!(
        client_seen_by_server(&world, b"", REQUEST),
        "127.0.0.1",
        "strangers without a header are clients like others"
    );
    assert!(!world.log().contains("PROXY"), "what strangers do fills no log:\n{}", world.log());
}

#[test]
fn where_none_is_expected_a_header_is_a_malformed_request() {
    let world = World::start(Conf::servers("a").listener(TRUSTED));
    let mut wire = world.wire();
    wire.send([HEADER_1, REQUEST.as_bytes()].concat());
    wire.receive("GET").expect(400);
    assert_eq!(world.count("GET", "/echo"), 0);
}

#[test]
fn a_broken_header_closes_the_connection() {
    let world = World::start(accepting());
    for header in [
        b"PROXY TCP4 203.0.113.700 192.0.2.1 4711 443\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes(),
        binary(0x21, 0x11, b"short"),
        binary(0x21, 0x11, &[0; 5000]),
    ] {
        let mut wire = world.wire();
        let _ = wire.try_send([&header, REQUEST.as_bytes()].concat());
        assert!(is_closed_unanswered(wire), "{}", header.escape_ascii());
    }
    world.expect_metric("homing_requests_rejected_total", &[("reason", "proxy_header")], 4.0);
}

#[test]
fn half_a_header_is_not_waited_for_longer_than_a_request() {
    let world = World::start(accepting().listener("timeouts: { request_header: 500ms }"));
    for half in [&HEADER_1[..20], &header_2()[..20]] {
        let mut wire = world.wire();
        wire.send(half);
        let closed = wire.time_to_close(PATIENCE).expect("it is closed");
        assert!(closed > Duration::from_millis(400) && closed < Duration::from_secs(5), "{closed:?}");
    }
    world.expect_metric("homing_requests_rejected_total", &[("reason", "proxy_header")], 2.0);
    assert!(world.wire().time_to_close(PATIENCE).is_some(), "nor is nothing at all");
    world.expect_metric("homing_requests_rejected_total", &[("reason", "proxy_header")], 2.0);
}

#[test]
fn a_reload_switches_it_on() {
    let mut world = World::start(Conf::servers("a").listener(TRUSTED));
    world.reload(accepting());
    assert_eq!(client_seen_by_server(&world, HEADER_1, REQUEST), "203.0.113.7");
}

#[test]
fn over_tls_the_header_comes_before_the_handshake() {
    let authority = Authority::new();
    let conf = accepting().listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let world = World::builder(conf)
        .before(|environment| drop(authority.issue(environment.directory(), "a", &["shop.example.org"])))
        .start();
    for (header, client) in [(HEADER_1.to_vec(), "203.0.113.7"), (header_2(), "2001:db8::7"), (vec![], "127.0.0.1")] {
        let wire = Client::new(&authority).try_connect_after(&world.address, "shop.example.org", &header);
        let mut wire = wire.expect("a handshake after the header");
        wire.send(REQUEST);
        let answer = wire.receive("GET").expect(200);
        assert_eq!(answer.received("x-forwarded-for"), [client]);
        assert_eq!(answer.received("x-forwarded-proto"), ["https"]);
    }
}

#[test]
fn over_tls_a_strangers_header_closes_the_connection_too() {
    let authority = Authority::new();
    let conf = Conf::servers("a")
        .listener("trusted_proxies: [10.0.0.0/8]")
        .listener("proxy_protocol: accept")
        .listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let world = World::builder(conf)
        .before(|environment| drop(authority.issue(environment.directory(), "a", &["shop.example.org"])))
        .start();
    let client = Client::new(&authority);
    assert!(client.try_connect_after(&world.address, "shop.example.org", HEADER_1).is_err());
    world.expect_metric("homing_requests_rejected_total", &[("reason", "proxy_header")], 1.0);
    assert!(client.try_connect(&world.address, "shop.example.org").is_ok());
}
