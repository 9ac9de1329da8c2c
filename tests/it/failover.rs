//! A server is gone: its sessions move once, to one place, and nothing is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use crate::world::http1::Hash;
use crate::world::{App, Browser, Conf, PATIENCE, QUICK_CHECK, SESSION_COOKIE, World, eventually};

pub(crate) const MOVES: &str = "homing_session_moves_total";
pub(crate) const OUTCOMES: &str = "homing_session_outcomes_total";

/// A world in which Alice has a home, over connections that are used once (so that no pooled connection is in play).
pub(crate) fn start_with_session(conf: Conf) -> (World, Browser, String) {
    let world = World::start(conf);
    let alice = world.browser();
    let home = alice.server();
    assert_eq!(alice.server(), home, "Alice is at home");
    (world, alice, home)
}

/// The servers other than this one.
pub(crate) fn others<'a>(world: &'a World, home: &'a str) -> impl Iterator<Item = &'a App> {
    world.apps().filter(move |app| app.name() != home)
}

#[test]
fn a_session_moves_once_when_its_server_refuses_and_stays_where_it_moved() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    world.app(&home).kill();
    let answer = alice.get("/echo");
    let next = answer.server();
    assert_ne!(next, home, "the dead server is not chosen again");
    assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "the client is told");
    for _ in 0..20 {
        let answer = alice.get("/echo");
        assert_eq!((answer.server(), answer.set_cookie(SESSION_COOKIE)), (next.clone(), None), "it stays");
    }
    world.app(&home).start();
    for _ in 0..5 {
        assert_eq!(alice.server(), next, "it does not move back");
    }
    world.expect_metric(MOVES, &[("pool", "web"), ("reason", "connect_failure")], 1.0);
    assert_eq!(world.metric(MOVES, &[]), 1.0, "and for no other reason");
    world.expect_metric(OUTCOMES, &[("pool", "web"), ("outcome", "moved")], 1.0);
    world.expect_metric("homing_tokens_issued_total", &[("pool", "web"), ("reason", "moved")], 1.0);
}

#[test]
fn a_post_goes_elsewhere_when_nothing_of_it_was_sent() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    world.app(&home).kill();
    let body = "x".repeat(200_000);
    let answer = alice.post("/order", body.clone());
    assert_ne!(answer.server(), home);
    assert_eq!(answer.json()["body_hash"], Hash::of(body.as_bytes()), "the whole body arrives");
    assert_eq!(world.count("POST", "/order"), 1, "once");
}

#[test]
fn a_session_moves_when_its_server_takes_no_connection_in_time() {
    let conf = Conf::servers("a b c").pool("connection: { connect_timeout: 300ms }");
    let (world, alice, home) = start_with_session(conf);
    world.app(&home).blackhole();
    alice.disconnect();
    let start = Instant::now();
    let next = alice.server();
    assert_ne!(next, home);
    assert!(start.elapsed() < Duration::from_secs(3), "within the connect timeout and a little: {:?}", start.elapsed());
    assert_eq!(alice.server(), next, "and stays");
    world.expect_metric(MOVES, &[("pool", "web"), ("reason", "connect_failure")], 1.0);
}

#[test]
fn a_session_moves_when_its_server_is_found_down() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c").pool(QUICK_CHECK));
    world.app(&home).set_health(500);
    world.wait_for_health(&home, false);
    let before = world.app(&home).requests();
    let next = alice.server();
    assert_ne!(next, home);
    assert_eq!(world.app(&home).requests(), before, "a server that is down sees no request");
    world.expect_metric(MOVES, &[("pool", "web"), ("reason", "down")], 1.0);
    world.app(&home).set_health(200);
    world.wait_for_health(&home, true);
    assert_eq!(alice.server(), next, "it stays when the server is well again");
}

#[test]
fn a_flapping_server_moves_a_session_once() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c").pool(QUICK_CHECK));
    let mut next = None;
    for _ in 0..3 {
        world.app(&home).set_health(503);
        world.wait_for_health(&home, false);
        let now = alice.server();
        assert_eq!(*next.get_or_insert_with(|| now.clone()), now, "one move only");
        world.app(&home).set_health(200);
        world.wait_for_health(&home, true);
        assert_eq!(Some(alice.server()), next);
    }
    world.expect_metric(MOVES, &[], 1.0);
}

