//! A client comes home: by its token, whatever happens to the proxy.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::world::client::{Wire, request_text};
use crate::world::{Address, Browser, Conf, KEY_1, KEY_2, PATIENCE, Response, SESSION_COOKIE, World, eventually};

const LOOKUPS: &str = "homing_session_lookups_total";

/// A request with exactly these `Cookie` lines.
fn get_with_cookies(address: &Address, target: &str, lines: &[String]) -> Response {
    let mut headers = vec![("Host".to_owned(), "example.test".to_owned())];
    headers.extend(lines.iter().map(|line| ("Cookie".to_owned(), line.clone())));
    headers.push(("Connection".to_owned(), "close".to_owned()));
    let mut wire = Wire::connect(address);
    wire.send(request_text("GET", target, &headers, b""));
    wire.receive("GET")
}

fn browsers(world: &World, count: usize) -> Vec<(Browser, String)> {
    let start = |_| {
        let browser = world.browser();
        let home = browser.server();
        browser.disconnect();
        (browser, home)
    };
    (0..count).map(start).collect()
}

/// Two browsers on different servers.
fn two_browsers_on_different_servers(world: &World) -> [(Browser, String); 2] {
    let pair: [(Browser, String); 2] = browsers(world, 2).try_into().expect("two");
    assert_ne!(pair[0].1, pair[1].1, "round robin gives two new clients two servers");
    pair
}

#[track_caller]
fn assert_on_their_servers(browsers: &[(Browser, String)]) {
    for (browser, home) in browsers {
        assert_eq!(browser.server(), *home, "every client comes home");
        browser.disconnect();
    }
}

#[test]
fn a_client_comes_home_fifty_times_among_three_servers() {
    let world = World::start(Conf::servers("a b c"));
    let [(alice, home), (bob, other)] = two_browsers_on_different_servers(&world);
    for _ in 0..50 {
        assert_eq!(alice.server(), home, "the client stays where it began");
        assert_eq!(bob.request("GET", "/echo").fresh().send().server(), other, "also over new connections");
    }
    let answer = alice.get("/cart");
    assert_eq!(answer.json()["visits"], 52, "the application knew the session all the time");
    world.expect_metric("homing_session_outcomes_total", &[("pool", "web"), ("outcome", "new")], 2.0);
    world.expect_metric("homing_session_outcomes_total", &[("pool", "web"), ("outcome", "kept")], 101.0);
}

#[test]
fn two_clients_have_two_tokens() {
    let world = World::start(Conf::servers("a b c"));
    let tokens: BTreeSet<_> = browsers(&world, 9).iter().map(|(b, _)| b.token().expect("a token")).collect();
    assert_eq!(tokens.len(), 9, "no two sessions share a token");
    for token in &tokens {
        assert!(token.len() <= 120, "at most 120 characters: {token}");
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(token.chars().all(fine), "base64url: {token}");
    }
}

#[test]
fn a_token_names_no_server_and_no_address() {
    let world = World::start(Conf::servers("cedar birch"));
    for (browser, home) in browsers(&world, 4) {
        let token = browser.token().expect("a token");
        assert!(!token.contains(&home), "the server's name is not to be read in {token}");
    }
}

#[test]
fn the_token_is_set_on_the_first_answer_only() {
    let world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    assert!(alice.get("/echo").set_cookie(SESSION_COOKIE).is_some(), "a new client is given a token");
    for _ in 0..10 {
        assert_eq!(alice.get("/echo").set_cookie(SESSION_COOKIE), None, "it has its token");
    }
    world.expect_metric("homing_tokens_issued_total", &[("pool", "web"), ("reason", "new")], 1.0);
    assert_eq!(world.metric("homing_tokens_issued_total", &[("pool", "web")]), 1.0, "and no other was issued");
}

#[test]
fn a_restart_with_the_same_keys_loses_no_session() {
    let mut world = World::start(Conf::servers("a b c"));
    let sessions = browsers(&world, 12);
    assert_on_their_servers(&sessions);
    world.restart_proxy();
    assert_on_their_servers(&sessions);
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("result", "restored")], 12.0);
    world.expect_metric("homing_session_moves_total", &[], 0.0);
}

