//! The token in the application's own cookie: before its value, or in its place.

use std::collections::BTreeSet;

use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::h2c::{H2Request, h2};
use crate::world::{Browser, Conf, KEY_1, KEY_2, Response, World};

const OUTCOMES: &str = "homing_session_outcomes_total";
const TOKENS: &str = "homing_tokens_issued_total";

/// The value that every client is given, as `SockJS` does.
const DUMMY: &str = "Set-Cookie: JSESSIONID=dummy; Path=/; HttpOnly";

fn in_mode(mode: &str) -> Conf {
    Conf::servers("a b c").persistence(&format!("cookie: {{ mode: {mode}, name: JSESSIONID }}"))
}

/// A client with the application's cookie, and its server.
fn begin(world: &World) -> (Browser, String) {
    let browser = world.browser();
    let home = browser.get(&saying(200, &[DUMMY])).server();
    browser.disconnect();
    (browser, home)
}

fn value(browser: &Browser) -> String {
    browser.cookie("JSESSIONID").expect("the application's cookie")
}

fn with_cookie(world: &World, target: &str, line: &str) -> Response {
    get_with(&world.address, target, &[("Cookie", line)])
}

#[test]
fn clients_with_the_same_application_cookie_have_separate_sessions() {
    for mode in ["prefix", "rewrite"] {
        let world = World::start(in_mode(mode));
        let sessions: Vec<_> = (0..9).map(|_| begin(&world)).collect();
        let values: BTreeSet<_> = sessions.iter().map(|(browser, _)| value(browser)).collect();
        assert_eq!(values.len(), 9, "no two are alike");
        assert_eq!(sessions.iter().map(|(_, home)| home).collect::<BTreeSet<_>>().len(), 3);
        for (browser, home) in sessions.iter().chain(&sessions) {
            let answer = browser.get("/say");
            assert_eq!((answer.server(), answer.all("set-cookie").len()), (home.clone(), 0), "{mode}");
        }
        world.expect_metric(OUTCOMES, &[("outcome", "new")], 9.0);
        world.expect_metric(OUTCOMES, &[("outcome", "kept")], 18.0);
        world.expect_metric(TOKENS, &[("reason", "new")], 9.0);
        world.expect_metric("homing_session_lookups_total", &[("source", "cookie"), ("result", "hit")], 9.0);
    }
}

#[test]
fn with_prefix_the_application_sees_exactly_its_own_value() {
    let world = World::start(in_mode("prefix"));
    for own in ["dummy", "", "a~b", "x==", "\"quoted\"", "\"with blanks, and commas\"", "0AB3.app1"] {
        let browser = world.browser();
        let home = browser.get(&saying(200, &[&format!("Set-Cookie: JSESSIONID={own}; Path=/")])).server();
        let sent = value(&browser);
        assert_ne!(sent, own);
        for line in [format!("JSESSIONID={sent}"), format!("a=1; JSESSIONID={sent}; b=\"2 3\"")] {
            let answer = with_cookie(&world, "/say", &line);
            assert_eq!(answer.server(), home, "{line}");
            assert_eq!(answer.received("cookie"), [line.replace(&sent, own)]);
        }
    }
}

#[test]
fn with_rewrite_the_application_sees_no_cookie_unless_the_pool_says_so() {
    let world = World::start(in_mode("rewrite"));
    let (browser, _) = begin(&world);
    let line = format!("a=1; JSESSIONID={}; b=2", value(&browser));
    assert!(!line.contains("dummy"));
    assert_eq!(with_cookie(&world, "/say", &line).received("cookie"), ["a=1; b=2"]);
    let conf = Conf::servers("a b c");
    let world = World::start(conf.persistence("cookie: { mode: rewrite, name: JSESSIONID, hide_from_server: false }"));
    assert_eq!(with_cookie(&world, "/say", &line).received("cookie"), [line]);
}