#[test]
fn a_session_leaves_a_server_in_maintenance() {
    let (mut world, alice, home) = start_with_session(Conf::servers("a b c"));
    world.reload(Conf::servers("a b c").server(&home, "state: maint"));
    let next = alice.server();
    assert_ne!(next, home);
    world.expect_metric(MOVES, &[("pool", "web"), ("reason", "maint")], 1.0);
    world.reload(Conf::servers("a b c"));
    assert_eq!(alice.server(), next, "it stays when the work is done");
}

#[test]
fn a_session_leaves_a_server_that_was_removed() {
    let (mut world, alice, home) = start_with_session(Conf::servers("a b c"));
    let left: Vec<_> = others(&world, &home).map(|app| app.name().to_owned()).collect();
    world.reload(Conf::servers(&left.join(" ")));
    let next = alice.server();
    assert_ne!(next, home);
    for _ in 0..5 {
        assert_eq!(alice.server(), next, "it stays");
    }
    world.expect_metric(MOVES, &[("pool", "web"), ("reason", "removed")], 1.0);
}

#[test]
fn a_restarted_proxy_knows_a_token_of_a_removed_server_for_what_it_is() {
    let (mut world, alice, home) = start_with_session(Conf::servers("a b c"));
    let left: Vec<_> = others(&world, &home).map(|app| app.name().to_owned()).collect();
    world.environment.rewrite(Conf::servers(&left.join(" ")));
    world.restart_proxy();
    let next = alice.server();
    assert_eq!(alice.server(), next);
    world.expect_metric("homing_session_lookups_total", &[("result", "unknown_server")], 1.0);
}

#[test]
fn a_draining_server_keeps_its_sessions_and_takes_no_new_ones() {
    let (mut world, alice, home) = start_with_session(Conf::servers("a b c"));
    world.reload(Conf::servers("a b c").server(&home, "state: drain"));
    for _ in 0..10 {
        assert_eq!(alice.server(), home, "bound sessions stay");
        assert_ne!(world.browser().server(), home, "new ones go elsewhere");
    }
    world.expect_metric(MOVES, &[], 0.0);
    let state = [("pool", "web"), ("server", home.as_str()), ("state", "drain")];
    world.expect_metric("homing_server_state", &state, 1.0);
}

#[test]
fn sessions_leave_a_draining_server_where_the_pool_says_so() {
    let conf = || Conf::servers("a b c").persistence("on_server_drain: reassign");
    let (mut world, alice, home) = start_with_session(conf());
    world.reload(conf().server(&home, "state: drain"));
    let next = alice.server();
    assert_ne!(next, home);
    assert_eq!(alice.server(), next, "it stays where it moved");
    world.expect_metric(MOVES, &[("pool", "web"), ("reason", "drain")], 1.0);
}

#[test]
fn weight_zero_keeps_bound_sessions() {
    let (mut world, alice, home) = start_with_session(Conf::servers("a b c"));
    world.reload(Conf::servers("a b c").server(&home, "weight: 0"));
    for _ in 0..5 {
        assert_eq!(alice.server(), home);
        assert_ne!(world.browser().server(), home, "new ones go elsewhere");
    }
}

#[test]
fn a_borrowed_session_returns_home() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c").persistence("on_server_down: borrow"));
    world.app(&home).kill();
    for _ in 0..5 {
        let answer = alice.get("/echo");
        assert_ne!(answer.server(), home, "served elsewhere meanwhile");
        assert_eq!(answer.set_cookie(SESSION_COOKIE), None, "but not bound there");
    }
    world.app(&home).start();
    eventually(PATIENCE, "back home", || alice.server() == home);
    for _ in 0..5 {
        assert_eq!(alice.server(), home, "at home again");
    }
    world.expect_metric(MOVES, &[], 0.0);
    assert!(world.metric(OUTCOMES, &[("outcome", "borrowed")]) >= 5.0, "each borrowed answer is counted");
}

