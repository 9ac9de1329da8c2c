//! The tests' own tools, tested: servers, browsers and readers, without a proxy.

use std::time::Duration;

use crate::world::app::answers::{ODD_SET_COOKIES, pattern};
use crate::world::client::Wire;
use crate::world::http1::Hash;
use crate::world::metrics::Metrics;
use crate::world::websocket::{Frame, read_frame, write_frame};
use crate::world::{App, Browser, Conf, World, eventually};

fn started() -> App {
    let app = App::reserve("a");
    app.start();
    app
}

#[test]
fn a_browser_keeps_the_applications_session() {
    let app = started();
    let browser = Browser::new(app.address());
    let first = browser.get("/cart");
    assert_eq!(first.server(), "a");
    assert!(first.set_cookie("APPSESSION").is_some(), "a new session is told to the client");
    let second = browser.post("/cart", "milk");
    assert_eq!(second.json()["visits"], 2, "the session is known again");
    assert_eq!(second.json()["body_hash"], Hash::of(b"milk"));
    assert_eq!(second.set_cookie("APPSESSION"), None);
    assert_eq!(app.connections(), 1, "the connection was kept");
    assert_eq!((app.count("GET", "/cart"), app.count("POST", "/cart")), (1, 1));
}

#[test]
fn a_killed_server_refuses_and_comes_back_on_the_same_port() {
    let app = started();
    let browser = Browser::new(app.address());
    browser.get("/");
    app.kill();
    assert!(!app.address().is_listening(), "a dead server refuses");
    assert!(browser.request("GET", "/").try_send().is_err(), "nothing answers");
    app.start();
    let back = browser.get("/");
    assert_eq!(back.json()["visits"], 1, "a restarted server has forgotten its sessions");
}

#[test]
fn a_frozen_server_answers_when_it_thaws() {
    let app = started();
    app.freeze();
    let mut wire = Wire::connect(&app.address());
    wire.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(wire.drain(Duration::from_millis(200)).is_empty(), "a frozen server is silent");
    app.thaw();
    assert_eq!(wire.receive("GET").status, 200);
}

#[test]
fn a_black_hole_neither_takes_nor_refuses() {
    let app = started();
    app.blackhole();
    let answer = std::net::TcpStream::connect_timeout(&app.socket_address(), Duration::from_millis(200));
    assert_eq!(answer.expect_err("no connection").kind(), std::io::ErrorKind::TimedOut);
    app.start();
    assert_eq!(Browser::new(app.address()).server(), "a");
}

#[test]
fn each_way_to_fail_is_seen_by_the_client() {
    let app = started();
    let browser = Browser::new(app.address());
    assert!(browser.request("GET", "/reset").try_send().is_err(), "a reset is no answer");
    assert!(browser.request("GET", "/die-midway").try_send().is_err(), "half an answer is none");
    assert!(browser.request("GET", "/die-midway?chunked=1").try_send().is_err(), "half an answer is none");
    assert!(browser.request("GET", "/garbage").try_send().is_err(), "garbage is no answer");
    assert_eq!(browser.get("/reset?only=b").server(), "a", "only the named server fails");
    let teapot = "/raw?bytes=HTTP/1.1%20418%20Teapot%0d%0aContent-Length:%200%0d%0a%0d%0a";
    assert_eq!(browser.request("GET", teapot).fresh().send().status, 418);
    browser.get("/");
    app.reset_next_reused();
    assert!(browser.request("GET", "/").try_send().is_err(), "a reused connection is reset");
    assert_eq!(browser.server(), "a", "a new connection is not");
}

#[test]
fn every_kind_of_answer_is_read_whole() {
    let app = started();
    let browser = Browser::new(app.address());
    assert_eq!(browser.get("/chunked?pieces=2").text(), "a 0\na 1\n");
    assert_eq!(browser.get("/sse?events=2&every=1").text(), "data: 0\n\ndata: 1\n\n");
    assert_eq!(browser.get("/download?bytes=100000").body.len(), 100_000);
    let chunked = browser.get("/download?bytes=100000&chunked=1").body;
    assert_eq!(chunked[..1000], pattern(1000), "the pattern is recognised");
    assert_eq!(browser.get("/304").status, 304);
    assert_eq!(browser.get("/status?code=503").status, 503);
    assert_eq!(browser.get("/set-cookies").all("set-cookie"), ODD_SET_COOKIES);
    assert_eq!(browser.get("/early-hints").informational.len(), 1);
    assert_eq!(browser.request("HEAD", "/echo").send().body, b"");
    app.open_gate();
    assert_eq!(browser.get("/gated").text(), "data: 0\n\ndata: 1\n\n");
}

#[test]
fn a_websocket_echoes() {
    let app = started();
    let mut wire = Wire::connect(&app.address());
    wire.send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    let answer = wire.receive("GET");
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for frame in [Frame::Text("x".repeat(70_000)), Frame::Binary(vec![1; 300]), Frame::Text("hello".to_owned())] {
        write_frame(&mut wire.reader, &frame, true).expect("written");
        assert_eq!(read_frame(&mut wire.reader).expect("read"), Some(frame));
    }
}

#[test]
fn a_templates_names_become_addresses_and_servers() {
    let mut environment = World::builder(Conf::servers("a b").server("b", "weight: 0")).without_proxy();
    let text = std::fs::read_to_string(environment.config()).expect("the file is written");
    assert!(!text.contains("{{"), "everything is replaced:\n{text}");
    assert!(text.contains(&format!("address: \"{}\", weight: 0", environment.app("b").address())), "{text}");
    assert!(environment.app("a").address().is_listening(), "named servers run");
    let other = environment.render_for("-x");
    assert_ne!(other, text, "another proxy has addresses of its own");
    eventually(Duration::from_secs(1), "nothing", || true);
}

#[test]
fn metrics_are_read_with_their_labels() {
    let metrics = Metrics::parse("# HELP x y\nx{a=\"1\",b=\"two, \\\"2\\\"\"} 3\nx{a=\"2\"} 4\ny 1e3\n");
    assert_eq!(metrics.sum("x", &[]), 7.0);
    assert_eq!(metrics.sum("x", &[("b", "two, \"2\"")]), 3.0);
    assert_eq!(metrics.sum("y", &[]), 1000.0);
    assert!(!metrics.has("z", &[]));
}