#[test]
fn attributes_and_other_cookies_stay_as_the_application_wrote_them() {
    for (mode, own) in [("prefix", "~dummy"), ("rewrite", "")] {
        let world = World::start(in_mode(mode));
        let lines = [
            "Set-Cookie: first=1; Path=/",
            "Set-Cookie: JSESSIONID=dummy ;path=/shop;  HttpOnly; Expires=Wed, 09 Jun 2099 10:18:14 GMT;X",
            "Set-Cookie: JSESSIONIDX=y",
            "Set-Cookie: last=\"a b\"",
        ];
        let answer = get_with(&world.address, &saying(200, &lines), &[]).expect(200);
        let set = answer.all("set-cookie");
        assert_eq!(set.len(), 4);
        let others: Vec<_> = [0, 2, 3].iter().map(|n| format!("Set-Cookie: {}", set[*n])).collect();
        assert_eq!(others, [lines[0], lines[2], lines[3]], "{mode}: untouched and in order");
        let token = set[1].strip_prefix("JSESSIONID=").expect("the cookie").split(['~', ' ']).next().expect("a token");
        let expected = lines[1].replace("dummy", &format!("{token}{own}"));
        assert_eq!(format!("Set-Cookie: {}", set[1]), expected);
        assert!(token.len() > 60, "{token}");
        assert_eq!(answer.all("cache-control"), ["private"]);
    }
}

#[test]
fn the_token_comes_before_every_value_that_the_application_sets() {
    let world = World::start(in_mode("prefix"));
    let (browser, home) = begin(&world);
    let first = value(&browser);
    let answer = browser.get(&saying(200, &["Set-Cookie: JSESSIONID=second; Path=/"]));
    assert_eq!(answer.server(), home);
    let second = value(&browser);
    assert!(second.ends_with("~second") && second != first, "{second}");
    assert_eq!(browser.get("/say").received("cookie"), ["JSESSIONID=second"]);
    world.expect_metric(TOKENS, &[], 1.0);
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 1.0);
}

#[test]
fn a_session_outlives_an_answer_that_says_only_that_nothing_has_changed() {
    for (mode, begins) in [("prefix", 304), ("prefix", 200), ("rewrite", 304), ("rewrite", 200)] {
        let world = World::start(in_mode(mode));
        let browser = world.browser();
        browser.get(&saying(begins, &[DUMMY])).expect(begins);
        let home = browser.get("/say").server();
        assert_eq!(browser.get(&saying(304, &[DUMMY])).expect(304).all("set-cookie").len(), 1);
        assert_eq!(browser.get("/say").server(), home, "{mode}");
        world.expect_metric(OUTCOMES, &[("outcome", "kept")], 3.0);
        world.expect_metric(OUTCOMES, &[("outcome", "new")], 1.0);
        assert_eq!(browser.get(&saying(304, &[])).expect(304).all("set-cookie").len(), 0, "nothing of our own");
    }
}

#[test]
fn the_application_takes_its_cookie_away() {
    for mode in ["prefix", "rewrite"] {
        let world = World::start(in_mode(mode));
        let (browser, home) = begin(&world);
        let gone = "Set-Cookie: JSESSIONID=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        let answer = browser.get(&saying(200, &[gone]));
        assert_eq!(answer.server(), home);
        assert_eq!(answer.all("set-cookie"), [&gone["Set-Cookie: ".len()..]], "{mode}: as the application wrote it");
        assert_eq!(browser.cookie("JSESSIONID"), None);
        browser.get("/say").expect(200);
        world.expect_metric(OUTCOMES, &[("outcome", "balanced")], 1.0);
    }
}

#[test]
fn a_client_without_the_applications_cookie_is_given_nothing() {
    let world = World::start(in_mode("prefix"));
    for _ in 0..3 {
        let answer = get_with(&world.address, "/say", &[("Cookie", "other=1")]).expect(200);
        assert_eq!((answer.all("set-cookie").len(), answer.all("cache-control").len()), (0, 0));
    }
    world.expect_metric(OUTCOMES, &[("outcome", "balanced")], 3.0);
    world.expect_metric(TOKENS, &[], 0.0);
    assert_eq!(world.access_line("/say")["outcome"], "balanced");
}

#[test]
fn a_cookie_from_before_the_proxy_is_left_alone() {
    for mode in ["prefix", "rewrite"] {
        let world = World::start(in_mode(mode).persistence("on_forged: refuse"));
        for own in ["0AB3.app1", "a~b", "\"q w\"", ""] {
            let line = format!("a=1; JSESSIONID={own}; b=2");
            let answer = with_cookie(&world, "/say", &line).expect(200);
            assert_eq!(answer.received("cookie"), [line], "{mode}: the application sees it");
            assert_eq!(answer.all("set-cookie"), Vec::<&str>::new());
        }
        world.expect_metric("homing_session_lookups_total", &[("result", "none")], 4.0);
        let answer = with_cookie(&world, &saying(200, &[DUMMY]), "JSESSIONID=0AB3").expect(200);
        assert!(answer.set_cookie("JSESSIONID").is_some_and(|line| line.len() > 100), "with the next cookie it begins");
    }
}

