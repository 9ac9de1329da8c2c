//! A client sends the same token with request after request, and the proxy caches what it opened to. This must not be visible:
//! what has changed since the request before counts. One thread serves all, so that it remembers every token.

use std::thread;
use std::time::Duration;

use crate::world::client::{get_with, request_text};
use crate::world::{Browser, Conf, KEY_1, KEY_2, Response, SESSION_COOKIE, Wire, World};

const LOOKUPS: &str = "homing_session_lookups_total";
const TOKENS: &str = "homing_tokens_issued_total";
const ONE_THREAD: &str = "proxy: { threads: 1 }";

fn one_thread(servers: &str) -> Conf {
    Conf::servers(servers).top(ONE_THREAD)
}

/// A browser that has just sent its token twice, and its server.
fn known(world: &World) -> (Browser, String) {
    let browser = world.browser();
    let home = browser.server();
    for _ in 0..2 {
        assert_eq!(browser.server(), home);
    }
    (browser, home)
}

/// The answer to a token on a connection that stays open.
fn show(wire: &mut Wire, target: &str, cookies: &str) -> Response {
    let headers = [("Host", "example.test"), ("Cookie", cookies)].map(|(n, v)| (n.to_owned(), v.to_owned()));
    wire.send(request_text("GET", target, &headers, b""));
    wire.receive("GET")
}

#[test]
fn tokens_of_a_key_that_is_no_longer_the_first_are_reissued() {
    let mut world = World::start(one_thread("a b c"));
    let (alice, home) = known(&world);
    let old = alice.token();
    world.reload(one_thread("a b c").keys(&[KEY_2, KEY_1]));
    let answer = alice.get("/echo");
    assert_eq!(answer.server(), home);
    assert!(answer.set_cookie(SESSION_COOKIE).is_some() && alice.token() != old, "reissued");
    world.expect_metric(TOKENS, &[("reason", "key_rotated")], 1.0);
}

#[test]
fn a_key_that_is_gone_opens_nothing_that_it_opened_a_moment_ago() {
    let other_secret = KEY_2.replace("k2", "k1");
    assert_ne!(other_secret, KEY_2, "a key of the same id");
    for key in [KEY_2, &other_secret] {
        let mut world = World::start(one_thread("a b c"));
        let (alice, _) = known(&world);
        world.reload(one_thread("a b c").keys(&[key]));
        assert!(alice.get("/echo").set_cookie(SESSION_COOKIE).is_some(), "the client is new");
        world.expect_metric(LOOKUPS, &[("result", "forged")], 1.0);
        world.expect_metric(TOKENS, &[("reason", "new")], 2.0);
    }
}

#[test]
fn a_token_that_was_changed_on_the_way_is_refused_though_the_right_one_came_just_before() {
    let world = World::start(one_thread("a b c"));
    let (alice, home) = known(&world);
    let token = alice.token().expect("a token");
    let mut wire = world.wire();
    let mut tried = 0;
    // What is before says which key and pool, in clear.
    for place in (10..token.len() - 1).step_by(9) {
        let changed = if token.as_bytes()[place] == b'x' { "y" } else { "x" };
        let forged = format!("{SESSION_COOKIE}={}{changed}{}", &token[..place], &token[place + 1..]);
        assert_eq!(show(&mut wire, "/echo", &format!("{SESSION_COOKIE}={token}")).server(), home);
        let answer = show(&mut wire, "/echo", &forged);
        assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "a new session for a change at {place}");
        tried += 1;
    }
    assert!(tried > 10, "{tried} places tried");
    world.expect_metric(LOOKUPS, &[("result", "forged")], f64::from(tried));
}

#[test]
fn a_session_expires_though_its_token_came_all_the_time_before() {
    let world = World::start(one_thread("a b").persistence("idle_timeout: 1s"));
    let (alice, _) = known(&world);
    let old = alice.token();
    thread::sleep(Duration::from_millis(2500)); // the passing of time is the subject
    assert!(alice.get("/echo").set_cookie(SESSION_COOKIE).is_some(), "a new session");
    assert_ne!(alice.token(), old);
    world.expect_metric(LOOKUPS, &[("result", "expired_idle")], 1.0);
}

#[test]
fn a_session_that_was_ended_stays_over_though_its_token_came_just_before() {
    let conf = one_thread("a b c")
        .persistence("sources: [{ header: { name: X-Session } }]")
        .persistence("issue: header")
        .persistence("on_server_down: refuse")
        .persistence("refuse_status: 404");
    let world = World::start(conf);
    let token = world.browser().get("/echo").header("x-session").expect("a token").to_owned();
    let ask = || get_with(&world.address, "/plain", &[("X-Session", &token)]);
    let home = ask().expect(200).text();
    assert_eq!(ask().text(), home);
    world.app(&home).kill();
    ask().expect(404);
    assert_ne!(ask().expect(200).text(), home, "a new session");
    world.app(&home).start();
    assert!(ask().header("x-session").is_some(), "and it stays over");
    world.expect_metric(LOOKUPS, &[("result", "ended")], 2.0);
}

#[test]
fn a_moved_session_stays_moved_while_its_client_shows_the_token_of_before() {
    let world = World::start(one_thread("a b c"));
    let (alice, home) = known(&world);
    let old = format!("{SESSION_COOKIE}={}", alice.token().expect("a token"));
    world.app(&home).kill();
    let mut wire = world.wire();
    let moved = show(&mut wire, "/echo", &old).server();
    assert_ne!(moved, home);
    world.app(&home).start();
    let again = show(&mut wire, "/echo", &old);
    assert_eq!(again.server(), moved, "what is known counts, not what the token says");
    assert!(again.set_cookie(SESSION_COOKIE).is_some(), "which is replaced");
}

#[test]
fn two_pools_with_cookies_of_one_name_leave_each_others_tokens_alone() {
    let yaml = "
version: 1
proxy: { threads: 1 }
listeners: [{ address: \"{{proxy}}\" }]
admin: { address: \"{{admin}}\" }
routes:
  - { name: one, match: { path_prefix: /one }, pool: one }
  - { name: two, match: { path_prefix: /two }, pool: two }
pools:
  one: { servers: [{ name: a, address: \"{{a}}\" }, { name: b, address: \"{{b}}\" }], persistence: {} }
  two: { servers: [{ name: c, address: \"{{c}}\" }, { name: d, address: \"{{d}}\" }], persistence: {} }
";
    let world = World::start(yaml);
    let mut wire = world.wire();
    let begin = |target: &str| {
        let browser = world.browser();
        let home = browser.get(target).server();
        (format!("{SESSION_COOKIE}={}", browser.token().expect("a token")), home)
    };
    let (of_one, home) = begin("/one");
    let (of_two, other_home) = begin("/two");
    for _ in 0..3 {
        assert_eq!(show(&mut wire, "/one", &of_one).server(), home);
        let stranger = show(&mut wire, "/two", &of_one);
        assert!(stranger.set_cookie(SESSION_COOKIE).is_some(), "the other pool does not know it");
        // A browser that has both cookies, of two paths, is at home in both pools.
        assert_eq!(show(&mut wire, "/two", &format!("{of_one}; {of_two}")).server(), other_home);
    }
    world.expect_metric(LOOKUPS, &[("pool", "two"), ("result", "unknown")], 3.0);
}
