//! Unusual but valid requests reach servers in the usual form.

use crate::world::{Conf, SESSION_COOKIE, World};

/// What the server saw of a request: its target, and its Host lines.
fn seen(world: &World, request: &str) -> (String, Vec<String>) {
    let before = world.app("a").requests();
    let mut wire = world.wire();
    wire.send(request);
    wire.receive("GET").expect(200);
    let seen = world.app("a").seen().swap_remove(before);
    let hosts = seen.head.all("host").into_iter().map(str::to_owned).collect();
    (seen.target, hosts)
}

#[test]
fn an_absolute_target_reaches_the_server_as_its_path() {
    let world = World::start(Conf::servers("a"));
    for (method, target, expected) in [
        ("GET", "http://shop.example/x?y=http://z/", "/x?y=http://z/"),
        ("GET", "HTTP://shop.example/x%2Fy//z", "/x%2Fy//z"),
        ("GET", "https://shop.example/", "/"),
        ("POST", "http://shop.example", "/"),
        ("GET", "http://shop.example?x=1", "/?x=1"),
        ("OPTIONS", "http://shop.example", "*"),
        ("OPTIONS", "http://shop.example/", "/"),
        ("OPTIONS", "*", "*"),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!(seen(&world, &request), (expected.to_owned(), vec!["shop.example".to_owned()]), "{method} {target}");
    }
    let without_host = "GET http://shop.example:81/x HTTP/1.0\r\n\r\n";
    assert_eq!(seen(&world, without_host), ("/x".to_owned(), vec!["shop.example:81".to_owned()]));
    assert_eq!(world.access_line("/x")["host"], "shop.example");
}

#[test]
fn a_session_is_the_same_whichever_form_the_target_has() {
    let world = World::start(Conf::servers("a b c"));
    let alice = world.browser();
    let home = alice.server();
    let token = alice.token().expect("a token");
    for _ in 0..4 {
        let mut wire = world.wire();
        wire.send(format!("GET http://x/echo HTTP/1.1\r\nHost: x\r\nCookie: {SESSION_COOKIE}={token}\r\n\r\n"));
        assert_eq!(wire.receive("GET").server(), home);
    }
}

#[test]
fn a_request_without_host_gets_the_servers_address_as_one() {
    let world = World::start(Conf::servers("a"));
    let address = world.app("a").address().to_string();
    assert_eq!(seen(&world, "GET /echo HTTP/1.0\r\n\r\n"), ("/echo".to_owned(), vec![address]));
    let named = "GET /echo HTTP/1.0\r\nHost: shop.example\r\n\r\n";
    assert_eq!(seen(&world, named).1, ["shop.example"], "unless it has one");
}

#[test]
fn no_client_takes_off_what_the_proxy_sets() {
    let world = World::start(Conf::servers("a"));
    for (sent, options) in [
        ("X-Request-Id", vec!["Connection: X-Request-Id"]),
        ("several", vec!["Connection: close, x-request-id ,X-Forwarded-For, X-Forwarded-Proto,x-forwarded-host"]),
        ("several lines", vec!["Connection: keep-alive", "Connection: X-Request-Id", "Connection: X-Forwarded-For"]),
        ("the usual", vec!["Connection: keep-alive, Upgrade"]),
    ] {
        let mut wire = world.wire();
        wire.send(format!("GET /echo HTTP/1.1\r\nHost: shop.example\r\nX-Own: 1\r\n{}\r\n\r\n", options.join("\r\n")));
        let answer = wire.receive("GET").expect(200);
        assert_eq!(answer.received("x-forwarded-for"), ["127.0.0.1"], "{sent}");
        assert_eq!(answer.received("x-forwarded-proto"), ["http"], "{sent}");
        assert_eq!(answer.received("x-forwarded-host"), ["shop.example"], "{sent}");
        assert_eq!(answer.received("x-request-id").len(), 1, "{sent}");
        assert_eq!(answer.received("x-own"), ["1"], "{sent}");
    }
    let mut wire = world.wire();
    wire.send("GET /echo HTTP/1.1\r\nHost: x\r\nX-Own: 1\r\nConnection: X-Own, X-Request-Id\r\n\r\n");
    let answer = wire.receive("GET").expect(200);
    assert_eq!(answer.received("x-own").len(), 0, "its own fields a client may take off");
    assert_eq!(answer.received("x-request-id").len(), 1);
}
