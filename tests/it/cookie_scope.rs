//! A cookie is name, domain and path, and of a size that browsers keep: what ends a session, and where a token is set.

use std::time::{Duration, SystemTime};

use homing::session::key::{ServerId, SessionId};
use homing::session::token::codec::PoolCodec;
use homing::session::token::keyring::Keyring;
use homing::session::token::{Token, UnixMillis};

use crate::world::app::answers::saying;
use crate::world::client::{get_with, request_with};
use crate::world::h2c::{H2Request, h2};
use crate::world::{Conf, KEY_1, Response, SESSION_COOKIE, World};

const LOOKUPS: &str = "homing_session_lookups_total";
const OUTCOMES: &str = "homing_session_outcomes_total";
const OVERSIZED: &str = "homing_oversized_cookies_total";
const OVERFLOW: &str = "JSESSIONID~homing";

fn learning() -> Conf {
    Conf::servers("a b c").persistence("sources: [{ learn: { cookie: SID } }]")
}

/// A session, learned at `/`.
fn learned(world: &World) -> String {
    get_with(&world.address, &saying(200, &["Set-Cookie: SID=x; Path=/"]), &[]).server()
}

/// A response to the session's client says this of its cookie; whether the session lives on.
fn lives_after(line: &str) -> bool {
    let world = World::start(learning());
    let home = learned(&world);
    let cookie = [("Cookie", "SID=x")];
    assert_eq!(get_with(&world.address, &saying(200, &[line]), &cookie).server(), home);
    get_with(&world.address, "/say", &cookie).expect(200);
    let hits = world.metric(LOOKUPS, &[("result", "hit")]);
    let unknown = world.metric(LOOKUPS, &[("result", "unknown")]);
    assert_eq!(hits + unknown, 2.0, "{line}");
    unknown == 0.0
}

#[test]
fn a_deletion_for_another_path_or_domain_leaves_the_session_alone() {
    for line in [
        "Set-Cookie: SID=; Path=/old; Max-Age=0",
        "Set-Cookie: SID=x; Path=/say/more; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "Set-Cookie: SID=; Domain=example.com; Path=/; Max-Age=0",
        "Set-Cookie: SID=; Path=/; Max-Age=3600; Path=/old",
    ] {
        assert!(lives_after(line), "{line}");
    }
}

#[test]
fn a_log_out_ends_the_session_however_its_date_is_written() {
    for date in [
        "Thu, 01-Jan-70 00:00:01 GMT",
        "Mon, 1 Jan 1970 0:0:0",
        "Mon, 01 Jan 1900 00:00:00 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        assert!(!lives_after(&format!("Set-Cookie: SID=gone; Path=/; Expires={date}")), "{date}");
    }
    assert!(!lives_after("Set-Cookie: SID=gone; Path=/; Max-Age=0; Expires=Fri, 31 Dec 2199 23:59:59 GMT"));
    assert!(lives_after("Set-Cookie: SID=x; Path=/; Expires=Fri, 31-Dec-68 23:59:59 GMT"), "2068 is to come");
    assert!(lives_after("Set-Cookie: SID=x; Path=/; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"));
    assert!(lives_after("Set-Cookie: SID=x; Path=/; Expires=0"), "no date, so the browser keeps it");
}

#[test]
fn of_several_lines_for_one_cookie_the_last_counts() {
    let world = World::start(learning());
    let home = learned(&world);
    let renewed = saying(200, &["Set-Cookie: SID=; Path=/; Max-Age=0", "Set-Cookie: SID=y; Path=/"]);
    get_with(&world.address, &renewed, &[("Cookie", "SID=x")]).expect(200);
    assert_eq!(get_with(&world.address, "/say", &[("Cookie", "SID=y")]).server(), home);
    let taken_back = saying(200, &["Set-Cookie: SID=z; Path=/", "Set-Cookie: SID=z; Path=/; Max-Age=0"]);
    get_with(&world.address, &taken_back, &[("Cookie", "SID=y")]).expect(200);
    get_with(&world.address, "/say", &[("Cookie", "SID=z")]).expect(200);
    world.expect_metric(LOOKUPS, &[("result", "unknown")], 1.0);
}

