//! Session data follows its session: users stay logged in through a failover.

use crate::failover::start_with_session;
use crate::world::app::answers::saying;
use crate::world::h2c::{H2Request, h2};
use crate::world::{Browser, Conf, PATIENCE, Response, SESSION_COOKIE, World, at_once, eventually};

pub(crate) const HANDOFF: &str = "homing_handoff_total";
pub(crate) const BYTES: &str = "homing_handoff_bytes";
pub(crate) const ON: &str = "handoff: { enabled: true, max_size: 100B }";

/// Servers that hand over.
pub(crate) fn handing_over(servers: &str) -> Conf {
    Conf::servers(servers).persistence(ON)
}

/// The session's server hands this over.
pub(crate) fn hand_over(browser: &Browser, data: &str) -> Response {
    browser.get(&saying(200, &[&format!("Homing-Session-Data: {data}")])).expect(200)
}

/// What the answering server was given: data, and where the session came from.
pub(crate) fn given(answer: &Response) -> (Vec<String>, Vec<String>) {
    (answer.received("homing-session-data"), answer.received("homing-session-moved"))
}

pub(crate) fn nothing() -> (Vec<String>, Vec<String>) {
    (Vec::new(), Vec::new())
}

pub(crate) fn moved(data: &str, from: &str, epoch: u32) -> (Vec<String>, Vec<String>) {
    (vec![data.to_owned()], vec![format!("from={from}; reason=connect_failure; epoch={epoch}")])
}

/// The server that responded, with any status.
pub(crate) fn answering(answer: &Response) -> String {
    answer.json()["server"].as_str().expect("the name of a server").to_owned()
}

/// Kills the server that the browser is on; the next connection finds it gone.
pub(crate) fn kill(world: &World, server: &str, browser: &Browser) {
    world.app(server).kill();
    browser.disconnect();
}

/// Alice logs in and puts tea and milk into her cart. Returns her server.
pub(crate) fn shopping(browser: &Browser) -> String {
    browser.get("/kept-cart/login?name=alice").expect(200);
    browser.get("/kept-cart/add?item=tea").expect(200);
    let text = browser.get("/kept-cart/add?item=milk").expect(200).text();
    text.strip_prefix("alice has tea,milk on ").expect("a cart").to_owned()
}

#[test]
fn a_logged_in_cart_goes_with_its_session_through_the_kill_of_one_server_after_the_other() {
    let world = World::start(handing_over("a b c"));
    let alice = world.browser();
    let home = shopping(&alice);
    kill(&world, &home, &alice);
    let text = alice.get("/kept-cart").expect(200).text();
    let next = text.strip_prefix("alice has tea,milk on ").expect("still logged in");
    assert_ne!(next, home);
    let text = alice.get("/kept-cart/add?item=eggs").expect(200).text();
    assert_eq!(text, format!("alice has tea,milk,eggs on {next}"), "and at home there");
    kill(&world, next, &alice);
    let text = alice.get("/kept-cart").expect(200).text();
    assert!(text.starts_with("alice has tea,milk,eggs on "), "{text}");
    alice.get("/kept-cart/logout").expect(200);
    alice.get("/kept-cart").expect(401);
    assert_eq!(world.metric(BYTES, &[]), 0.0, "a log-out leaves nothing behind");
}

#[test]
fn without_handoff_the_cart_is_lost() {
    let world = World::start(Conf::servers("a b c"));
    let alice = world.browser();
    let home = shopping(&alice);
    kill(&world, &home, &alice);
    alice.get("/kept-cart").expect(401);
    assert_eq!(world.metric(HANDOFF, &[]), 0.0);
}

#[test]
fn a_client_whose_very_first_answer_handed_over_loses_nothing() {
    let world = World::start(handing_over("a b c"));
    let alice = world.browser();
    let answer = hand_over(&alice, "cart=1");
    assert_eq!(answer.header("homing-session-data"), None, "clients do not see it");
    kill(&world, &answer.server(), &alice);
    assert_eq!(given(&alice.get("/echo")), moved("cart=1", &answer.server(), 1));
    world.expect_metric(HANDOFF, &[("pool", "web"), ("result", "taken")], 1.0);
    world.expect_metric(HANDOFF, &[("pool", "web"), ("result", "given")], 1.0);
}

#[test]
fn a_session_that_stays_is_given_nothing() {
    let (world, alice, _) = start_with_session(handing_over("a b c"));
    hand_over(&alice, "cart=1");
    for _ in 0..3 {
        assert_eq!(given(&alice.get("/echo")), nothing());
    }
    world.expect_metric(HANDOFF, &[("result", "given")], 0.0);
}

