//! How names of headers are written: their case means nothing, but some applications look at it.

use crate::world::app::answers::saying;
use crate::world::{Conf, Response, Wire, World};

const PRESERVE: &str = "connection: { preserve_header_case: true }";

/// The names that the server received, as they were written.
fn names(answer: &Response) -> Vec<String> {
    let json = answer.json();
    let headers = json["headers"].as_array().expect("the headers that arrived");
    headers.iter().map(|pair| pair[0].as_str().expect("a name").to_owned()).collect()
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|one| one == name)
}

fn ask(world: &World) -> Response {
    world.browser().request("GET", "/echo").header("X-CaSe-Of-Mine", "1").header("aCCept", "text/html").send()
}

#[test]
fn names_go_on_in_lower_case_as_http2_has_them() {
    let world = World::start(Conf::servers("a"));
    let names = names(&ask(&world));
    for name in ["x-case-of-mine", "accept", "x-forwarded-for", "x-forwarded-proto", "x-request-id"] {
        assert!(has(&names, name), "{name}: {names:?}");
    }
}

#[test]
fn an_application_that_looks_at_the_case_of_names_gets_them_as_they_were_written() {
    let world = World::start(Conf::servers("a").pool(PRESERVE));
    let names = names(&ask(&world));
    for name in ["X-CaSe-Of-Mine", "aCCept", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id"]
    {
        assert!(has(&names, name), "{name}: {names:?}");
    }
}

#[test]
fn a_client_gets_names_as_the_server_wrote_them_only_where_that_is_asked_for() {
    for (conf, name) in
        [(Conf::servers("a"), "x-mY-Answer".to_lowercase()), (Conf::servers("a").pool(PRESERVE), "x-mY-Answer".into())]
    {
        let world = World::start(conf);
        let answer = world.browser().get(&saying(200, &["x-mY-Answer: 1"]));
        assert!(
            answer.head.headers.iter().any(|(one, value)| *one == name && value == "1"),
            "{name}: {:?}",
            answer.head
        );
        assert_eq!(answer.set_cookies("SESSIONID").len(), 1);
    }
}

#[test]
fn a_handshake_of_another_protocol_is_left_as_it_was_written() {
    let world = World::start(Conf::servers("a"));
    let mut wire = Wire::connect(&world.address);
    wire.send(
        "GET /ws HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = wire.receive("GET").expect(101);
    let written: Vec<&str> = answer.head.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(written.contains(&"Sec-WebSocket-Accept") && written.contains(&"Upgrade"), "{written:?}");
    let seen = world.app("a").seen();
    let asked: Vec<&str> = seen[0].head.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(asked.contains(&"Sec-WebSocket-Key"), "{asked:?}");
}

/// A target that was a URL, and a custom reason phrase, go along with the headers.
#[test]
fn nothing_else_of_a_message_changes_with_its_names() {
    let world = World::start(Conf::servers("a"));
    let mut wire = Wire::connect(&world.address);
    wire.send("GET http://example.test/echo?a=%7e HTTP/1.1\r\nHost: example.test\r\nX-Mine: 1\r\n\r\n");
    let answer = wire.receive("GET").expect(200);
    assert_eq!(answer.received("x-mine"), ["1"]);
    assert_eq!(answer.received("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(world.app("a").seen()[0].target, "/echo?a=%7e");

    let raw = "HTTP/1.1 299 Well, well\r\nX-Mine: 2\r\nContent-Length: 0\r\n\r\n";
    let encoded: String = raw.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"));
    wire.send(format!("GET /raw?bytes={encoded} HTTP/1.1\r\nHost: example.test\r\n\r\n"));
    let answer = wire.receive("GET").expect(299);
    assert_eq!(answer.head.first_line, "HTTP/1.1 299 Well, well");
    assert_eq!(answer.header("x-mine"), Some("2"));
}
