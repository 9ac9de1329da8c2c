//! The sealed token in a header, and in a URL whose links are not rewritten.

use crate::world::app::answers::saying;
use crate::world::client::{get_with, request_with};
use crate::world::{Conf, KEY_1, KEY_2, Response, SESSION_COOKIE, World};

const LOOKUPS: &str = "homing_session_lookups_total";
const TOKENS: &str = "homing_tokens_issued_total";

fn by_header() -> Conf {
    Conf::servers("a b c").persistence("sources: [{ header: { name: X-Session } }]").persistence("issue: header")
}

fn with_token(world: &World, token: &str) -> Response {
    get_with(&world.address, "/say", &[("x-session", token)])
}

/// A new client's token and server.
fn begin(world: &World) -> (String, String) {
    let answer = get_with(&world.address, "/say", &[]);
    (answer.header("x-session").expect("a token").to_owned(), answer.server())
}

#[test]
fn a_new_client_is_given_its_token_in_a_header_once() {
    let world = World::start(by_header());
    let first = get_with(&world.address, "/say", &[]);
    assert_eq!(first.all("x-session").len(), 1);
    assert_eq!(first.all("cache-control"), ["private"], "no shared cache keeps it");
    assert_eq!(first.all("set-cookie"), Vec::<&str>::new());
    let (token, home) = (first.header("x-session").expect("a token"), first.server());
    for _ in 0..5 {
        let answer = with_token(&world, token);
        assert_eq!(answer.server(), home);
        assert_eq!(answer.all("x-session"), Vec::<&str>::new(), "it has its token");
        assert_eq!(answer.all("cache-control"), Vec::<&str>::new());
        assert_eq!(answer.received("x-session"), Vec::<String>::new(), "hidden from the application");
    }
    world.expect_metric(LOOKUPS, &[("source", "header"), ("result", "restored")], 1.0);
    world.expect_metric(LOOKUPS, &[("source", "header"), ("result", "hit")], 4.0);
    world.expect_metric(TOKENS, &[], 1.0);
}

#[test]
fn a_servers_own_header_of_that_name_takes_no_clients_token_away() {
    let world = World::start(by_header());
    let (token, home) = begin(&world);
    let answer = get_with(&world.address, &saying(200, &["X-Session: of the server"]), &[("x-session", &token)]);
    assert_eq!((answer.server(), answer.all("x-session")), (home, Vec::<&str>::new()));
}

#[test]
fn clients_with_tokens_in_headers_come_home_among_many_others() {
    let world = World::start(by_header());
    let sessions: Vec<_> = (0..9).map(|_| begin(&world)).collect();
    for (token, home) in sessions.iter().chain(&sessions) {
        assert_eq!(&with_token(&world, token).server(), home);
    }
}

#[test]
fn the_application_sees_the_header_where_the_pool_says_so() {
    let world = World::start(by_header().persistence("cookie: { hide_from_server: false }"));
    let (token, _) = begin(&world);
    assert_eq!(with_token(&world, &token).received("x-session"), [token]);
}

#[test]
fn a_moved_session_is_told_in_the_header() {
    let world = World::start(by_header());
    let (token, home) = begin(&world);
    world.app(&home).kill();
    let moved = with_token(&world, &token);
    assert_ne!(moved.server(), home);
    let new = moved.header("x-session").expect("another token").to_owned();
    world.app(&home).start();
    let answer = with_token(&world, &new);
    assert_eq!((answer.server(), answer.header("x-session")), (moved.server(), None));
    world.expect_metric(TOKENS, &[("reason", "moved")], 1.0);
}

#[test]
fn a_rotated_key_reissues_the_token_in_the_header() {
    let mut world = World::start(by_header());
    let (token, home) = begin(&world);
    world.reload(by_header().keys(&[KEY_2, KEY_1]));
    let answer = with_token(&world, &token);
    assert_eq!(answer.server(), home);
    let new = answer.header("x-session").expect("reissued").to_owned();
    world.reload(by_header().keys(&[KEY_2]));
    assert_eq!((with_token(&world, &new).server(), with_token(&world, &new).header("x-session")), (home, None));
    world.expect_metric(TOKENS, &[("reason", "key_rotated")], 1.0);
}

#[test]
fn a_refused_token_in_a_header_is_over() {
    let conf = by_header().persistence("on_server_down: refuse").persistence("refuse_status: 404");
    let world = World::start(conf);
    let (token, home) = begin(&world);
    assert_eq!(with_token(&world, &token).server(), home);
    world.app(&home).kill();
    with_token(&world, &token).expect(404);
    let restarted = with_token(&world, &token).expect(200);
    assert_ne!(restarted.server(), home);
    let new = restarted.header("x-session").expect("a token").to_owned();
    world.expect_metric(LOOKUPS, &[("source", "header"), ("result", "ended")], 1.0);
    world.app(&home).start();
    assert!(with_token(&world, &token).header("x-session").is_some(), "and it stays over");
    assert_eq!(with_token(&world, &new).server(), restarted.server());
    world.expect_metric("homing_sessions_ended_total", &[("reason", "ended")], 1.0);
}

#[test]
fn forged_headers_name_no_session() {
    let world = World::start(by_header());
    let (token, _) = begin(&world);
    for forged in ["", "x", &token[1..], &format!("{token}A"), &"A".repeat(4000)] {
        let answer = with_token(&world, forged).expect(200);
        assert!(answer.header("x-session").is_some_and(|given| given != forged), "a new session for {forged:?}");
    }
}

fn by_query() -> Conf {
    Conf::servers("a b c").persistence("sources: [{ cookie: {} }, { query: {} }]")
}

#[test]
fn a_token_in_the_url_names_its_session() {
    let world = World::start(by_query());
    for _ in 0..6 {
        let browser = world.browser();
        let home = browser.server();
        let token = browser.token().expect("a token");
        for target in [
            format!("/echo?sessionId={token}"),
            format!("/echo?a=b&sessionId={token}&c=d"),
            format!("/echo;sessionId={token}"),
            format!("/shop;v=1;sessionId={token}/cart?x=y"),
        ] {
            let answer = get_with(&world.address, &target, &[]);
            assert_eq!(answer.server(), home, "{target}");
            assert_eq!(answer.set_cookie(SESSION_COOKIE), None, "it has a session");
        }
    }
    world.expect_metric(LOOKUPS, &[("source", "query"), ("result", "restored")], 6.0);
    world.expect_metric(LOOKUPS, &[("source", "query"), ("result", "hit")], 18.0);
}

#[test]
fn a_refused_token_in_the_url_is_over() {
    let conf = by_query().persistence("on_server_down: refuse").persistence("refuse_status: 404");
    let world = World::start(conf);
    let browser = world.browser();
    let home = browser.server();
    let target = format!("/plain?sessionId={}", browser.token().expect("a token"));
    let ask = || request_with(&world.address, "GET", &target, &[]);
    assert_eq!(ask().expect(200).text(), home);
    world.app(&home).kill();
    assert_eq!(ask().expect(404).all("set-cookie"), Vec::<&str>::new(), "there is no cookie to take away");
    let restarted = ask().expect(200);
    assert!(restarted.set_cookie(SESSION_COOKIE).is_some(), "a new session");
    world.expect_metric(LOOKUPS, &[("source", "query"), ("result", "ended")], 1.0);
}