#[test]
fn a_request_outside_the_path_of_the_cookie_gets_none_and_begins_no_session() {
    let world = World::start(Conf::servers("a b c").persistence("cookie: { path: /say }"));
    let alice = world.browser();
    let home = alice.get("/say").expect(200).server();
    for _ in 0..4 {
        assert_eq!(get_with(&world.address, "/plain", &[]).expect(200).set_cookie(SESSION_COOKIE), None);
        assert_eq!(h2(&world.address, H2Request::get("/plain")).expect(200).set_cookie(SESSION_COOKIE), None);
        let answer = alice.get("/say");
        assert_eq!((answer.server(), answer.set_cookie(SESSION_COOKIE)), (home.clone(), None));
    }
    world.expect_metric(OUTCOMES, &[("outcome", "balanced")], 8.0);
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 1.0);
    world.expect_metric(OUTCOMES, &[("outcome", "kept")], 4.0);
    assert_eq!(world.access_line("/plain")["outcome"], "balanced");
}

#[test]
fn a_host_outside_the_domain_of_the_cookie_gets_none() {
    let world = World::start(Conf::servers("a b").persistence("cookie: { domain: example.test }"));
    let given = |host: &str| {
        let answer = world.browser().request("GET", "/plain").host(host).send().expect(200);
        answer.set_cookie(SESSION_COOKIE).is_some()
    };
    assert!(given("example.test") && given("shop.example.test:8080"));
    assert!(!given("example.com") && !given("127.0.0.1") && !given("badexample.test"));
}

#[test]
fn behind_a_trusted_proxy_the_clients_host_counts() {
    let conf = Conf::servers("a").listener("trusted_proxies: [127.0.0.0/8]");
    let world = World::start(conf.persistence("cookie: { domain: example.org }"));
    let given = |header: &str, value: &str| {
        let answer = world.browser().request("GET", "/plain").host("origin.internal").header(header, value).send();
        answer.expect(200).set_cookie(SESSION_COOKIE).is_some()
    };
    assert!(given("X-Forwarded-Host", "shop.example.org"));
    assert!(given("Forwarded", "for=192.0.2.1;host=shop.example.org"));
    assert!(!given("X-Forwarded-Host", "other.example"));
}

fn in_mode(mode: &str) -> Conf {
    Conf::servers("a b c").persistence(&format!("cookie: {{ mode: {mode}, name: JSESSIONID }}"))
}

/// The application sets its cookie to so many octets.
fn sized(octets: usize) -> String {
    saying(200, &[&format!("Set-Cookie: JSESSIONID={}; Path=/; HttpOnly", "v".repeat(octets))])
}

/// Every cookie of a response is one that browsers keep.
#[track_caller]
fn assert_kept_by_browsers(answer: &Response) {
    for line in answer.all("set-cookie") {
        let (name, value) = line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
        assert!(name.len() + value.len() <= 4096, "{name} has {} octets", name.len() + value.len());
    }
}

#[test]
fn a_large_cookie_of_the_application_is_kept_and_its_client_comes_home() {
    let world = World::start(in_mode("prefix"));
    // With token and separator the cookie has exactly 4,096 octets.
    let most = 4096 - "JSESSIONID".len() - 116;
    for (octets, beside) in [(most, false), (most + 1, true), (4096 - "JSESSIONID".len(), true)] {
        let alice = world.browser();
        let answer = alice.get(&sized(octets)).expect(200);
        let home = answer.server();
        assert_kept_by_browsers(&answer);
        assert_eq!(answer.set_cookie(OVERFLOW).is_some(), beside, "{octets}");
        for _ in 0..3 {
            let answer = alice.get("/say").expect(200);
            assert_eq!(answer.server(), home, "{octets}");
            let own = format!("JSESSIONID={}", "v".repeat(octets));
            assert_eq!(answer.received("cookie"), [own], "the application sees its own value alone");
        }
    }
    world.expect_metric(OVERSIZED, &[("pool", "web")], 2.0);
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 3.0);
    world.expect_metric(OUTCOMES, &[("outcome", "kept")], 9.0);
}

