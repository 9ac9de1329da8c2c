//! The token in links, redirects and forms: what happens to answers of every kind. Applications in full are in
//! `apps_links_rewritten`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::world::h2c::{H2Request, h2};
use crate::world::{Browser, Conf, Response, World};

fn rewriting() -> Conf {
    Conf::servers("a b c")
        .persistence("sources: [query: { name: sid, rewrite_links: true }, cookie: {}]")
        .persistence("issue: query")
}

/// The target that makes the application answer with these bytes.
fn raw(bytes: &[u8]) -> String {
    let mut target = "/raw?bytes=".to_owned();
    for byte in bytes {
        target.push_str(&format!("%{byte:02X}"));
    }
    target
}

fn html(lines: &str, body: &[u8]) -> String {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n{lines}\r\n", body.len());
    raw(&[head.as_bytes(), body].concat())
}

fn get(world: &World, target: &str) -> Response {
    world.browser().get(target).expect(200)
}

/// The token in an answer's only link.
fn token_of(answer: &Response) -> String {
    let text = answer.text();
    let (_, after) = text.split_once("sid=").unwrap_or_else(|| panic!("no token in {text}"));
    after.split(['"', '&', '#']).next().expect("a token").to_owned()
}

const LINK: &[u8] = b"<a href='/next?a=1'>next</a>";

#[test]
fn a_link_carries_the_session_and_the_server_sees_nothing_of_it() {
    let world = World::start(rewriting());
    let first = get(&world, &html("", LINK));
    let token = token_of(&first);
    assert_eq!(first.text(), format!("<a href=\"/next?a=1&amp;sid={token}\">next</a>"));
    let answer = get(&world, &format!("/echo?a=1&sid={token}"));
    let home = answer.server();
    assert_eq!(answer.json()["target"], "/echo?a=1", "hidden from the server");
    for target in [format!("/echo?sid={token}"), format!("/echo;sid={token}"), format!("/a;sid={token}/echo?x=1")] {
        let answer = get(&world, &target);
        assert_eq!(answer.server(), home, "{target}");
        assert!(!answer.text().contains(&token), "{}", answer.text());
    }
    assert_eq!(world.metric("homing_session_lookups_total", &[("source", "query"), ("result", "hit")]), 3.0);
    assert_eq!(world.access_line("/a/echo")["source"], "query");
    assert!(world.access_log().iter().all(|line| !line.to_string().contains(&token)), "no token in the access log");
}

#[test]
fn a_request_that_is_refused_leaves_no_token_in_the_access_log_either() {
    let world = World::start(rewriting().listener("max_header_size: 1KiB"));
    let token = token_of(&get(&world, &html("", LINK)));
    let long = "x".repeat(2_000);
    world.browser().request("GET", &format!("/refused;sid={token}")).header("X-Long", &long).send().expect(431);
    assert_eq!(world.access_line("/refused")["status"], 431);
}

#[test]
fn the_page_before_is_told_to_servers_without_its_token() {
    let world = World::start(rewriting());
    let token = token_of(&get(&world, &html("", LINK)));
    let request = world.browser();
    let answer = request.request("GET", "/echo").header("Referer", &format!("http://x/page?sid={token}&b=2#c")).send();
    assert_eq!(answer.received("referer"), ["http://x/page?b=2#c"]);
}

#[test]
fn an_answer_that_carries_a_token_is_kept_from_caches_and_referrers() {
    let world = World::start(rewriting());
    let lines =
        "Cache-Control: public, max-age=60\r\nReferrer-Policy: unsafe-url\r\nETag: \"1\"\r\nLast-Modified: x\r\n";
    let answer = get(&world, &html(lines, LINK));
    assert_eq!(answer.header("cache-control"), Some("max-age=60, private"));
    assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
    for name in ["etag", "last-modified", "content-length"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let careful = get(&world, &html("Referrer-Policy: no-referrer\r\n", LINK));
    assert_eq!(careful.header("referrer-policy"), Some("no-referrer"));
}

#[test]
fn compressed_pages_are_rewritten_too() {
    let world = World::start(rewriting());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(LINK).expect("compressed");
    let answer = get(&world, &html("Content-Encoding: gzip\r\n", &encoder.finish().expect("compressed")));
    assert_eq!(answer.header("content-encoding"), None);
    assert!(!token_of(&answer).is_empty());
    let unknown = get(&world, &html("Content-Encoding: compress\r\n", LINK));
    assert_eq!((unknown.header("content-encoding"), unknown.body.as_slice()), (Some("compress"), LINK), "left alone");
}

#[test]
fn servers_are_asked_for_codings_that_can_be_undone() {
    let world = World::start(rewriting());
    let asked = |accept: &str| {
        world.browser().request("GET", "/echo").header("Accept-Encoding", accept).send().received("accept-encoding")
    };
    assert_eq!(asked("gzip;q=0.5, compress, deflate, br, zstd"), ["gzip;q=0.5, deflate, br, zstd"]);
    assert_eq!(asked("compress"), ["identity"]);
    let cookie = world.browser();
    let token = token_of(&cookie.get(&html("", LINK)));
    cookie.put_cookie(crate::world::SESSION_COOKIE, &token);
    let answer = cookie.request("GET", "/echo").header("Accept-Encoding", "compress").send();
    assert_eq!(answer.received("accept-encoding"), ["compress"], "a client that keeps cookies needs no links");
}

#[test]
fn a_damaged_page_is_broken_off_and_the_next_request_is_served() {
    let world = World::start(rewriting());
    let browser = world.browser();
    let damaged = html("Content-Encoding: gzip\r\n", b"this was never compressed by gzip");
    let answer = browser.request("GET", &damaged).try_send();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 502), "no page is made up");
    browser.get("/echo").expect(200);
}

