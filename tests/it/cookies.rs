//! The proxy's cookie and those of the application: what is set, what is hidden, what is never touched.

use crate::world::app::answers::{ODD_SET_COOKIES, saying};
use crate::world::client::request_text;
use crate::world::h2c::{H2Request, h2};
use crate::world::{App, Conf, Response, SESSION_COOKIE, Wire, World};

/// The attributes of a `Set-Cookie` line, in lower case, sorted, without the token.
fn attributes(line: &str) -> Vec<String> {
    let mut parts: Vec<_> = line.split(';').skip(1).map(|part| part.trim().to_lowercase()).collect();
    parts.sort();
    parts
}

/// The attributes that a new client of a pool with this cookie is given.
fn given(cookie: &str, name: &str) -> Vec<String> {
    let world = World::start(Conf::servers("a").persistence(&format!("cookie: {{ {cookie} }}")));
    let answer = world.browser().get("/echo").expect(200);
    attributes(answer.set_cookie(name).unwrap_or_else(|| panic!("no cookie {name}: {:?}", answer.head)))
}

fn get_with_cookie(world: &World, target: &str, line: &str) -> Response {
    let headers = [("Host", "example.test"), ("Cookie", line)].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let mut wire = world.wire();
    wire.send(request_text("GET", target, &headers, b""));
    wire.receive("GET")
}

#[test]
fn by_default_the_cookie_is_hidden_from_scripts_and_from_other_sites() {
    assert_eq!(given("", SESSION_COOKIE), ["httponly", "path=/", "samesite=lax"]);
}

#[test]
fn every_attribute_can_be_chosen() {
    let all = "name: SHOP, path: /echo, domain: example.test, secure: true, http_only: false, same_site: strict";
    assert_eq!(given(all, "SHOP"), ["domain=example.test", "path=/echo", "samesite=strict", "secure"]);
}

#[test]
fn a_cookie_for_embedded_pages_is_partitioned() {
    let cookie = "secure: true, same_site: none, partitioned: true";
    assert_eq!(given(cookie, SESSION_COOKIE), ["httponly", "partitioned", "path=/", "samesite=none", "secure"]);
}

#[test]
fn a_host_cookie_keeps_the_rules_of_its_prefix() {
    assert_eq!(given("name: __Host-S, secure: true", "__Host-S"), ["httponly", "path=/", "samesite=lax", "secure"]);
}

#[test]
fn a_permanent_cookie_lives_as_long_as_the_session_may() {
    let conf = Conf::servers("a").persistence("absolute_timeout: 2h").persistence("cookie: { lifetime: permanent }");
    let world = World::start(conf);
    let answer = world.browser().get("/echo");
    let parts = attributes(answer.set_cookie(SESSION_COOKIE).expect("a cookie"));
    assert!(parts.contains(&"max-age=7200".to_owned()), "{parts:?}");
    assert!(parts.iter().any(|p| p.starts_with("expires=") && p.ends_with("gmt")), "{parts:?}");
}

#[test]
fn the_cookie_is_secure_when_the_client_came_by_tls_to_a_trusted_proxy_before_us() {
    let conf = Conf::servers("a").listener("trusted_proxies: [127.0.0.0/8]");
    let world = World::start(conf);
    let secure = |proto: &str| {
        let request = world.browser();
        let answer = request.request("GET", "/echo").header("X-Forwarded-Proto", proto).send();
        attributes(answer.set_cookie(SESSION_COOKIE).expect("a cookie")).contains(&"secure".to_owned())
    };
    assert!(secure("https"), "auto: as the client came");
    assert!(!secure("http"), "auto: as the client came");
}

#[test]
fn a_stranger_cannot_make_the_cookie_secure() {
    let world = World::start(Conf::servers("a"));
    let answer = world.browser().request("GET", "/echo").header("X-Forwarded-Proto", "https").send();
    let parts = attributes(answer.set_cookie(SESSION_COOKIE).expect("a cookie"));
    assert!(!parts.contains(&"secure".to_owned()), "{parts:?}");
}