#[test]
fn a_large_cookie_that_becomes_small_or_is_deleted_takes_the_token_back() {
    let world = World::start(in_mode("prefix"));
    let alice = world.browser();
    let home = alice.get(&sized(4000)).server();
    assert!(alice.cookie(OVERFLOW).is_some());
    assert_eq!(alice.get(&sized(10)).server(), home);
    assert_eq!(alice.cookie(OVERFLOW), None, "the application's cookie has room again");
    assert_eq!(alice.get("/say").server(), home);
    assert_eq!(alice.get(&sized(4000)).server(), home);
    assert_eq!(alice.get("/say").server(), home);
    alice.get(&saying(200, &["Set-Cookie: JSESSIONID=; Path=/; Max-Age=0"]));
    assert_eq!((alice.cookie(OVERFLOW), alice.cookie("JSESSIONID")), (None, None));
}

#[test]
fn a_session_with_a_large_cookie_moves_once_when_its_server_dies() {
    let world = World::start(in_mode("prefix"));
    let alice = world.browser();
    let home = alice.get(&sized(4000)).server();
    alice.disconnect();
    world.app(&home).kill();
    let answer = alice.get("/say").expect(200);
    let next = answer.server();
    assert_ne!(next, home);
    assert_kept_by_browsers(&answer);
    assert_eq!(answer.set_cookies(OVERFLOW).len(), 1, "the new token, in the cookie that had the old one");
    for _ in 0..3 {
        assert_eq!(alice.get("/say").server(), next);
    }
    world.expect_metric("homing_session_moves_total", &[], 1.0);
}

#[test]
fn the_overflow_cookie_never_reaches_a_server_over_http2_either() {
    for mode in ["prefix", "rewrite"] {
        let world = World::start(in_mode(mode));
        let alice = world.browser();
        let home = alice.get(&sized(if mode == "prefix" { 4000 } else { 10 })).server();
        let token = match alice.cookie(OVERFLOW) {
            Some(token) => token,
            None => alice.cookie("JSESSIONID").expect("the application's cookie"),
        };
        let request = H2Request::get("/say").header("cookie", "a=1").header("cookie", &format!("{OVERFLOW}={token}"));
        let answer = h2(&world.address, request).expect(200);
        assert_eq!((answer.server(), answer.received("cookie")), (home, vec!["a=1".to_owned()]), "{mode}");
    }
}

/// A token of this pool's key, from a clock so far ahead.
fn token_from(ahead: Duration) -> String {
    let secret = KEY_1.split('"').nth(1).expect("the secret");
    let keys = Keyring::new([("k1", secret.as_bytes())]).expect("a keyring");
    let time = UnixMillis::from(SystemTime::now() + ahead);
    let session = SessionId::from_random([7; 16]);
    let token = Token { session, server: ServerId::of("b"), epoch: 0, created: time, issued: time };
    PoolCodec::new(&keys, "web").seal(&token, [9; 24]).as_str().to_owned()
}

#[test]
fn a_token_of_a_clock_far_ahead_is_not_honoured_and_counted() {
    let sources = "sources: [{ cookie: {} }, { header: { name: X-Session } }, { query: { name: sid } }]";
    let world = World::start(Conf::servers("a b c").persistence(sources));
    let far = token_from(Duration::from_secs(400));
    let requests = [
        ("/echo".to_owned(), vec![("Cookie", format!("{SESSION_COOKIE}={far}"))]),
        ("/echo".to_owned(), vec![("X-Session", far.clone())]),
        (format!("/echo?sid={far}"), vec![]),
    ];
    for (target, headers) in &requests {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = request_with(&world.address, "GET", target, &headers).expect(200);
        assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "a new session");
    }
    world.expect_metric(LOOKUPS, &[("result", "unknown")], 3.0);
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 3.0);
    let near = token_from(Duration::from_secs(200));
    let answer = get_with(&world.address, "/echo", &[("Cookie", &format!("{SESSION_COOKIE}={near}"))]).expect(200);
    assert_eq!(answer.server(), "b", "clocks of proxies may differ by five minutes");
}

#[test]
fn values_that_cannot_be_tokens_do_not_keep_the_token_from_being_found() {
    let world = World::start(Conf::servers("a b c"));
    let alice = world.browser();
    let home = alice.server();
    let token = alice.token().expect("a token");
    let line = format!("{}{SESSION_COOKIE}={token}", format!("{SESSION_COOKIE}=stale; ").repeat(20));
    for _ in 0..3 {
        assert_eq!(get_with(&world.address, "/echo", &[("Cookie", &line)]).server(), home);
    }
}