#[test]
fn a_killed_proxy_loses_no_session() {
    let mut world = World::start(Conf::servers("a b c"));
    let sessions = browsers(&world, 6);
    world.signal(crate::world::Signal::SIGKILL);
    world.wait_for_exit(PATIENCE);
    world.forget_proxy();
    world.start_proxy();
    assert_on_their_servers(&sessions);
}

#[test]
fn a_rotated_key_honours_old_tokens_and_reissues_them() {
    let mut world = World::start(Conf::servers("a b c").keys(&[KEY_1]));
    let sessions = browsers(&world, 6);
    let old: Vec<_> = sessions.iter().map(|(b, _)| b.token()).collect();
    world.reload(Conf::servers("a b c").keys(&[KEY_2, KEY_1]));
    assert_on_their_servers(&sessions);
    for ((browser, home), old) in sessions.iter().zip(&old) {
        assert_ne!(&browser.token(), old, "reissued with the first key");
        let again = browser.get("/echo");
        assert_eq!((again.server(), again.set_cookie(SESSION_COOKIE)), (home.clone(), None), "and only once");
        browser.disconnect();
    }
    world.expect_metric("homing_tokens_issued_total", &[("pool", "web"), ("reason", "key_rotated")], 6.0);
    world.reload(Conf::servers("a b c").keys(&[KEY_2]));
    assert_on_their_servers(&sessions);
    let stale = world.browser();
    stale.put_cookie(SESSION_COOKIE, old[0].as_deref().expect("a token"));
    assert!(stale.get("/echo").set_cookie(SESSION_COOKIE).is_some(), "a token of a dropped key is no token");
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("result", "forged")], 1.0);
}

#[test]
fn a_proxy_with_the_same_keys_honours_the_others_tokens() {
    let mut world = World::start(Conf::servers("a b c"));
    let second = world.another_proxy("-2");
    let sessions = browsers(&world, 9);
    for (browser, home) in &sessions {
        let there = browser.copy_at(&second.address);
        let answer = there.get("/echo");
        assert_eq!(answer.server(), *home, "the other proxy brings it to the same server");
        assert_eq!(answer.set_cookie(SESSION_COOKIE), None, "with the same token");
    }
    second.expect_metric(LOOKUPS, &[("result", "restored")], 9.0);
}

#[test]
fn the_order_of_servers_in_the_file_means_nothing_to_another_proxy() {
    let mut world = World::start(Conf::servers("a b c d"));
    let sessions = browsers(&world, 8);
    let text = world.environment.rewrite(Conf::servers("d c b a"));
    assert!(text.find("name: d") < text.find("name: a"), "the order is turned round");
    let second = world.another_proxy("-2");
    for (browser, home) in &sessions {
        assert_eq!(browser.copy_at(&second.address).server(), *home, "names decide, not places");
    }
}

#[test]
fn without_keys_a_restart_forgets_but_says_so_beforehand() {
    let mut world = World::start(Conf::servers("a b").keys(&[]));
    let log = world.log().to_lowercase();
    assert!(log.contains("warn") && log.contains("key"), "a warning at start:\n{log}");
    let alice = world.browser();
    let home = alice.server();
    assert_eq!(alice.server(), home, "within one life the session is kept");
    world.restart_proxy();
    assert!(alice.get("/echo").set_cookie(SESSION_COOKIE).is_some(), "a new life, a new session");
    world.expect_metric(LOOKUPS, &[("result", "forged")], 1.0);
}

#[test]
fn the_token_is_set_again_when_a_quarter_of_the_idle_time_has_gone() {
    let world = World::start(Conf::servers("a b").persistence("idle_timeout: 8s"));
    let alice = world.browser();
    let home = alice.server();
    let start = Instant::now();
    let mut refreshed = None;
    eventually(Duration::from_secs(5), "the token is set again", || {
        thread::sleep(Duration::from_millis(100));
        let answer = alice.get("/echo");
        assert_eq!(answer.server(), home);
        refreshed = answer.set_cookie(SESSION_COOKIE).map(|_| start.elapsed());
        refreshed.is_some()
    });
    let after = refreshed.expect("just seen");
    assert!(after > Duration::from_millis(900), "not before a quarter of 8 s has gone (± 1 s): {after:?}");
    world.expect_metric("homing_tokens_issued_total", &[("pool", "web"), ("reason", "refreshed")], 1.0);
}

