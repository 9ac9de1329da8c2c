//! The trade of a proxy: requests and answers pass whole, in pieces, for a long time, in every form.

use std::thread;
use std::time::Duration;

use crate::world::app::answers::pattern;
use crate::world::h2c::{H2Request, h2, h2_all};
use crate::world::http1::Hash;
use crate::world::net::Address;
use crate::world::websocket::{Frame, is_alive, read_frame, write_frame};
use crate::world::{App, Browser, Conf, PATIENCE, QUICK_CHECK, SESSION_COOKIE, Wire, World, eventually};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const MIB: u64 = 1 << 20;

/// An open WebSocket.
fn websocket(world: &World, cookie: &str) -> Wire {
    let mut wire = handshake(world, cookie);
    assert!(is_alive(&mut wire), "a WebSocket outlives its handshake");
    wire
}

fn handshake(world: &World, cookie: &str) -> Wire {
    let mut wire = world.wire();
    wire.send(format!("{UPGRADE}{cookie}\r\n"));
    let answer = wire.receive("GET").expect(101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    wire
}

fn say(wire: &mut Wire, frame: &Frame) -> Frame {
    write_frame(&mut wire.reader, frame, true).expect("the frame is taken");
    read_frame(&mut wire.reader).expect("a frame comes back").expect("the connection is open")
}

#[test]
fn a_connection_serves_many_requests() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    for n in 0..20 {
        wire.send(format!("GET /echo?n={n} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(wire.receive("GET").expect(200).json()["target"], format!("/echo?n={n}"));
    }
    wire.send("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    wire.receive("GET").expect(200);
    assert!(wire.time_to_close(PATIENCE).is_some(), "and ends when the client says so");
    assert!(world.app("a").connections() <= 3, "connections to the server are used again");
}

#[test]
fn an_old_client_is_answered_and_its_connection_closed() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("GET /plain HTTP/1.0\r\nHost: x\r\n\r\n");
    assert_eq!(wire.receive("GET").expect(200).text(), "a");
    assert!(wire.time_to_close(PATIENCE).is_some());
    let mut wire = world.wire();
    wire.send("GET /chunked HTTP/1.0\r\nHost: x\r\n\r\n");
    let answer = wire.receive("GET").expect(200);
    assert!(!answer.head.has_token("transfer-encoding", "chunked"), "HTTP/1.0 knows no chunks");
    assert_eq!(answer.text(), "a 0\na 1\na 2\n");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let world = World::start(Conf::servers("a b"));
    for _ in 0..10 {
        let mut wire = world.wire();
        wire.send("GET /echo?n=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /echo?n=2 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(wire.receive("GET").expect(200).json()["target"], "/echo?n=1");
        assert_eq!(wire.receive("GET").expect(200).json()["target"], "/echo?n=2");
    }
}

#[test]
fn every_method_passes_with_its_body() {
    let world = World::start(Conf::servers("a"));
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let answer = world.browser().request(method, "/echo?q=%20x&y=").body("body").send().expect(200);
        let json = answer.json();
        assert_eq!((json["method"].as_str(), json["target"].as_str()), (Some(method), Some("/echo?q=%20x&y=")));
        assert_eq!(json["body_length"], 4, "{method}");
    }
}

#[test]
fn head_is_answered_with_headers_alone() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = wire.receive("HEAD").expect(200);
    let length: u64 =
        answer.header("content-length").expect("the length of what GET would say").parse().expect("a number");
    assert!(length > 100);
    wire.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.receive("GET").expect(200).text(), "a", "no body came before the next answer");
}

#[test]
fn answers_without_a_body_have_none() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    for (target, status) in [("/status?code=204", 204), ("/304", 304), ("/plain", 200)] {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        wire.receive("GET").expect(status);
    }
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut whole = Vec::new();
    for size in [1, 10, 1000, 100_000] {
        let piece = pattern(size);
        wire.send(format!("{size:x}\r\n"));
        wire.send(&piece);
        wire.send("\r\n");
        whole.extend(piece);
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.receive("POST").expect(200).json()["body_hash"], Hash::of(&whole));
    wire.send("GET /chunked?pieces=50 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.receive("GET").expect(200).text().lines().count(), 50, "the connection is in good order");
    assert_eq!(world.browser().get("/download?bytes=300000&chunked=1").body.len(), 300_000);
}