#[test]
fn parts_other_types_and_heads_are_left_alone() {
    let world = World::start(rewriting());
    let answer = |kind: &str, status: &str, lines: &str| {
        let length = LINK.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{lines}\r\n");
        world.browser().get(&raw(&[head.as_bytes(), LINK].concat()))
    };
    for (kind, status, lines) in [
        ("text/plain", "200 OK", ""),
        ("text/html; charset=utf-16", "200 OK", ""),
        ("text/html", "206 Partial Content", "Content-Range: bytes 0-27/100\r\n"),
    ] {
        let answer = answer(kind, status, lines);
        assert_eq!(answer.body, LINK, "{kind} {status}");
        assert_eq!(answer.header("content-length"), Some("28"));
        assert_eq!(answer.header("referrer-policy"), None);
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 28\r\n\r\n";
    let answer = world.browser().request("HEAD", &raw(head.as_bytes())).send().expect(200);
    assert_eq!((answer.body.len(), answer.header("content-length")), (0, None), "as long as a page that is rewritten");
}

#[test]
fn a_redirect_to_this_site_carries_the_token_and_one_elsewhere_does_not() {
    let world = World::start(rewriting());
    let location = |to: &str| {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        let browser = world.browser();
        let answer = browser.request("GET", &raw(answer.as_bytes())).host("shop.example").send().expect(302);
        answer.header("location").expect("a location").to_owned()
    };
    for to in ["/cart", "cart?a=1", "http://shop.example/cart"] {
        assert!(location(to).starts_with(to) && location(to).contains("sid="), "{}", location(to));
    }
    for to in ["https://shop.example/", "//evil.example/", "http://shop.example.evil.example/", "/\\evil.example"] {
        assert_eq!(location(to), to);
    }
}

#[test]
fn http2_clients_get_rewritten_pages() {
    let world = World::start(rewriting());
    let request = H2Request::get(&html("", LINK));
    let answer = h2(&world.address, request);
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("sid="), "{answer:?}");
}

#[test]
fn a_client_without_a_session_that_gets_no_page_begins_none() {
    let world = World::start(rewriting());
    for _ in 0..6 {
        let cookies = world.browser().get("/echo").expect(200);
        assert_eq!(cookies.all("set-cookie").len(), 1, "only the application's own");
    }
    world.expect_metric("homing_session_outcomes_total", &[("outcome", "balanced")], 6.0);
    world.expect_metric("homing_tokens_issued_total", &[], 0.0);
}

#[test]
fn the_token_of_a_link_is_renewed_with_every_page() {
    let world = World::start(rewriting());
    let first = token_of(&get(&world, &html("", LINK)));
    let page = html("", LINK).replace("/raw?", &format!("/raw?sid={first}&"));
    let second = token_of(&get(&world, &page));
    assert_ne!(first, second, "reissued");
    let home = |token: &str| get(&world, &format!("/echo?sid={token}")).server();
    assert_eq!(home(&first), home(&second), "of the same session");
}

/// So that a reader of this file sees what a visitor does.
#[test]
fn a_session_in_links_moves_once_when_its_server_dies() {
    let world = World::start(rewriting());
    let browser: Browser = world.browser();
    let token = token_of(&browser.get(&html("", LINK)));
    let home = browser.get(&format!("/echo?sid={token}")).server();
    world.app(&home).kill();
    browser.disconnect();
    let page = html("", LINK).replace("/raw?", &format!("/raw?sid={token}&"));
    let moved = token_of(&browser.get(&page).expect(200));
    let next = browser.get(&format!("/echo?sid={moved}")).server();
    assert_ne!(next, home);
    world.app(&home).start();
    assert_eq!(browser.get(&format!("/echo?sid={moved}")).server(), next);
    assert_eq!(browser.get(&format!("/echo?sid={token}")).server(), next, "the old link leads there too");
    world.expect_metric("homing_session_moves_total", &[], 1.0);
}