#[test]
fn the_new_server_is_given_it_until_it_has_answered_below_500() {
    let (world, alice, home) = start_with_session(handing_over("a b c"));
    hand_over(&alice, "cart=1");
    kill(&world, &home, &alice);
    let mut servers = Vec::new();
    for _ in 0..3 {
        let answer = alice.get(&saying(503, &[])).expect(503);
        assert_eq!(given(&answer), moved("cart=1", &home, 1));
        servers.push(answering(&answer));
    }
    let answer = alice.get(&saying(404, &[])).expect(404);
    assert_eq!((given(&answer), answering(&answer)), (moved("cart=1", &home, 1), servers[0].clone()));
    assert_eq!(given(&alice.get("/echo")), nothing(), "now it knows");
    world.expect_metric("homing_session_moves_total", &[], 1.0);
}

#[test]
fn a_session_without_data_is_announced_until_then_too() {
    let (world, alice, home) = start_with_session(handing_over("a b"));
    kill(&world, &home, &alice);
    for status in [500, 503, 200] {
        let (data, told) = given(&alice.get(&saying(status, &[])));
        assert_eq!((data.len(), told.len()), (0, 1), "{status}");
    }
    assert_eq!(given(&alice.get("/echo")), nothing());
    assert_eq!(world.metric(BYTES, &[]), 0.0);
}

#[test]
fn all_parallel_requests_are_given_it() {
    let (world, alice, home) = start_with_session(handing_over("a b c d"));
    hand_over(&alice, "cart=1");
    world.app(&home).kill();
    let told = at_once(30, || {
        let answer = alice.request("GET", &saying(503, &[])).fresh().send();
        (answering(&answer), given(&answer))
    });
    assert_eq!(told.len(), 1, "one place, and every request brings it there: {told:?}");
    assert_eq!(told.first().map(|(_, given)| given.clone()), Some(moved("cart=1", &home, 1)));
}

#[test]
fn a_session_that_must_move_on_before_any_answer_takes_it_along() {
    let (world, alice, home) = start_with_session(handing_over("a b c"));
    hand_over(&alice, "cart=1");
    kill(&world, &home, &alice);
    let next = answering(&alice.get(&saying(503, &[])));
    kill(&world, &next, &alice);
    let answer = alice.get("/echo");
    assert_eq!(given(&answer), moved("cart=1", &next, 2));
    assert_eq!(given(&alice.get("/echo")), nothing());
}

#[test]
fn too_much_is_refused_and_the_old_stays() {
    let (world, alice, home) = start_with_session(handing_over("a b"));
    hand_over(&alice, "cart=1");
    for _ in 0..3 {
        hand_over(&alice, &"x".repeat(101));
    }
    world.expect_metric(HANDOFF, &[("result", "refused_size")], 3.0);
    let warnings = world.log().matches("session data is larger than handoff.max_size").count();
    assert!((1..=2).contains(&warnings), "told once a minute, not {warnings} times");
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")).0, ["cart=1"]);
    hand_over(&alice, &"y".repeat(100));
    world.expect_metric(HANDOFF, &[("result", "taken")], 2.0);
}

#[test]
fn several_lines_are_refused() {
    let (world, alice, home) = start_with_session(handing_over("a b"));
    hand_over(&alice, "cart=1");
    let two = alice.get(&saying(200, &["Homing-Session-Data: x", "homing-session-data: y"])).expect(200);
    assert_eq!(two.header("homing-session-data"), None);
    world.expect_metric(HANDOFF, &[("result", "refused_lines")], 1.0);
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")).0, ["cart=1"]);
}

#[test]
fn an_empty_header_says_that_there_is_nothing_any_more() {
    let (world, alice, home) = start_with_session(handing_over("a b"));
    hand_over(&alice, "cart=1");
    hand_over(&alice, "");
    world.expect_metric(HANDOFF, &[("result", "forgotten")], 1.0);
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")).0, Vec::<String>::new());
}

#[test]
fn a_server_that_fails_is_not_heard() {
    let (world, alice, home) = start_with_session(handing_over("a b"));
    hand_over(&alice, "cart=1");
    for line in ["Homing-Session-Data: broken", "Homing-Session-Data:"] {
        let answer = alice.get(&saying(500, &[line])).expect(500);
        assert_eq!(answer.header("homing-session-data"), None);
    }
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")).0, ["cart=1"]);
}

