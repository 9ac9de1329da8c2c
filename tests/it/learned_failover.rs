//! The server of a learned session, of an unknown id, or of a route id is down.

use std::collections::BTreeSet;

use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::{Browser, Conf, PATIENCE, QUICK_CHECK, World, at_once, eventually};

const LOOKUPS: &str = "homing_session_lookups_total";
const MOVES: &str = "homing_session_moves_total";
const OUTCOMES: &str = "homing_session_outcomes_total";

fn learning(policy: &str) -> Conf {
    Conf::servers("a b c d").persistence("sources: [{ learn: { cookie: SID } }]").persistence(policy)
}

/// A client whose id is learned, and its server.
fn start_with_session(conf: Conf) -> (World, Browser, String) {
    let world = World::start(conf);
    let alice = world.browser();
    let home = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/"])).server();
    assert_eq!(server(&alice), home);
    alice.disconnect();
    (world, alice, home)
}

fn server(browser: &Browser) -> String {
    browser.request("GET", "/plain").fresh().send().expect(200).text()
}

#[test]
fn a_learned_session_moves_once_when_its_server_dies() {
    let (world, alice, home) = start_with_session(learning("on_server_down: reassign"));
    world.app(&home).kill();
    let next = server(&alice);
    assert_ne!(next, home);
    world.app(&home).start();
    for _ in 0..10 {
        assert_eq!(server(&alice), next, "it stays");
    }
    world.expect_metric(MOVES, &[("reason", "connect_failure")], 1.0);
    assert_eq!(world.metric("homing_sessions", &[("server", &next)]), 1.0);
}

#[test]
fn all_parallel_requests_of_a_learned_session_move_to_one_place() {
    let (world, alice, home) = start_with_session(learning("on_server_down: reassign"));
    world.app(&home).kill();
    let servers = at_once(50, || server(&alice));
    assert_eq!(servers.len(), 1, "{servers:?}");
    assert!(!servers.contains(&home));
    assert_eq!(server(&alice), *servers.first().expect("one"));
    world.expect_metric(MOVES, &[], 1.0);
}

#[test]
fn a_new_server_that_hands_the_id_out_again_moves_nothing() {
    let (world, alice, home) = start_with_session(learning("on_server_down: reassign"));
    world.app(&home).kill();
    let next = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/"])).server();
    assert_eq!(server(&alice), next);
    world.expect_metric(MOVES, &[], 1.0);
    assert_eq!(world.metric("homing_table_entries", &[]), 1.0);
}

#[test]
fn a_borrowed_learned_session_returns_home() {
    let (world, alice, home) = start_with_session(learning("on_server_down: borrow"));
    world.app(&home).kill();
    let guests: BTreeSet<_> = (0..5).map(|_| server(&alice)).collect();
    assert_eq!(guests.len(), 1, "one host at a time: {guests:?}");
    let answer = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/"]));
    assert!(guests.contains(&answer.server()), "and even if the host says that it is its own ...");
    world.app(&home).start();
    eventually(PATIENCE, "... it comes home", || server(&alice) == home);
    assert_eq!(server(&alice), home);
    world.expect_metric(MOVES, &[], 0.0);
    world.expect_metric(OUTCOMES, &[("outcome", "borrowed")], 6.0);
}

