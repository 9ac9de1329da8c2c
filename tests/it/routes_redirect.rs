//! Routes that send clients elsewhere.

use crate::routes_match::routed;
use crate::world::h2c::{H2Request, h2};
use crate::world::{Response, World};

const TO_HTTPS: &str = "
  - { name: to-https, redirect: { scheme: https } }
  - { name: shop, pool: shop }
";

/// The proxy before us may say how a client came.
fn behind_tls(routes: &str, pools: &str) -> String {
    routed(routes, pools).replace("address: \"{{proxy}}\"", "address: \"{{proxy}}\", trusted_proxies: [127.0.0.1/32]")
}

fn ask(world: &World, method: &str, host: &str, target: &str, came: &str) -> Response {
    world.browser().request(method, target).host(host).header("X-Forwarded-Proto", came).send()
}

fn location(answer: &Response) -> &str {
    answer.header("location").expect("a location")
}

#[test]
fn http_is_redirected_to_https_and_https_is_served() {
    let world = World::start(behind_tls(TO_HTTPS, "shop"));
    for (host, target, to) in [
        ("shop.example", "/", "https://shop.example/"),
        ("shop.example:8080", "/cart?id=7&x=%2F", "https://shop.example/cart?id=7&x=%2F"),
        ("[::1]:8080", "/a", "https://[::1]/a"),
        ("shop.example", "//evil.example/x", "https://shop.example//evil.example/x"),
    ] {
        let answer = ask(&world, "GET", host, target, "http").expect(308);
        assert_eq!(location(&answer), to);
        assert_eq!((answer.header("content-length"), answer.body.len()), (Some("0"), 0));
        assert_eq!(answer.all("set-cookie").len(), 0, "no session begins");
    }
    assert_eq!(world.app("shop").requests(), 0);
    assert_eq!(ask(&world, "GET", "shop.example", "/cart?id=7", "https").server(), "shop");
}

#[test]
fn the_redirect_may_stand_anywhere_in_the_file() {
    let turned = TO_HTTPS.lines().rev().collect::<Vec<_>>().join("\n") + "\n";
    let world = World::start(behind_tls(&turned, "shop"));
    ask(&world, "GET", "shop.example", "/", "http").expect(308);
    ask(&world, "GET", "shop.example", "/", "https").expect(200);
}

#[test]
fn head_and_post_are_redirected_and_the_connection_stays_unless_a_body_was_left_unread() {
    let world = World::start(behind_tls(TO_HTTPS, "shop"));
    let mut wire = world.wire();
    for (method, body) in [("HEAD", ""), ("GET", ""), ("POST", ""), ("POST", "a=b")] {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        wire.send(format!("{method} /x HTTP/1.1\r\nHost: a.example\r\n{length}\r\n{body}"));
        let answer = wire.receive(method).expect(308);
        assert_eq!(location(&answer), "https://a.example/x", "{method}");
    }
    let answer = h2(&world.address, H2Request { authority: "a.example:80", ..H2Request::post("/x?y", vec![1; 9]) });
    assert_eq!(location(&answer.expect(308)), "https://a.example/x?y", "over HTTP/2 too");
}

#[test]
fn each_part_of_the_url_can_be_replaced() {
    let world = World::start(behind_tls(
        "
  - { name: name, match: { hosts: [old.example, \"*.old.example\"] }, redirect: { host: new.example, status: 301 } }
  - { name: port, match: { path_prefix: /port }, redirect: { scheme: https, port: 8443, status: 307 } }
  - { name: path, match: { path_prefix: /moved }, redirect: { path: /here, status: 303 } }
  - { name: down, match: { path_prefix: /plain }, redirect: { scheme: http, status: 302 } }
",
        "unused",
    ));
    for (host, target, came, status, to) in [
        ("old.example:81", "/x", "http", 301, "http://new.example:81/x"),
        ("www.old.example", "/x", "https", 301, "https://new.example/x"),
        ("a.example:81", "/port", "http", 307, "https://a.example:8443/port"),
        ("a.example", "/moved/far?q=1", "https", 303, "https://a.example/here?q=1"),
        ("a.example:8443", "/plain", "https", 302, "http://a.example/plain"),
    ] {
        let answer = ask(&world, "GET", host, target, came).expect(status);
        assert_eq!(location(&answer), to);
    }
    ask(&world, "GET", "a.example", "/plain", "http").expect(404);
}

#[test]
fn a_host_that_is_none_is_never_echoed() {
    let world = World::start(behind_tls(TO_HTTPS, "shop"));
    for host in ["evil.example%2f", "a.example:99999", "[::1", "a;b", "a.example:", "$(id)"] {
        let mut wire = world.wire();
        wire.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = wire.receive("GET").expect(400);
        assert_eq!(answer.header("location"), None, "{host}");
    }
    let mut wire = world.wire();
    wire.send("GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(location(&wire.receive("GET").expect(308)), "https://a.example/x");
    let mut wire = world.wire();
    wire.send("GET /x HTTP/1.0\r\n\r\n");
    wire.receive("GET").expect(400);
}

#[test]
fn redirects_are_counted_and_logged_with_their_route() {
    let world = World::start(behind_tls(TO_HTTPS, "shop"));
    ask(&world, "GET", "shop.example", "/counted", "http").expect(308);
    world.expect_metric("homing_route_requests_total", &[("route", "to-https"), ("code", "308")], 1.0);
    world.expect_metric("homing_requests_total", &[("pool", "-"), ("code", "308")], 1.0);
    let line = world.access_line("/counted");
    assert_eq!((&line["route"], &line["status"]), (&"to-https".into(), &308.into()), "{line}");
    assert!(line["pool"].is_null() && line["server"].is_null(), "{line}");
}