#[test]
fn a_client_that_asks_first_is_told_to_continue() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(wire.receive_head().status, 100, "before any of the body was sent");
    wire.send("hello");
    assert_eq!(wire.receive("POST").expect(200).json()["body_hash"], Hash::of(b"hello"));
}

#[test]
fn early_hints_arrive_before_the_answer() {
    let world = World::start(Conf::servers("a"));
    let answer = world.browser().get("/early-hints").expect(200);
    assert_eq!(answer.informational.len(), 1);
    assert_eq!(answer.informational[0].word(1), "103");
    assert_eq!(answer.informational[0].header("link"), Some("</style.css>; rel=preload"));
}

/// Memory stays flat while this is done.
fn with_flat_memory(world: &World, work: impl FnOnce()) {
    world.browser().get("/download?bytes=2000000"); // warm
    let before = world.resident_kib();
    let peak = thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let watch = scope.spawn(move || {
            let mut peak = 0;
            while is_done.recv_timeout(Duration::from_millis(20)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                peak = peak.max(world.resident_kib());
            }
            peak.max(world.resident_kib())
        });
        work();
        drop(done);
        watch.join().expect("the watch")
    });
    let grown = peak.saturating_sub(before);
    assert!(grown < 24 * 1024, "a body is streamed, not kept: {grown} KiB more");
}

#[test]
fn a_large_upload_is_streamed() {
    let world = World::start(Conf::servers("a"));
    with_flat_memory(&world, || {
        let mut wire = world.wire();
        wire.send(format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 100 * MIB));
        let (block, mut hash) = (pattern(1 << 20), Hash::new());
        for _ in 0..100 {
            wire.send(&block);
            hash.update(&block);
        }
        let json = wire.receive("POST").expect(200).json();
        assert_eq!(
            (json["body_length"].as_u64(), json["body_hash"].as_str()),
            (Some(100 * MIB), Some(hash.hex().as_str()))
        );
    });
}

#[test]
fn a_large_download_is_streamed() {
    let world = World::start(Conf::servers("a"));
    with_flat_memory(&world, || {
        let mut wire = world.wire();
        wire.send(format!("GET /download?bytes={} HTTP/1.1\r\nHost: x\r\n\r\n", 100 * MIB));
        let answer = wire.receive_head().expect(200);
        let (mut length, mut first) = (0, Vec::new());
        wire.reader
            .body(&answer.head, false, |piece| {
                length += piece.len() as u64;
                if first.len() < 1000 {
                    first.extend_from_slice(piece);
                }
            })
            .expect("the whole body");
        assert_eq!((length, &first[..1000]), (100 * MIB, &pattern(1000)[..]));
    });
}

#[test]
fn an_upload_arrives_while_it_is_being_sent() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n");
    wire.send(pattern(1000));
    eventually(PATIENCE, "the first half arrives", || {
        world.app("a").seen().first().is_some_and(|seen| seen.body_length == 1000)
    });
    wire.send(pattern(1000));
    wire.receive("POST").expect(200);
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("GET /gated?pieces=4 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
    wire.receive_head().expect(200);
    for n in 0..4 {
        let event = wire.reader.chunk().expect("an event").expect("not the end");
        assert_eq!(event, format!("data: {n}\n\n").into_bytes(), "before the next was sent");
        world.app("a").open_gate();
    }
    assert_eq!(wire.reader.chunk().expect("the end"), None);
}

#[test]
fn a_stream_lives_as_long_as_its_server_speaks() {
    let conf = Conf::servers("a").listener("timeouts: { keepalive: 1s, request_header: 1s, request_body: 1s }");
    let world = World::start(conf);
    let answer = world.browser().get("/sse?events=3&every=1500").expect(200);
    assert_eq!(answer.text().matches("data:").count(), 3, "a silent client is not a dead client");
}