#[test]
fn a_sessions_own_server_is_not_given_its_data_back_and_the_next_one_is() {
    let (world, alice, home) = start_with_session(handing_over("a b"));
    hand_over(&alice, "cart=1");
    alice.request("GET", &format!("/reset?only={home}")).fresh().send().expect(502);
    let at_home: Vec<_> = world.app(&home).seen().into_iter().filter(|seen| seen.path() == "/reset").collect();
    assert!(at_home.len() >= 2, "home was tried twice");
    assert!(at_home.iter().all(|seen| seen.head.header("homing-session-data").is_none()));
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")).0, ["cart=1"], "the next server is given it");
}

#[test]
fn a_guest_is_given_it_with_every_request_and_its_word_counts() {
    let (world, alice, home) = start_with_session(handing_over("a b c").persistence("on_server_down: borrow"));
    hand_over(&alice, "cart=1");
    kill(&world, &home, &alice);
    for _ in 0..2 {
        assert_eq!(given(&alice.get("/echo")), (vec!["cart=1".to_owned()], Vec::new()));
    }
    hand_over(&alice, "cart=2");
    assert_eq!(given(&alice.get("/echo")).0, ["cart=2"]);
    hand_over(&alice, "");
    assert_eq!(given(&alice.get("/echo")), nothing(), "a log-out at a guest is not undone");
    world.app(&home).start();
    alice.disconnect();
    eventually(PATIENCE, "it comes home", || alice.server() == home);
    assert_eq!(given(&alice.get("/echo")), nothing());
}

#[test]
fn clients_can_neither_send_nor_see_it_under_any_name() {
    let world = World::start(Conf::servers("a").persistence("handoff: { enabled: true, header: X-State }"));
    let alice = world.browser();
    for name in ["X-State", "x-state", "Homing-Session-Data", "Homing-Session-Moved"] {
        let answer = alice.request("GET", "/echo").header(name, "admin=1").send();
        assert_eq!(answer.received(name), Vec::<String>::new(), "{name}");
        let answer = alice.get(&saying(200, &[&format!("{name}: secret")])).expect(200);
        assert_eq!(answer.header(name), None, "{name}");
        let answer = alice.get(&saying(503, &[&format!("{name}: secret"), &format!("{name}: two")])).expect(503);
        assert_eq!(answer.header(name), None, "{name}");
    }
    let cookie = format!("{SESSION_COOKIE}={}", alice.token().expect("a token"));
    let ask = |path: &str| {
        let request = H2Request::get(path).header("cookie", &cookie).header("x-state", "admin=1");
        h2(&world.address, request.header("homing-session-moved", "from=x"))
    };
    let answer = ask("/echo");
    let (seen, told) = (answer.received("x-state"), answer.received("homing-session-moved"));
    assert_eq!((seen, told), nothing(), "over HTTP/2 too");
    assert_eq!(ask(&saying(200, &["X-State: secret"])).header("x-state"), None);
}

#[test]
fn another_header_carries_it_as_well() {
    let (world, alice, home) =
        start_with_session(Conf::servers("a b").persistence("handoff: { enabled: true, header: X-State }"));
    alice.get(&saying(200, &["x-state: cart=1", "Homing-Session-Data: other"])).expect(200);
    kill(&world, &home, &alice);
    let answer = alice.get("/echo");
    let (state, data) = (answer.received("x-state"), answer.received("homing-session-data"));
    assert_eq!((state, data), (vec!["cart=1".to_owned()], Vec::new()));
}

#[test]
fn over_http2_it_follows_as_well() {
    let (world, alice, home) = start_with_session(handing_over("a b"));
    let cookie = format!("{SESSION_COOKIE}={}", alice.token().expect("a token"));
    let ask = |path: &str| h2(&world.address, H2Request::get(path).header("cookie", &cookie));
    assert_eq!(ask(&saying(200, &["Homing-Session-Data: cart=1"])).header("homing-session-data"), None);
    world.app(&home).kill();
    assert_eq!(given(&ask("/echo")), moved("cart=1", &home, 1));
}

#[test]
fn it_stands_in_no_log_and_no_metric() {
    let (world, alice, home) =
        start_with_session(handing_over("a b").top("log: { level: trace, access: \"{{access}}\" }"));
    hand_over(&alice, "login-of-alice");
    hand_over(&alice, &"long-login-of-alice".repeat(10));
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")).0, ["login-of-alice"]);
    world.access_line("/echo");
    let access: String = world.access_log().iter().map(ToString::to_string).collect();
    for text in [world.log(), world.metrics().text.clone(), access] {
        assert!(!text.is_empty() && !text.contains("login-of-alice"), "{text}");
    }
}
