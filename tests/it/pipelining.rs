//! Bytes that arrive while a request is served, and clients that close their side of the connection behind it.

use std::io::Write as _;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::world::net::Stream;
use crate::world::tls::{Authority, Client};
use crate::world::websocket::{Frame, read_frame};
use crate::world::{Conf, PATIENCE, Wire, World, eventually};

const HOST: &str = "shop.example.org";

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn posts(target: &str) -> [String; 3] {
    let head = format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\n");
    [
        format!("{head}Content-Length: 5\r\n\r\nhello"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n"),
        format!("{head}Content-Length: 0\r\n\r\n"),
    ]
}

fn expect_echo(wire: &mut Wire, method: &str, target: &str) {
    assert_eq!(wire.receive(method).expect(200).json()["target"], target);
}

#[test]
fn a_hundred_and_forty_seven_pipelined_requests_are_answered_in_order() {
    let world = World::start(Conf::servers("a b"));
    let mut wire = world.wire();
    wire.send((0..147).map(|n| get(&format!("/echo?n={n}"))).collect::<String>());
    for n in 0..147 {
        expect_echo(&mut wire, "GET", &format!("/echo?n={n}"));
    }
}

#[test]
fn a_request_behind_a_body_is_answered_after_it() {
    let world = World::start(Conf::servers("a"));
    for post in posts("/echo?n=1") {
        let all = format!("{post}{}{post}{}", get("/echo?n=2"), get("/echo?n=4")).replacen("n=1", "n=0", 1);
        for cut in [all.len(), 3, all.len() - 3, post.len() - 1, post.len(), post.len() + 1] {
            let mut wire = world.wire();
            let (first, second) = all.split_at(cut);
            wire.send(first);
            thread::sleep(Duration::from_millis(20));
            wire.send(second);
            for (method, n) in [("POST", 0), ("GET", 2), ("POST", 1), ("GET", 4)] {
                expect_echo(&mut wire, method, &format!("/echo?n={n}"));
            }
        }
    }
}

#[test]
fn the_next_request_may_come_while_one_is_served() {
    let world = World::start(Conf::servers("a"));
    for post in posts("/slow?ms=300") {
        let mut wire = world.wire();
        wire.send(&post);
        eventually(PATIENCE, "the server has it", || world.count("POST", "/slow") > 0);
        wire.send(get("/echo?n=2"));
        thread::sleep(Duration::from_millis(20));
        wire.send(get("/echo?n=3"));
        expect_echo(&mut wire, "POST", "/slow?ms=300");
        expect_echo(&mut wire, "GET", "/echo?n=2");
        expect_echo(&mut wire, "GET", "/echo?n=3");
    }
}

#[test]
fn an_empty_line_behind_a_body_is_skipped_whenever_it_comes() {
    let world = World::start(Conf::servers("a"));
    for post in posts("/slow?ms=200") {
        for pause in [0, 50, 400] {
            let mut wire = world.wire();
            wire.send(&post);
            thread::sleep(Duration::from_millis(pause));
            wire.send("\r\n");
            expect_echo(&mut wire, "POST", "/slow?ms=200");
            wire.send("\r\n\r");
            thread::sleep(Duration::from_millis(10));
            wire.send(format!("\n{}", get("/echo")));
            expect_echo(&mut wire, "GET", "/echo");
        }
    }
}

#[test]
fn empty_lines_do_not_keep_an_idle_connection_open() {
    let world = World::start(Conf::servers("a").listener("timeouts: { keepalive: 1s, request_header: 1s }"));
    let mut wire = world.wire();
    wire.send(get("/plain"));
    wire.receive("GET").expect(200);
    let closed =
        (0..60).any(|_| wire.try_send("\r\n").is_err() || wire.time_to_close(Duration::from_millis(100)).is_some());
    assert!(closed, "empty lines are no request");
}

#[test]
fn each_pipelined_request_line_is_checked() {
    let world = World::start(Conf::servers("a"));
    for line in ["GET /bad line HTTP/1.1", "GET /bad\0 HTTP/1.1", "GET /bad\t HTTP/1.1", "GET  /bad HTTP/1.1"] {
        for first in [get("/echo"), posts("/echo")[1].clone()] {
            let mut wire = world.wire();
            wire.send(format!("{first}{line}\r\nHost: {HOST}\r\n\r\n{}", get("/behind")));
            wire.receive(&first[..4]).expect(200);
            wire.receive("GET").expect(400);
            assert!(wire.time_to_close(PATIENCE).is_some(), "{line:?}");
        }
    }
    let reached = world.app("a").seen().iter().any(|seen| seen.target.contains("/b"));
    assert!(!reached, "neither a malformed request nor one behind it");
}

#[test]
fn malformed_chunks_are_the_clients_fault() {
    let world = World::start(Conf::servers("a"));
    for chunks in ["\r\n\r\n", ";\r\n", ";a=b\r\nx", "5;a\nhello\r\n0\r\n\r\n", "5;a\rb\r\nhello\r\n", "x\r\n"] {
        let mut wire = world.wire();
        wire.send(format!("POST /chunks HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        wire.receive("POST").expect(400);
    }
    let whole = world.app("a").seen().iter().filter(|seen| seen.body_complete).count();
    assert_eq!(whole, 0, "no server took one for whole");
}

/// Closes the client's side, and leaves the other open.
fn half_close(wire: &mut Wire) {
    if let Stream::Tls(stream) = &mut wire.reader.stream {
        stream.conn.send_close_notify();
        stream.flush().expect("a close_notify");
    }
    wire.reader.stream.shutdown(Shutdown::Write).expect("a half-closed connection");
}

fn half_closed_clients_are_answered(connect: impl Fn() -> Wire) {
    let mut requests = posts("/slow?ms=1500").to_vec();
    requests.push(get("/slow?ms=1500"));
    for request in requests {
        let mut wire = connect();
        wire.send(&request);
        half_close(&mut wire);
        expect_echo(&mut wire, if request.starts_with('G') { "GET" } else { "POST" }, "/slow?ms=1500");
        assert!(wire.time_to_close(PATIENCE).is_some(), "and then it is closed");
    }
    let mut wire = connect();
    wire.send(format!("{}{}", get("/echo?n=1"), get("/echo?n=2")));
    half_close(&mut wire);
    expect_echo(&mut wire, "GET", "/echo?n=1");
    expect_echo(&mut wire, "GET", "/echo?n=2");
    let mut wire = connect();
    wire.send(get("/sse?events=5&every=500"));
    half_close(&mut wire);
    assert_eq!(wire.receive("GET").expect(200).text().matches("data:").count(), 5, "a whole stream");
}

#[test]
fn a_client_that_closes_its_side_gets_its_response() {
    let world = World::start(Conf::servers("a"));
    half_closed_clients_are_answered(|| world.wire());
}

#[test]
fn a_client_that_closes_its_side_gets_its_response_over_tls() {
    let authority = Authority::new();
    let conf = Conf::servers("a").listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let world =
        World::builder(conf).before(|environment| drop(authority.issue(environment.directory(), "a", &[HOST]))).start();
    let client = Client::new(&authority);
    half_closed_clients_are_answered(|| client.connect(&world.address, HOST));
}

/// How many requests the server is working on.
fn in_flight(world: &World) -> f64 {
    world.metric("homing_server_requests_in_flight", &[("pool", "web"), ("server", "a")])
}

#[test]
fn where_it_is_asked_for_closing_cancels_a_request() {
    let world = World::start(Conf::servers("a").listener("on_client_half_close: cancel"));
    let mut wire = world.wire();
    wire.send(get("/gated"));
    wire.receive_head().expect(200);
    eventually(PATIENCE, "it is in flight", || in_flight(&world) > 0.0);
    half_close(&mut wire);
    eventually(PATIENCE, "nothing in flight", || in_flight(&world) == 0.0);
}

#[test]
fn a_client_that_is_gone_is_noticed_by_its_reset() {
    let world = World::start(Conf::servers("a"));
    for half_closed_before in [false, true] {
        let mut wire = world.wire();
        wire.send(get("/gated"));
        wire.receive_head().expect(200);
        eventually(PATIENCE, "it is in flight", || in_flight(&world) > 0.0);
        if half_closed_before {
            half_close(&mut wire);
            thread::sleep(Duration::from_millis(100));
        }
        wire.reader.stream.reset_on_close();
        drop(wire);
        eventually(PATIENCE, "nothing in flight", || in_flight(&world) == 0.0);
    }
}

#[test]
fn frames_that_come_with_the_handshake_reach_the_websocket() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    let handshake = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A masked text frame; the mask is zero.
    wire.send([handshake.as_bytes(), b"\x81\x85\0\0\0\0hello"].concat());
    wire.receive("GET").expect(101);
    assert_eq!(read_frame(&mut wire.reader).expect("an echo"), Some(Frame::Text("hello".to_owned())));
}