#[test]
fn a_websocket_echoes_through_the_proxy() {
    let world = World::start(Conf::servers("a b"));
    let mut wire = websocket(&world, "");
    for frame in [Frame::Text("hello".to_owned()), Frame::Binary(pattern(70_000)), Frame::Text(String::new())] {
        assert_eq!(say(&mut wire, &frame), frame);
    }
    assert_eq!(say(&mut wire, &Frame::Ping(b"x".to_vec())), Frame::Pong(b"x".to_vec()));
    assert_eq!(say(&mut wire, &Frame::Close), Frame::Close);
    assert!(wire.time_to_close(PATIENCE).is_some());
}

#[test]
fn no_websocket_is_cut_right_after_its_handshake() {
    let world = World::start(Conf::servers("a"));
    let cut = (0..400).filter(|_| !is_alive(&mut handshake(&world, ""))).count();
    assert_eq!(cut, 0, "of 400");
}

#[test]
fn a_websocket_comes_home_like_any_request() {
    let world = World::start(Conf::servers("a b c"));
    for _ in 0..3 {
        let alice = world.browser();
        let home = alice.server();
        let cookie = format!("Cookie: {SESSION_COOKIE}={}\r\n", alice.token().expect("a token"));
        let mut wire = websocket(&world, &cookie);
        assert_eq!(say(&mut wire, &Frame::Text("who".to_owned())), Frame::Text(home));
    }
}

#[test]
fn an_idle_websocket_lives_on() {
    let conf = Conf::servers("a")
        .listener("timeouts: { keepalive: 1s, request_header: 1s, request_body: 1s }")
        .pool("connection: { idle_timeout: 1s, read_timeout: 60s }");
    let world = World::start(conf);
    let mut wire = websocket(&world, "");
    thread::sleep(Duration::from_secs(3)); // the passing of time is the subject
    let hello = Frame::Text("still there?".to_owned());
    assert_eq!(say(&mut wire, &hello), hello);
}

#[test]
fn a_websocket_ends_when_its_server_does() {
    let world = World::start(Conf::servers("a b"));
    let mut wire = websocket(&world, "");
    let Frame::Text(server) = say(&mut wire, &Frame::Text("who".to_owned())) else { panic!("a name was expected") };
    world.app(&server).kill();
    assert!(wire.time_to_close(PATIENCE).is_some(), "the client is not left hanging");
}

#[test]
fn a_websocket_that_is_silent_for_too_long_ends_without_an_error_page_in_it() {
    let world = World::start(Conf::servers("a").pool("connection: { read_timeout: 1s }"));
    let mut wire = websocket(&world, "");
    let received = wire.drain(PATIENCE);
    assert_eq!(String::from_utf8_lossy(&received), "", "the client expects frames");
    assert!(wire.time_to_close(PATIENCE).is_some(), "the connection is closed");
    world.expect_metric("homing_upstream_errors_total", &[("kind", "timeout")], 1.0);
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send(format!("{}\r\n", UPGRADE.replace("/ws", "/plain")));
    assert_eq!(wire.receive("GET").expect(200).text(), "a");
}

#[test]
fn http2_without_tls_is_served_on_the_same_port() {
    let world = World::start(Conf::servers("a b"));
    let body = pattern(200_000);
    let answer = h2(&world.address, H2Request::post("/upload", body.clone())).expect(200);
    assert_eq!(answer.json()["body_hash"], Hash::of(&body), "bodies pass");
    assert_eq!(h2(&world.address, H2Request::get("/download?bytes=300000")).expect(200).body.len(), 300_000);
    let streams = (0..50).map(|n| H2Request::get(&format!("/slow?ms=50&n={n}"))).collect();
    for (n, answer) in h2_all(&world.address, streams).into_iter().enumerate() {
        assert_eq!(answer.expect(200).json()["target"], format!("/slow?ms=50&n={n}"), "each stream has its own answer");
    }
    let host = h2(&world.address, H2Request::get("/echo")).received("host");
    assert_eq!(host, ["example.test"], "the authority becomes Host");
}