#[test]
fn a_session_is_borrowed_by_one_server_at_a_time() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c d").persistence("on_server_down: borrow"));
    world.app(&home).kill();
    let lenders: BTreeSet<_> = (0..10).map(|_| alice.server()).collect();
    assert_eq!(lenders.len(), 1, "the consistent hash says the same each time: {lenders:?}");
}

#[test]
fn a_session_is_refused_elsewhere_where_the_pool_says_so() {
    let conf = Conf::servers("a b c").persistence("on_server_down: refuse").persistence("refuse_status: 404");
    let (world, alice, home) = start_with_session(conf);
    world.app(&home).kill();
    alice.disconnect();
    let answer = alice.get("/refused").expect(404);
    assert_eq!(world.count("GET", "/refused"), 0, "no other server saw it");
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "{:?}", answer.head);
    assert_eq!(alice.token(), None, "the dead token is taken away");
    assert_ne!(alice.server(), home, "the next request begins a new session");
    world.expect_metric(OUTCOMES, &[("outcome", "refused")], 1.0);
    world.expect_metric(OUTCOMES, &[("outcome", "moved")], 0.0);
}

#[test]
fn a_refusal_with_503_says_when_to_come_again() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").persistence("on_server_down: refuse"));
    world.app(&home).kill();
    alice.disconnect();
    let answer = alice.get("/echo").expect(503);
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.head);
}

/// Asks while the server is down, and starts it meanwhile.
fn request_while_down(world: &World, alice: &Browser, home: &str) -> (String, Duration) {
    thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let start = Instant::now();
            (alice.server(), start.elapsed())
        });
        thread::sleep(Duration::from_millis(700)); // the server is away for this long
        world.app(home).start();
        asked.join().expect("an answer")
    })
}

#[test]
fn a_request_waits_for_a_server_that_restarts() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").persistence("hold: 8s"));
    world.app(&home).kill();
    alice.disconnect();
    let (server, waited) = request_while_down(&world, &alice, &home);
    assert_eq!(server, home, "it waited");
    assert!(waited > Duration::from_millis(400), "as long as the server was away: {waited:?}");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_request_waits_for_a_server_that_was_found_down() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").persistence("hold: 8s").pool(QUICK_CHECK));
    world.app(&home).kill();
    world.wait_for_health(&home, false);
    let (server, _) = request_while_down(&world, &alice, &home);
    assert_eq!(server, home, "it waited");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_request_does_not_wait_for_ever() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").persistence("hold: 600ms"));
    world.app(&home).kill();
    alice.disconnect();
    let start = Instant::now();
    assert_ne!(alice.server(), home, "then it moves");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(500), "it waited first: {waited:?}");
    assert!(waited < Duration::from_secs(4), "but not for ever: {waited:?}");
    world.expect_metric(MOVES, &[("reason", "connect_failure")], 1.0);
}

