//! Several sources in one pool: the order decides, and metrics and access log say which it was.

use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::{Browser, Conf, KEY_2, Response, SESSION_COOKIE, World};

const LOOKUPS: &str = "homing_session_lookups_total";

const COOKIE: &str = "{ cookie: {} }";
const HEADER: &str = "{ header: { name: X-Session } }";
const LEARN: &str = "{ learn: { cookie: SID } }";
const ROUTE: &str = "{ route: { cookie: JSESSIONID } }";
const ADDRESS: &str = "{ client_ip: {} }";

fn sources(sources: &[&str]) -> Conf {
    Conf::servers("a b c")
        .listener("trusted_proxies: [127.0.0.0/8]")
        .persistence(&format!("sources: [{}]", sources.join(", ")))
}

/// A client with a token in its cookie, on that server.
fn with_token_at(world: &World, server: &str) -> Browser {
    let found = (0..20).map(|_| world.browser()).find(|browser| browser.get("/plain").text() == server);
    found.expect("one on that server")
}

/// That server hands out an id.
fn create_learned_session_at(world: &World, server: &str, id: &str) {
    let target = format!("{}&only={server}", saying(200, &[&format!("Set-Cookie: SID={id}")]));
    let from = |n: usize| get_with(&world.address, &target, &[("X-Forwarded-For", &format!("192.0.2.{n}"))]);
    let there = (0..20).any(|n| from(n).server() == server);
    assert!(there, "its turn never came");
}

fn ask(world: &World, cookies: &str) -> Response {
    get_with(&world.address, "/plain", &[("Cookie", cookies)]).expect(200)
}

/// Source, lookup and outcome of the first request for that path, by the access log.
fn logged_decision(world: &World, path: &str) -> [String; 3] {
    let line = world.access_line(path);
    ["source", "lookup", "outcome"].map(|name| line[name].as_str().unwrap_or("null").to_owned())
}

#[test]
fn the_order_decides_when_sources_disagree() {
    for (order, server) in [([COOKIE, LEARN, ROUTE], "a"), ([LEARN, ROUTE, COOKIE], "b"), ([ROUTE, COOKIE, LEARN], "c")]
    {
        let world = World::start(sources(&order));
        let token = with_token_at(&world, "a").token().expect("a token");
        create_learned_session_at(&world, "b", "learned");
        let source = |line: &str| {
            let answer = get_with(
                &world.address,
                line,
                &[("Cookie", &format!("{SESSION_COOKIE}={token}; SID=learned; JSESSIONID=x.c"))],
            );
            answer.expect(200).text()
        };
        assert_eq!(source("/plain"), server, "{order:?}");
        assert_eq!(source("/cacheable").len(), "a { color: red }".len());
        let expected = match server {
            "a" => "cookie",
            "b" => "learn",
            _ => "route",
        };
        let [named, _, outcome] = logged_decision(&world, "/cacheable");
        assert_eq!([named.as_str(), outcome.as_str()], [expected, "kept"]);
        let hits = |source| {
            let of = |result| world.metric(LOOKUPS, &[("source", source), ("result", result)]);
            of("hit") + of("restored")
        };
        for source in ["cookie", "learn", "route"] {
            let asked = if source == expected { 2.0 } else { 0.0 };
            assert_eq!(hits(source), asked, "{order:?}: {source}");
        }
    }
}

#[test]
fn a_source_without_a_session_gives_way_to_the_next() {
    let world = World::start(sources(&[COOKIE, HEADER, LEARN, ROUTE]));
    create_learned_session_at(&world, "b", "learned");
    let forged = format!("{SESSION_COOKIE}=forged");
    assert_eq!(ask(&world, &format!("{forged}; SID=learned; JSESSIONID=x.c")).text(), "b");
    assert_eq!(logged_decision(&world, "/plain"), ["learn", "hit", "kept"]);
    assert_eq!(ask(&world, &format!("{forged}; SID=unknown; JSESSIONID=x.c")).text(), "c");
    world.expect_metric(LOOKUPS, &[("source", "cookie"), ("result", "forged")], 2.0);
    world.expect_metric(LOOKUPS, &[("source", "cookie"), ("result", "hit")], 0.0);
    let unknown = get_with(&world.address, "/nomark", &[("Cookie", "SID=unknown; JSESSIONID=nomark")]).expect(200);
    assert_eq!(logged_decision(&world, "/nomark"), ["learn", "unknown", "new"], "the first thing that was named");
    for _ in 0..4 {
        let again = get_with(&world.address, "/say", &[("Cookie", "SID=unknown; JSESSIONID=other")]);
        assert_eq!(again.server(), unknown.server(), "and it decides where a new session begins");
    }
}

#[test]
fn a_client_with_a_learned_id_gets_no_token_beside_it() {
    let world = World::start(sources(&[LEARN, COOKIE]));
    let alice = world.browser();
    let first = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/"]));
    assert!(first.set_cookie(SESSION_COOKIE).is_some(), "before it had an id it had no session");
    for _ in 0..3 {
        let answer = alice.get("/say");
        assert_eq!((answer.server(), answer.set_cookie(SESSION_COOKIE)), (first.server(), None));
    }
    world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "hit")], 3.0);
}