#[test]
fn a_session_that_stays_away_too_long_ends() {
    let world = World::start(Conf::servers("a b").persistence("idle_timeout: 1s"));
    let alice = world.browser();
    alice.server();
    alice.server();
    let old = alice.token();
    thread::sleep(Duration::from_millis(2500)); // the passing of time is the subject
    assert!(alice.get("/echo").set_cookie(SESSION_COOKIE).is_some(), "a new session");
    assert_ne!(alice.token(), old);
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("result", "expired_idle")], 1.0);
    world.expect_metric("homing_session_outcomes_total", &[("outcome", "new")], 2.0);
}

#[test]
fn an_idle_session_leaves_the_table_by_itself() {
    let world = World::start(Conf::servers("a b").persistence("idle_timeout: 1s"));
    for (browser, _) in browsers(&world, 5) {
        browser.server();
    }
    assert!(world.metric("homing_table_entries", &[]) >= 1.0, "clients that came back are in the table");
    eventually(PATIENCE, "the table is empty again", || world.metric("homing_table_entries", &[]) == 0.0);
    assert_eq!(world.metric("homing_sessions", &[("pool", "web")]), 0.0, "and no server has sessions");
    world.expect_metric("homing_sessions_ended_total", &[("pool", "web"), ("reason", "idle")], 5.0);
}

#[test]
fn a_busy_session_outlives_the_idle_time_and_ends_at_the_absolute_one() {
    let conf = Conf::servers("a b").persistence("idle_timeout: 2s").persistence("absolute_timeout: 5s");
    let world = World::start(conf);
    let alice = world.browser();
    let home = alice.server();
    let start = Instant::now();
    let mut ended = None;
    eventually(Duration::from_secs(9), "the session ends", || {
        thread::sleep(Duration::from_millis(200));
        alice.get("/echo").expect(200);
        if world.metric(LOOKUPS, &[("result", "expired_absolute")]) > 0.0 {
            ended = Some(start.elapsed());
        } else if start.elapsed() < Duration::from_secs(3) {
            assert_eq!(alice.server(), home, "a busy session does not idle out");
        }
        ended.is_some()
    });
    let after = ended.expect("just seen");
    assert!(after > Duration::from_millis(3900), "not before the absolute timeout (± 1 s): {after:?}");
    assert_eq!(world.metric(LOOKUPS, &[("result", "expired_idle")]), 0.0);
}

#[test]
fn a_full_table_evicts_but_loses_no_session() {
    let world = World::start(Conf::servers("a b c").top("store: { max_sessions: 10 }"));
    let sessions = browsers(&world, 40);
    assert_on_their_servers(&sessions);
    let entries = world.metric("homing_table_entries", &[]);
    assert!((1.0..=10.0).contains(&entries), "the cap is hard: {entries}");
    assert_eq!(world.metric("homing_table_capacity", &[]), 10.0);
    let evicted = world.metric("homing_sessions_ended_total", &[("reason", "evicted")]);
    assert!(evicted >= 30.0, "40 came back and 10 have room: {evicted}");
    assert_on_their_servers(&sessions);
    world.expect_metric("homing_session_moves_total", &[], 0.0);
}

#[test]
fn clients_that_keep_no_cookies_cost_no_memory() {
    let world = World::start(Conf::servers("a b"));
    let stranger = world.browser();
    for _ in 0..300 {
        stranger.request("GET", "/echo").without_cookies().send().expect(200);
    }
    world.expect_metric("homing_session_outcomes_total", &[("outcome", "new")], 300.0);
    assert_eq!(world.metric("homing_table_entries", &[]), 0.0, "nothing is stored for clients that never return");
}

#[test]
fn the_table_holds_clients_that_came_back() {
    let world = World::start(Conf::servers("a b"));
    let [(alice, home), _] = two_browsers_on_different_servers(&world);
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("result", "none")], 2.0);
    alice.server();
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("result", "restored")], 1.0);
    alice.server();
    world.expect_metric(LOOKUPS, &[("pool", "web"), ("result", "hit")], 1.0);
    world.expect_metric("homing_sessions", &[("pool", "web"), ("server", &home)], 1.0);
    world.expect_metric("homing_table_entries", &[], 1.0);
    assert_eq!(world.metric(LOOKUPS, &[("source", "cookie")]), 4.0, "every lookup names its source");
}