#[test]
fn a_guest_servers_log_in_page_cannot_log_the_client_out_at_home() {
    let (world, alice, home) = start_with_session(learning("on_server_down: borrow"));
    world.app(&home).kill();
    let page = saying(200, &["Set-Cookie: SID=guest; Path=/", "Set-Cookie: theme=dark; Path=/"]);
    let response = alice.get(&page);
    assert_ne!(response.server(), home);
    assert_eq!(response.head.all("set-cookie"), ["theme=dark; Path=/"], "what the client does not have yet passes");
    world.expect_metric("homing_guest_cookies_held_total", &[("pool", "web")], 1.0);
    world.app(&home).start();
    eventually(PATIENCE, "the client comes home", || server(&alice) == home);
    let line = alice.get("/echo");
    assert_eq!(line.server(), home, "with the id that it had");
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn guest_cookies_pass_where_the_pool_says_so() {
    let conf = learning("on_server_down: borrow").persistence("guest_cookies: pass");
    let (world, alice, home) = start_with_session(conf);
    world.app(&home).kill();
    let response = alice.get(&saying(200, &["Set-Cookie: SID=guest; Path=/"]));
    assert_ne!(response.server(), home);
    assert_eq!(response.head.all("set-cookie"), ["SID=guest; Path=/"]);
    world.expect_metric("homing_guest_cookies_held_total", &[("pool", "web")], 0.0);
}

#[test]
fn a_refused_learned_session_is_over_and_the_same_id_begins_a_new_one() {
    let conf = learning("on_server_down: refuse").persistence("refuse_status: 404");
    let (world, alice, home) = start_with_session(conf);
    world.app(&home).kill();
    alice.request("GET", "/plain").fresh().send().expect(404);
    let next = server(&alice);
    assert_ne!(next, home, "the id is unknown, and goes to its consistent-hash server");
    world.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "unknown")], 1.0);
    world.expect_metric(OUTCOMES, &[("outcome", "refused")], 1.0);
    world.expect_metric("homing_sessions_ended_total", &[("reason", "ended")], 1.0);
    assert_eq!(world.metric("homing_table_entries", &[]), 0.0, "nothing is left of it");
    for _ in 0..5 {
        assert_eq!(server(&alice), next);
    }
}

#[test]
fn a_refused_marked_id_is_over_although_its_server_comes_back() {
    let conf = Conf::servers("a b c")
        .persistence("sources: [{ route: { cookie: SID } }]")
        .persistence("on_server_down: refuse")
        .persistence("refuse_status: 404");
    let world = World::start(conf);
    let ask = |id: &str| get_with(&world.address, "/plain", &[("Cookie", &format!("SID={id}"))]);
    assert_eq!(ask("x.b").expect(200).text(), "b");
    world.app("b").kill();
    ask("x.b").expect(404);
    let next = ask("x.b").expect(200).text();
    assert_ne!(next, "b", "after the refusal it begins a new session");
    world.expect_metric(LOOKUPS, &[("source", "route"), ("result", "ended")], 1.0);
    ask("y.b").expect(404);
    world.app("b").start();
    assert_eq!(ask("z.b").expect(200).text(), "b", "others are not touched");
}

#[test]
fn a_learned_session_waits_for_a_server_that_restarts() {
    let (world, alice, home) = start_with_session(learning("hold: 8s").pool(QUICK_CHECK));
    world.app(&home).kill();
    world.wait_for_health(&home, false);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| server(&alice));
        world.app(&home).start();
        assert_eq!(asked.join().expect("an answer"), home, "it waited");
    });
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_learned_session_leaves_a_server_that_was_removed_or_drains() {
    let (mut world, alice, home) = start_with_session(learning("on_server_drain: reassign"));
    world.reload(learning("on_server_drain: reassign").server(&home, "state: drain"));
    let second = server(&alice);
    assert_ne!(second, home);
    let left: Vec<_> = ["a", "b", "c", "d"].into_iter().filter(|name| *name != second).collect();
    world.reload(Conf::servers(&left.join(" ")).persistence("sources: [{ learn: { cookie: SID } }]"));
    let third = server(&alice);
    assert_ne!(third, second);
    assert_eq!(server(&alice), third);
    world.expect_metric(MOVES, &[("reason", "drain")], 1.0);
    world.expect_metric(MOVES, &[("reason", "removed")], 1.0);
}

#[test]
fn an_unknown_id_finds_one_server_again_when_its_own_is_gone() {
    let (world, _, _) = start_with_session(learning("on_server_down: reassign"));
    let ask = || get_with(&world.address, "/plain", &[("Cookie", "SID=unknown")]).expect(200).text();
    let home = ask();
    world.app(&home).kill();
    let next = at_once(20, ask);
    assert_eq!(next.len(), 1, "all on one server: {next:?}");
    assert!(!next.contains(&home));
    world.app(&home).start();
    assert_eq!(ask(), home, "nothing was bound, so the hash decides");
    world.expect_metric(MOVES, &[], 0.0);
}