#[test]
fn a_moved_session_is_given_its_cookie_again() {
    for own in ["dummy", "\"two words\""] {
        let world = World::start(in_mode("prefix"));
        let browser = world.browser();
        let home = browser.get(&saying(200, &[&format!("Set-Cookie: JSESSIONID={own}; Path=/")])).server();
        browser.disconnect();
        let before = value(&browser);
        world.app(&home).kill();
        let moved = browser.get("/say");
        assert_ne!(moved.server(), home);
        assert_eq!(moved.received("cookie"), [format!("JSESSIONID={own}")]);
        assert!(moved.set_cookie("JSESSIONID").is_some(), "{:?}", moved.head);
        assert_eq!(moved.all("cache-control"), ["private"]);
        assert_ne!(value(&browser), before);
        world.app(&home).start();
        let answer = browser.get("/say");
        assert_eq!((answer.server(), answer.set_cookie("JSESSIONID")), (moved.server(), None));
        assert_eq!(answer.received("cookie"), [format!("JSESSIONID={own}")], "the application's value is the same");
        world.expect_metric(TOKENS, &[("reason", "moved")], 1.0);
        world.expect_metric("homing_session_moves_total", &[], 1.0);
    }
}

#[test]
fn a_new_server_that_sets_the_cookie_itself_is_not_talked_over() {
    let world = World::start(in_mode("prefix"));
    let (browser, home) = begin(&world);
    world.app(&home).kill();
    let moved = browser.get(&saying(200, &["Set-Cookie: JSESSIONID=new; Path=/; Secure"]));
    let line = moved.set_cookie("JSESSIONID").expect("once");
    assert!(line.ends_with("~new; Path=/; Secure"), "{line}");
    assert_eq!(browser.get("/say").server(), moved.server());
    world.expect_metric(TOKENS, &[("reason", "moved")], 1.0);
}

#[test]
fn cookie_crumbs_of_http2_carry_the_token_too() {
    let world = World::start(in_mode("prefix"));
    let (browser, home) = begin(&world);
    let crumbs = H2Request::get("/say")
        .header("cookie", "a=1")
        .header("cookie", &format!("JSESSIONID={}", value(&browser)))
        .header("cookie", "b=2; c=3");
    for _ in 0..3 {
        let answer = h2(&world.address, crumbs.clone());
        assert_eq!(answer.server(), home);
        assert_eq!(answer.received("cookie"), ["a=1; JSESSIONID=dummy; b=2; c=3"]);
    }
}

#[test]
fn a_refused_session_is_replaced_with_the_applications_next_cookie() {
    for mode in ["prefix", "rewrite"] {
        let world = World::start(in_mode(mode).persistence("on_server_down: refuse"));
        let (browser, home) = begin(&world);
        browser.get("/say").expect(200);
        browser.disconnect();
        world.app(&home).kill();
        browser.get("/say").expect(503);
        let answer = browser.get(&saying(200, &[DUMMY]));
        assert_ne!(answer.server(), home);
        assert_eq!(browser.get("/say").server(), answer.server(), "{mode}: a new session");
        world.expect_metric("homing_session_lookups_total", &[("result", "ended")], 1.0);
    }
}

#[test]
fn a_token_that_does_not_open_is_still_not_the_applications() {
    let mut world = World::start(in_mode("prefix").keys(&[KEY_1]));
    let (browser, _) = begin(&world);
    let line = format!("JSESSIONID={}", value(&browser));
    world.reload(in_mode("prefix").keys(&[KEY_2]));
    assert_eq!(with_cookie(&world, "/say", &line).received("cookie"), ["JSESSIONID=dummy"]);
    world.expect_metric("homing_session_lookups_total", &[("result", "forged")], 1.0);
}

#[test]
fn a_client_whose_token_is_refused_is_not_refused_for_ever() {
    for mode in ["insert", "prefix", "rewrite"] {
        let conf = |key| in_mode(mode).persistence("on_forged: refuse").keys(&[key]);
        let mut world = World::start(conf(KEY_1));
        let (browser, _) = begin(&world);
        browser.get("/say").expect(200);
        world.reload(conf(KEY_2));
        browser.request("GET", "/say").fresh().send().expect(400);
        browser.request("GET", "/say").fresh().send().expect(200);
        world.expect_metric("homing_session_lookups_total", &[("result", "forged")], 1.0);
    }
}