#[test]
fn the_token_is_found_in_any_cookie_header() {
    let world = World::start(Conf::servers("a b c"));
    for (browser, home) in browsers(&world, 3) {
        let token = browser.token().expect("a token");
        let lines = ["first=1; second=2".to_owned(), format!("third=3; {SESSION_COOKIE}={token}"), "last=4".to_owned()];
        for _ in 0..3 {
            assert_eq!(get_with_cookies(&world.address, "/echo", &lines).server(), home);
        }
    }
}

#[test]
fn a_cookie_whose_name_merely_ends_or_begins_alike_is_not_ours() {
    let world = World::start(Conf::servers("a b c"));
    let (alice, _) = browsers(&world, 1).remove(0);
    let token = alice.token().expect("a token");
    for name in ["XSESSIONID", "SESSIONIDX", "sessionid", "SESSION"] {
        let answer = get_with_cookies(&world.address, "/echo", &[format!("{name}={token}")]);
        assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "{name} is another cookie: a new client");
        assert_eq!(answer.received("cookie"), [format!("{name}={token}")], "it belongs to the application");
    }
    world.expect_metric(LOOKUPS, &[("result", "none")], 5.0);
}

#[test]
fn of_several_cookies_of_our_name_the_first_that_opens_counts() {
    let world = World::start(Conf::servers("a b c"));
    let [(alice, alices), (bob, bobs)] = two_browsers_on_different_servers(&world);
    let (alice, bob) = (alice.token().expect("a token"), bob.token().expect("a token"));
    let line = |tokens: &[&str]| {
        let pairs: Vec<_> = tokens.iter().map(|t| format!("{SESSION_COOKIE}={t}")).collect();
        vec![pairs.join("; ")]
    };
    let server = |lines: &[String]| get_with_cookies(&world.address, "/echo", lines).server();
    for _ in 0..3 {
        assert_eq!(server(&line(&["forged", &alice, &bob])), alices, "the first that opens");
        assert_eq!(server(&line(&["", "x", &bob, &alice])), bobs, "the first that opens");
        assert_eq!(server(&[line(&["x"]), line(&[&bob]), line(&[&alice])].concat()), bobs, "over several headers too");
    }
}

#[test]
fn at_most_four_cookies_of_our_name_are_tried() {
    let world = World::start(Conf::servers("a b c"));
    let (alice, home) = browsers(&world, 1).remove(0);
    let token = alice.token().expect("a token");
    let after = |forged: usize| {
        let of_its_length = |n| format!("{SESSION_COOKIE}={n:0>width$}", width = token.len());
        let pairs: Vec<_> = (0..forged).map(of_its_length).chain([format!("{SESSION_COOKIE}={token}")]).collect();
        get_with_cookies(&world.address, "/echo", &[pairs.join("; ")])
    };
    for _ in 0..3 {
        let fourth = after(3);
        assert_eq!((fourth.server(), fourth.set_cookie(SESSION_COOKIE)), (home.clone(), None), "the fourth is tried");
    }
    assert!(after(4).set_cookie(SESSION_COOKIE).is_some(), "the fifth is not: a new client");
}