#[test]
fn the_application_never_sees_the_token() {
    let world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    alice.get("/plain");
    let token = alice.token().expect("a token");
    assert_eq!(alice.get("/echo").received("cookie"), Vec::<String>::new(), "alone it leaves no Cookie header");
    for (line, left) in [
        (format!("a=1; {SESSION_COOKIE}={token}; b=2"), "a=1; b=2"),
        (format!("{SESSION_COOKIE}={token}; b=2"), "b=2"),
        (format!("a=1; {SESSION_COOKIE}={token}"), "a=1"),
        (format!("a=1; {SESSION_COOKIE}=forged; {SESSION_COOKIE}={token}; c=\"x y\"; d"), "a=1; c=\"x y\"; d"),
    ] {
        assert_eq!(get_with_cookie(&world, "/echo", &line).received("cookie"), [left], "from {line}");
    }
    let seen = world.apps().flat_map(App::seen).flat_map(|seen| seen.head.headers);
    let leak = seen.filter(|(_, value)| value.contains(&token)).count();
    assert_eq!(leak, 0, "the token is in no header of any request to a server");
}

#[test]
fn the_application_sees_the_token_where_the_pool_says_so() {
    let world = World::start(Conf::servers("a b").persistence("cookie: { hide_from_server: false }"));
    let alice = world.browser();
    alice.get("/plain");
    let token = alice.token().expect("a token");
    let line = format!("a=1; {SESSION_COOKIE}={token}; b=2");
    assert_eq!(get_with_cookie(&world, "/echo", &line).received("cookie"), [line]);
}

#[test]
fn cookies_of_the_application_pass_untouched_and_in_order() {
    let world = World::start(Conf::servers("a"));
    for line in [
        "z=26; a=1; m=13",
        "quoted=\"a b\"; empty=; novalue; =noname; eq==x=y==",
        "JSESSIONID=0A1B.node1; $Version=1; _ga=GA1.2.3",
        "spaces =  kept ;tight=1;  wide=2",
        "caf\u{e9}=cr\u{e8}me",
    ] {
        let received = get_with_cookie(&world, "/echo", line).received("cookie");
        let as_bytes: String = line.bytes().map(char::from).collect(); // the server shows bytes as characters
        assert_eq!(received, [as_bytes], "a line without our cookie is not rewritten");
    }
}

#[test]
fn set_cookie_lines_of_the_application_are_never_merged_or_reordered() {
    let world = World::start(Conf::servers("a"));
    let alice = world.browser();
    let first = alice.get("/set-cookies").expect(200);
    let ours = first.set_cookies(SESSION_COOKIE);
    assert_eq!(ours.len(), 1, "our own line is beside them");
    let others: Vec<_> = first.all("set-cookie").into_iter().filter(|line| !ours.contains(line)).collect();
    assert_eq!(others, ODD_SET_COOKIES);
    assert_eq!(alice.get("/set-cookies").all("set-cookie"), ODD_SET_COOKIES, "and later alone");
}

#[test]
fn a_response_that_sets_the_token_is_kept_out_of_shared_caches() {
    let world = World::start(Conf::servers("a"));
    let alice = world.browser();
    let first = alice.get("/cacheable").expect(200);
    let control = first.all("cache-control").join(", ");
    assert!(control.contains("private"), "no shared cache may keep a client's token: {control}");
    assert_eq!(alice.get("/cacheable").all("cache-control"), ["public, max-age=3600"], "without a token: as it came");
    assert_eq!(world.browser().get("/plain").all("cache-control"), ["private"], "added where there was none");
    // RFC 9213: caches that know these go by them alone.
    let lines =
        ["CDN-Cache-Control: max-age=600", "Surrogate-Control: max-age=600", "Cloudflare-CDN-Cache-Control: max-age=1"];
    let bob = world.browser();
    let told = |answer: &Response| lines.map(|line| answer.all(line.split(':').next().expect("a name")).len());
    assert_eq!(told(&bob.get(&saying(200, &lines)).expect(200)), [0; 3]);
    assert_eq!(told(&bob.get(&saying(200, &lines)).expect(200)), [1; 3], "without a token: as it came");
}