#[test]
fn a_client_of_http2_comes_home() {
    let world = World::start(Conf::servers("a b c"));
    let first = h2(&world.address, H2Request::get("/echo"));
    let line = first.set_cookie(SESSION_COOKIE).expect("a token").to_owned();
    let cookie = line.split(';').next().expect("the pair");
    for _ in 0..6 {
        let again = h2(&world.address, H2Request::get("/echo").header("cookie", cookie));
        assert_eq!((again.server(), again.set_cookie(SESSION_COOKIE)), (first.server(), None));
    }
}

#[test]
fn a_listener_speaks_only_what_it_is_told() {
    let world = World::start(Conf::servers("a").listener("protocols: [http1]"));
    assert_eq!(world.browser().server(), "a");
    let mut wire = world.wire();
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let answer = wire.drain(Duration::from_secs(1));
    assert!(!answer.starts_with(b"\0\0"), "no HTTP/2 frames here: {answer:?}");
    assert_eq!(world.app("a").requests(), 1, "and no request from it");
}

#[test]
fn ipv6_is_served_and_spoken_to() {
    let yaml = Conf::servers("a").to_string().replace("{{proxy}}", "{{proxy6}}");
    let mut world = World::builder(yaml).with_app(|_| App::reserve_v6("a")).start();
    let address = world.environment.address("proxy6");
    assert!(address.to_string().starts_with("[::1]"), "{address}");
    let alice = Browser::new(address);
    assert_eq!(alice.server(), "a");
    assert_eq!(alice.get("/echo").received("x-forwarded-for"), ["::1"]);
}

#[test]
fn several_listeners_share_the_pools() {
    let yaml = Conf::servers("a b").to_string();
    let yaml = yaml.replace("listeners:\n", "listeners:\n  - { address: \"{{proxy2}}\" }\n");
    let mut world = World::start(yaml);
    let second = world.environment.address("proxy2");
    let alice = world.browser();
    let home = alice.server();
    assert_eq!(alice.copy_at(&second).server(), home, "a session is the same on every listener");
}

#[test]
fn unix_sockets_are_served_and_spoken_to() {
    let yaml = Conf::servers("a").to_string().replace("{{proxy}}", "unix:{{dir}}/proxy.sock");
    let world =
        World::builder(yaml).with_app(|directory| App::at("a", Address::Unix(directory.join("a.sock")), None)).start();
    let address = Address::Unix(world.directory().join("proxy.sock"));
    let alice = Browser::new(address);
    for _ in 0..3 {
        assert_eq!(alice.server(), "a");
    }
    world.app("a").kill();
    alice.get("/echo").expect(503);
    world.app("a").start();
    assert_eq!(alice.server(), "a");
}

#[test]
fn a_request_whose_client_leaves_is_not_left_running() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("GET /gated HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.receive_head().expect(200);
    let flying = [("pool", "web"), ("server", "a")];
    world.expect_metric("homing_server_requests_in_flight", &flying, 1.0);
    wire.reader.stream.reset_on_close();
    drop(wire);
    eventually(PATIENCE, "nothing in flight", || world.metric("homing_server_requests_in_flight", &flying) == 0.0);
    assert_eq!(world.browser().server(), "a");
}

#[test]
fn servers_that_speak_http2_are_checked_and_spoken_to() {
    let inner = World::start(Conf::servers("a").listener("protocols: [h2c]"));
    let outer = Conf::servers("a").address("a", &inner.address.to_string());
    let outer = outer.pool("connection: { protocol: h2 }").pool(QUICK_CHECK).persistence("cookie: { name: OUTER }");
    let world = World::start(outer);
    let alice = world.browser();
    for n in 0..20 {
        let answer = alice.request("POST", &format!("/echo?n={n}")).body(b"to and fro").send();
        assert_eq!(answer.server(), "a");
        assert_eq!(answer.json()["body_length"], 10);
    }
    world.expect_metric("homing_health_checks_total", &[("result", "failure")], 0.0);
}