#[test]
fn the_end_of_one_id_is_not_the_end_of_a_session_that_another_names() {
    let world = World::start(sources(&[LEARN, "{ learn: { cookie: CART, ends_on: [DELETE] } }"]));
    let alice = world.browser();
    let home = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/", "Set-Cookie: CART=full; Path=/"])).server();
    for (method, line) in [("GET", "Set-Cookie: CART=; Path=/; Max-Age=0"), ("DELETE", "X-Gone: cart")] {
        assert_eq!(alice.request(method, &saying(200, &[line])).send().server(), home);
        assert_eq!(alice.get("/say").server(), home);
    }
    world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "hit")], 4.0);
    world.expect_metric("homing_sessions_ended_total", &[("reason", "ended")], 0.0);
}

#[test]
fn a_mark_behind_the_token_in_one_cookie_counts_when_the_token_does_not_open() {
    let conf = || sources(&[COOKIE, ROUTE]).persistence("cookie: { mode: prefix, name: JSESSIONID }");
    let mut world = World::start(conf());
    let alice = world.browser();
    let target = format!("{}&only=b", saying(200, &["Set-Cookie: JSESSIONID=0AB3.b; Path=/"]));
    assert!((0..3).any(|_| alice.get(&target).server() == "b"), "its turn comes");
    assert_eq!(alice.get("/say").server(), "b");
    world.reload(conf().keys(&[KEY_2]));
    for _ in 0..3 {
        let answer = alice.get("/say");
        assert_eq!(answer.server(), "b");
        assert!(answer.received("cookie").join("; ").ends_with("JSESSIONID=0AB3.b"), "the application sees its own");
    }
    world.expect_metric(LOOKUPS, &[("source", "cookie"), ("result", "forged")], 3.0);
    world.expect_metric(LOOKUPS, &[("source", "route"), ("result", "hit")], 3.0);
}

#[test]
fn a_forged_token_is_refused_whatever_else_names_the_client() {
    let world = World::start(sources(&[COOKIE, LEARN, ADDRESS]).persistence("on_forged: refuse"));
    let token = with_token_at(&world, "a").token().expect("a token");
    create_learned_session_at(&world, "b", "learned");
    let forged = &token[1..];
    let refused =
        get_with(&world.address, "/secret", &[("Cookie", &format!("{SESSION_COOKIE}={forged}; SID=learned"))]);
    let cleared = refused.expect(400);
    assert!(cleared.set_cookie(SESSION_COOKIE).is_some_and(|line| line.contains("Max-Age=0")), "{:?}", cleared.head);
    assert_eq!(world.count("GET", "/secret"), 0);
    let line = world.access_line("/secret");
    assert_eq!((line["lookup"].as_str(), line["source"].as_str()), (Some("hit"), Some("learn")));
    assert_eq!(ask(&world, "SID=learned").text(), "b", "without it the client is welcome");
}

#[test]
fn a_forged_token_in_a_header_does_not_cost_the_cookie() {
    let world = World::start(sources(&[HEADER, COOKIE]).persistence("on_forged: refuse"));
    let alice = with_token_at(&world, "a");
    let refused = alice.request("GET", "/secret").header("X-Session", "forged").send().expect(400);
    assert_eq!(refused.all("set-cookie"), Vec::<&str>::new(), "its cookie is good");
    assert_eq!(alice.get("/plain").text(), "a");
}

#[test]
fn a_token_of_another_key_behind_a_live_session_is_not_looked_at() {
    let world = World::start(sources(&[LEARN, COOKIE]).persistence("on_forged: refuse"));
    create_learned_session_at(&world, "b", "learned");
    assert_eq!(ask(&world, &format!("SID=learned; {SESSION_COOKIE}=forged")).text(), "b");
}

#[test]
fn an_address_with_a_session_stays_kept_where_no_token_can_be_given() {
    let conf = sources(&[COOKIE, ADDRESS]).persistence("cookie: { mode: prefix, name: JSESSIONID }");
    let world = World::start(conf);
    let home = ask(&world, "a=1").text();
    for _ in 0..3 {
        assert_eq!(ask(&world, "a=1").text(), home);
    }
    world.expect_metric("homing_session_outcomes_total", &[("outcome", "new")], 1.0);
    world.expect_metric("homing_session_outcomes_total", &[("outcome", "kept")], 3.0);
}

#[test]
fn an_address_never_hides_a_cookie_of_the_application() {
    let world = World::start(sources(&[ADDRESS]));
    let line = format!("{SESSION_COOKIE}=the-applications-own");
    let answer = get_with(&world.address, "/say", &[("Cookie", &line)]);
    assert_eq!(answer.received("cookie"), [line], "no source reads a token from it");
}

#[test]
fn a_reload_that_changes_the_sources_keeps_sessions() {
    let mut world = World::start(sources(&[COOKIE, LEARN]));
    let alice = with_token_at(&world, "a");
    create_learned_session_at(&world, "b", "learned");
    let at_home = |world: &World| {
        assert_eq!(alice.get("/plain").text(), "a");
        assert_eq!(ask(world, "SID=learned").text(), "b");
    };
    at_home(&world);
    for order in [&[LEARN, COOKIE][..], &[ADDRESS, LEARN], &[HEADER, COOKIE, ROUTE, LEARN], &[COOKIE, LEARN]] {
        world.reload(sources(order));
        if order.contains(&COOKIE) {
            at_home(&world);
        }
    }
    world.reload(sources(&[COOKIE, LEARN]).keys(&[KEY_2, crate::world::KEY_1]));
    at_home(&world);
    world.expect_metric("homing_session_moves_total", &[], 0.0);
}