#[test]
fn parallel_requests_of_one_session_end_up_together() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c d"));
    world.app(&home).kill();
    let servers: BTreeSet<String> = thread::scope(|scope| {
        let ask = |_| scope.spawn(|| alice.request("GET", "/echo").fresh().send().server());
        let asked: Vec<_> = (0..40).map(ask).collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(servers.len(), 1, "all on one server: {servers:?}");
    assert_eq!(alice.server(), *servers.first().expect("one"), "and there the session stays");
    world.expect_metric(MOVES, &[("pool", "web")], 1.0);
}

#[test]
fn exactly_the_dead_servers_sessions_move_and_spread_over_the_survivors() {
    let world = World::start(Conf::servers("a b c d"));
    let sessions: Vec<(Browser, String)> = (0..300)
        .map(|_| {
            let browser = world.browser();
            let home = browser.server();
            browser.disconnect();
            (browser, home)
        })
        .collect();
    world.app("a").kill();
    let mut landed: BTreeMap<String, usize> = BTreeMap::new();
    for (browser, home) in &sessions {
        let now = browser.server();
        browser.disconnect();
        if home == "a" {
            *landed.entry(now).or_default() += 1;
        } else {
            assert_eq!(now, *home, "a session of a living server does not move");
        }
    }
    assert_eq!(landed.values().sum::<usize>(), 75, "round robin had given each server its share");
    assert_eq!(landed.keys().collect::<Vec<_>>(), ["b", "c", "d"]);
    assert!(landed.values().all(|n| (10..=42).contains(n)), "no survivor is crushed: {landed:?}");
    world.expect_metric(MOVES, &[], 75.0);
}

#[test]
fn two_proxies_move_a_session_to_the_same_server() {
    let mut world = World::start(Conf::servers("a b c d"));
    let second = world.another_proxy("-2");
    let sessions: Vec<Browser> = (0..60).map(|_| world.browser()).collect();
    let homes: Vec<String> = sessions.iter().map(Browser::server).collect();
    sessions.iter().for_each(Browser::disconnect);
    world.app("a").kill();
    let mut moved = 0;
    for (browser, home) in sessions.iter().zip(&homes) {
        let other = browser.copy_at(&second.address);
        let (here, there) = (browser.server(), other.server());
        assert_eq!(here, there, "two proxies with the same view agree");
        moved += usize::from(home == "a");
        // Their tokens are as good at the other proxy.
        assert_eq!(browser.copy_at(&second.address).server(), here);
        assert_eq!(other.copy_at(&world.address).server(), here);
        browser.disconnect();
    }
    assert_eq!(moved, 15, "some did move");
}

#[test]
fn an_old_token_does_not_bring_a_moved_session_back() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    let tab_with_the_old_token = alice.copy_at(&world.address);
    world.app(&home).kill();
    let next = alice.server();
    world.app(&home).start();
    assert_eq!(tab_with_the_old_token.server(), next, "the higher epoch wins");
    world.expect_metric(MOVES, &[], 1.0);
}

#[test]
fn the_new_server_is_told_where_the_session_came_from() {
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    assert_eq!(alice.get("/echo").received("homing-session-moved"), Vec::<String>::new());
    world.app(&home).kill();
    let answer = alice.get("/echo");
    let told = answer.received("homing-session-moved");
    assert_eq!(told, [format!("from={home}; reason=connect_failure; epoch=1")]);
    assert_eq!(alice.get("/echo").received("homing-session-moved"), Vec::<String>::new(), "until it has answered");
}

#[test]
fn the_new_server_is_told_again_when_it_did_not_answer() {
    let (world, alice, home) = start_with_session(Conf::servers("a b").pool("retries: { attempts: 1 }"));
    world.app(&home).kill();
    alice.disconnect();
    alice.request("POST", "/reset").body("x").fresh().send().expect(502);
    let answer = alice.get("/echo");
    assert_eq!(answer.received("homing-session-moved").len(), 1, "the session moved only now");
    world.expect_metric(MOVES, &[], 1.0);
}

#[test]
fn clients_cannot_send_the_proxys_own_headers() {
    let world = World::start(Conf::servers("a"));
    let answer = world
        .browser()
        .request("GET", "/echo")
        .header("Homing-Session-Moved", "from=x; reason=down; epoch=9")
        .header("homing-session-moved", "again")
        .header("Homing-Session-Data", "admin=1")
        .send();
    assert_eq!(answer.received("homing-session-moved"), Vec::<String>::new());
    assert_eq!(answer.received("homing-session-data"), Vec::<String>::new());
}

#[test]
fn what_a_server_tells_the_proxy_does_not_reach_the_client() {
    let world = World::start(Conf::servers("a"));
    let told = "Homing-Session-Data:%20cart=4711%0d%0ahoming-session-moved:%20x";
    let target = format!("/raw?bytes=HTTP/1.1%20200%20OK%0d%0a{told}%0d%0aContent-Length:%202%0d%0a%0d%0aok");
    let answer = world.browser().get(&target).expect(200);
    assert_eq!((answer.header("homing-session-data"), answer.header("homing-session-moved")), (None, None));
}

#[test]
fn over_http2_a_session_moves_just_the_same() {
    use crate::world::h2c::{H2Request, h2};
    let (world, alice, home) = start_with_session(Conf::servers("a b c"));
    let cookie = format!("{SESSION_COOKIE}={}", alice.token().expect("a token"));
    let ask = || h2(&world.address, H2Request::get("/echo").header("cookie", &cookie)).server();
    assert_eq!(ask(), home);
    world.app(&home).kill();
    let next = ask();
    assert_ne!(next, home);
    assert_eq!(ask(), next);
}