#[test]
fn a_token_of_another_pool_is_no_token_here() {
    let yaml = "
version: 1
listeners: [{ address: \"{{proxy}}\" }]
admin: { address: \"{{admin}}\" }
routes:
  - { name: one, match: { path_prefix: /one }, pool: one }
  - { name: two, match: { path_prefix: /two }, pool: two }
pools:
  one: { servers: [{ name: a, address: \"{{a}}\" }, { name: b, address: \"{{b}}\" }], persistence: {} }
  two: { servers: [{ name: a, address: \"{{a}}\" }, { name: b, address: \"{{b}}\" }], persistence: {} }
keys: [{ id: k1, secret: \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\" }]
";
    let world = World::start(yaml);
    let alice = world.browser();
    alice.get("/one").server();
    let token = alice.token().expect("a token");
    let answer = get_with_cookies(&world.address, "/two", &[format!("{SESSION_COOKIE}={token}")]);
    assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "for the other pool the client is new");
    for result in ["hit", "restored"] {
        assert_eq!(world.metric(LOOKUPS, &[("pool", "two"), ("result", result)]), 0.0, "it does not open there");
    }
    let home = get_with_cookies(&world.address, "/one", &[format!("{SESSION_COOKIE}={token}")]);
    assert_eq!(home.set_cookie(SESSION_COOKIE), None, "in its own pool it does");
}

/// Tokens that cannot open, made from one that does.
fn forgeries(token: &str) -> Vec<String> {
    let flip = |at: usize| {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let mut all: Vec<String> = [0, 1, token.len() / 3, token.len() / 2, token.len() - 5].map(flip).to_vec();
    all.extend([token[..token.len() - 4].to_owned(), format!("{token}AAAA"), String::new(), "a".to_owned()]);
    all.extend(["%00%ff".to_owned(), "A".repeat(5000), token.to_lowercase(), format!("\"{token}x\"")]);
    all
}

#[test]
fn a_forged_token_is_no_token() {
    let world = World::start(Conf::servers("a b c"));
    let alice = world.browser();
    alice.server();
    let forged = forgeries(&alice.token().expect("a token"));
    for token in &forged {
        let answer = get_with_cookies(&world.address, "/echo", &[format!("{SESSION_COOKIE}={token}")]).expect(200);
        assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "a new session instead of {token:?}");
    }
    eventually(PATIENCE, "forgeries are counted", || {
        let counted = world.metric(LOOKUPS, &[("result", "forged")]);
        counted >= forged.len() as f64 - 1.0 // an empty value may count as none
    });
    assert!(!world.log().contains(&forged[0]), "a token is never logged");
}

#[test]
fn a_forged_token_is_refused_where_the_pool_says_so() {
    let world = World::start(Conf::servers("a b").persistence("on_forged: refuse"));
    let alice = world.browser();
    let home = alice.server();
    alice.get("/echo").expect(200);
    let token = forgeries(&alice.token().expect("a token"))[2].clone();
    let before = world.count("GET", "/secret");
    let answer = get_with_cookies(&world.address, "/secret", &[format!("{SESSION_COOKIE}={token}")]).expect(400);
    assert_eq!(answer.all("set-cookie").len(), 1, "no token on the proxy's own answer ...");
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "... and the bad one goes");
    assert_eq!(world.count("GET", "/secret"), before, "no server saw it");
    assert_eq!(alice.server(), home, "others are not touched");
    assert!(world.browser().get("/echo").expect(200).set_cookie(SESSION_COOKIE).is_some(), "a new client is welcome");
}

#[test]
fn without_persistence_every_request_is_balanced() {
    let world = World::start(Conf::servers("a b c").without_persistence());
    let alice = world.browser();
    let mut seen = BTreeSet::new();
    for _ in 0..9 {
        let answer = alice.get("/echo");
        assert_eq!(answer.set_cookie(SESSION_COOKIE), None, "no token is issued");
        seen.insert(answer.server());
    }
    assert_eq!(seen.len(), 3, "every server has its turn");
    world.expect_metric("homing_session_outcomes_total", &[("pool", "web"), ("outcome", "balanced")], 9.0);
}

#[test]
fn with_nothing_issued_new_clients_are_balanced() {
    let world = World::start(Conf::servers("a b").persistence("issue: none"));
    let alice = world.browser();
    for _ in 0..4 {
        assert_eq!(alice.get("/echo").expect(200).set_cookie(SESSION_COOKIE), None);
    }
    assert!(world.app("a").requests() == 2 && world.app("b").requests() == 2, "round robin over both");
}

#[test]
fn a_head_request_and_an_error_of_the_application_begin_a_session_too() {
    let world = World::start(Conf::servers("a b"));
    for (method, target, status) in
        [("HEAD", "/echo", 200), ("GET", "/status?code=500", 500), ("GET", "/status?code=404", 404)]
    {
        let alice = world.browser();
        let answer = alice.request(method, target).send().expect(status);
        assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "{method} {target}");
    }
}