#[test]
fn cache_control_can_be_another_or_be_left_alone() {
    let world = World::start(Conf::servers("a").persistence("cookie: { cache_control: no-store }"));
    assert_eq!(world.browser().get("/plain").all("cache-control"), ["no-store"]);
    let world = World::start(Conf::servers("a").persistence("cookie: { cache_control: null }"));
    assert_eq!(world.browser().get("/plain").all("cache-control"), Vec::<&str>::new());
    assert_eq!(world.browser().get("/cacheable").all("cache-control"), ["public, max-age=3600"]);
}

#[test]
fn no_token_is_set_on_304() {
    let world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    let answer = alice.get("/304").expect(304);
    assert_eq!(answer.all("set-cookie"), Vec::<&str>::new(), "a cache would keep it with the page");
    assert!(alice.get("/echo").set_cookie(SESSION_COOKIE).is_some(), "the next answer sets it");
}

#[test]
fn no_token_is_set_on_early_hints_but_on_the_answer_after_them() {
    let world = World::start(Conf::servers("a"));
    let answer = world.browser().get("/early-hints").expect(200);
    assert_eq!(answer.informational.len(), 1, "the hints arrive");
    assert_eq!(answer.informational[0].all("set-cookie"), Vec::<&str>::new());
    assert!(answer.set_cookie(SESSION_COOKIE).is_some());
}

#[test]
fn a_websocket_that_is_a_clients_first_request_is_given_its_token() {
    let world = World::start(Conf::servers("a"));
    let mut wire = world.wire();
    wire.send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    let answer = wire.receive("GET").expect(101);
    assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "on the 101: {:?}", answer.head);
}

#[test]
fn no_token_is_set_on_the_proxys_own_answers() {
    let world = World::start(Conf::servers("a").listener("max_body_size: 10B"));
    let alice = world.browser();
    let too_large = alice.request("POST", "/echo").body("more than ten bytes").fresh().send().expect(413);
    let broken = alice.get("/garbage").expect(502);
    world.app("a").kill();
    let down = alice.get("/echo").expect(503);
    for answer in [too_large, broken, down] {
        assert_eq!(answer.all("set-cookie"), Vec::<&str>::new(), "{:?}", answer.head);
    }
}

#[test]
fn cookie_crumbs_of_http2_reach_the_server_as_one_header() {
    let world = World::start(Conf::servers("a b"));
    let first = h2(&world.address, H2Request::get("/plain")).expect(200);
    let token =
        first.set_cookie(SESSION_COOKIE).expect("a token").split([';', '=']).nth(1).expect("its value").to_owned();
    let crumbs = H2Request::get("/echo")
        .header("cookie", "a=1")
        .header("cookie", &format!("{SESSION_COOKIE}={token}"))
        .header("cookie", "b=2; c=3");
    for _ in 0..3 {
        let answer = h2(&world.address, crumbs.clone()).expect(200);
        assert_eq!(answer.server(), first.text(), "the token is found among the crumbs");
        assert_eq!(answer.received("cookie"), ["a=1; b=2; c=3"], "one line, ours taken off");
    }
    let without = H2Request::get("/echo").header("cookie", "a=1").header("cookie", "b=2");
    assert_eq!(h2(&world.address, without).received("cookie"), ["a=1; b=2"]);
}

#[test]
fn several_cookie_headers_of_http1_reach_the_server_whole() {
    let world = World::start(Conf::servers("a"));
    let mut wire: Wire = world.wire();
    wire.send("GET /echo HTTP/1.1\r\nHost: x\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n");
    let received = wire.receive("GET").received("cookie");
    assert_eq!(received.join("; "), "a=1; b=2", "joined or apart, but all and in order");
}

#[test]
fn odd_cookie_lines_stop_no_session() {
    let world = World::start(Conf::servers("a"));
    for line in [
        "",
        ";",
        ";;;=;=;",
        "=",
        "  ",
        "; SESSIONID=",
        "SESSIONID",
        "SESSIONID=;SESSIONID=",
        ",;,\"",
        "a=\"unclosed; b=2",
    ] {
        get_with_cookie(&world, "/echo", line).expect(200);
    }
}
