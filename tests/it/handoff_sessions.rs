//! Whose data it is: the session as its client names it next, whatever names it, and no longer than it lives.

use crate::failover::start_with_session;
use crate::handoff::{BYTES, HANDOFF, ON, answering, given, hand_over, handing_over, kill};
use crate::split_sessions::{in_version, two_versions};
use crate::world::app::answers::saying;
use crate::world::{Browser, Conf, PATIENCE, World, eventually};

const DATA: &str = "Homing-Session-Data: cart=1";

/// The data that the next server of a session is given.
fn handoff_data_after_a_kill(world: &World, browser: &Browser, server: &str) -> Vec<String> {
    kill(world, server, browser);
    given(&browser.get("/echo")).0
}

fn learning() -> Conf {
    handing_over("a b c").persistence("sources: [{ learn: { cookie: SID } }]")
}

#[test]
fn an_id_that_is_learned_from_the_same_answer() {
    let world = World::start(learning());
    let alice = world.browser();
    let home = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/", DATA])).server();
    assert_eq!(handoff_data_after_a_kill(&world, &alice, &home), ["cart=1"]);
    assert_eq!(given(&alice.get("/echo")).0, Vec::<String>::new(), "until it has answered");
}

#[test]
fn an_application_that_gives_another_id_at_login_takes_the_data_along_and_leaves_none_behind() {
    let world = World::start(learning());
    let alice = world.browser();
    alice.get(&saying(200, &["Set-Cookie: SID=planted; Path=/", "Homing-Session-Data: nobody"])).expect(200);
    let thief = alice.copy_at(&world.address);
    let home = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/", DATA])).server();
    assert_eq!(handoff_data_after_a_kill(&world, &alice, &home), ["cart=1"]);
    assert_eq!(given(&thief.get("/echo")).0, Vec::<String>::new(), "knowing the old id gives no access to it");
}

#[test]
fn a_session_that_its_application_ends_leaves_nothing() {
    let conf = handing_over("a b").persistence("sources: [{ learn: { header: X-Id, ends_on: [DELETE] } }]");
    let world = World::start(conf);
    let alice = world.browser();
    alice.get(&saying(200, &["X-Id: alice", DATA])).expect(200);
    assert!(world.metric(BYTES, &[]) > 0.0);
    alice.request("DELETE", &saying(200, &[DATA])).header("X-Id", "alice").send().expect(200);
    assert_eq!(world.metric(BYTES, &[]), 0.0, "not even what the last answer said");
}

#[test]
fn a_session_that_stays_away_too_long_leaves_nothing() {
    let world = World::start(handing_over("a b").persistence("idle_timeout: 2s"));
    let (alice, bob) = (world.browser(), world.browser());
    hand_over(&bob, "cart=2");
    let home = hand_over(&alice, "cart=1").server();
    let both = world.metric(BYTES, &[]);
    eventually(PATIENCE, "bob's data goes, while alice comes back", || {
        alice.get("/plain").expect(200);
        world.metric(BYTES, &[]) <= both / 2.0
    });
    assert_eq!(
        handoff_data_after_a_kill(&world, &alice, &home),
        ["cart=1"],
        "hers was last handed over long ago, and she is here"
    );
}

#[test]
fn the_applications_cookie_that_carries_the_token() {
    for mode in ["prefix", "rewrite"] {
        let conf = handing_over("a b").persistence(&format!("cookie: {{ name: SID, mode: {mode} }}"));
        let world = World::start(conf);
        let alice = world.browser();
        let home = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/", DATA])).server();
        assert_eq!(handoff_data_after_a_kill(&world, &alice, &home), ["cart=1"], "{mode}");
    }
}

#[test]
fn a_token_in_a_header_and_an_id_beside_it() {
    let sources = "sources: [{ learn: { cookie: SID } }, { header: { name: X-Session } }], issue: header";
    let world = World::start(handing_over("a b c").persistence(sources));
    let alice = world.browser();
    // The id is asked first, so it is the session's name from now on.
    let answer = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/", DATA]));
    assert_eq!(handoff_data_after_a_kill(&world, &alice, &answer.server()), ["cart=1"]);
    let bob = world.browser();
    let answer = hand_over(&bob, "cart=2");
    let token = answer.header("x-session").expect("a token").to_owned();
    kill(&world, &answer.server(), &bob);
    assert_eq!(given(&bob.request("GET", "/echo").header("X-Session", &token).send()).0, ["cart=2"]);
}

#[test]
fn a_client_without_a_session_of_its_own_has_no_data() {
    let world =
        World::start(handing_over("a b").persistence("sources: [{ learn: { cookie: SID } }, { client_ip: {} }]"));
    let answer = hand_over(&world.browser(), "cart=1");
    assert_eq!(answer.header("homing-session-data"), None);
    world.expect_metric(HANDOFF, &[("result", "refused_nobody")], 1.0);
    assert_eq!(handoff_data_after_a_kill(&world, &world.browser(), &answer.server()), Vec::<String>::new());
}

#[test]
fn it_follows_a_session_to_another_version() {
    let world = World::start(two_versions((1, 1), ON));
    let (alice, home) = in_version(&world, "v1");
    hand_over(&alice, "cart=1");
    world.app("v1a").kill();
    kill(&world, "v1b", &alice);
    let answer = alice.get(&saying(503, &[])).expect(503);
    let (data, told) = given(&answer);
    let next = answering(&answer);
    assert_eq!((data, told.len(), &next[..2]), (vec!["cart=1".to_owned()], 1, "v2"));
    assert!(told[0].starts_with(&format!("from={home}; ")), "{told:?}");
    assert_eq!(given(&alice.get("/echo")), (vec!["cart=1".to_owned()], told), "until it has answered");
    assert_eq!(given(&alice.get("/echo")).0, Vec::<String>::new());
    assert_eq!(handoff_data_after_a_kill(&world, &alice, &next), ["cart=1"], "and on from there");
}

#[test]
fn a_version_that_hands_nothing_over_is_given_nothing() {
    let off = two_versions((1, 1), "").replacen("persistence: {  }", &format!("persistence: {{ {ON} }}"), 1);
    let world = World::start(off);
    let (alice, _) = in_version(&world, "v1");
    hand_over(&alice, "cart=1");
    world.app("v1a").kill();
    assert_eq!(handoff_data_after_a_kill(&world, &alice, "v1b"), Vec::<String>::new());
}

#[test]
fn a_reload_that_switches_it_off_forgets_all() {
    let (mut world, alice, home) = start_with_session(handing_over("a b"));
    hand_over(&alice, "cart=1");
    world.reload(handing_over("a b").pool("balance: random"));
    assert!(world.metric(BYTES, &[]) > 0.0, "another reload does not");
    world.reload(Conf::servers("a b"));
    assert_eq!(world.metric(BYTES, &[]), 0.0);
    hand_over(&alice, "cart=2");
    world.reload(handing_over("a b"));
    assert_eq!(handoff_data_after_a_kill(&world, &alice, &home), Vec::<String>::new());
}

#[test]
fn a_restart_without_a_snapshot_forgets_the_data_but_not_the_session() {
    let (mut world, alice, home) = start_with_session(handing_over("a b"));
    hand_over(&alice, "cart=1");
    world.restart_proxy();
    alice.disconnect();
    assert_eq!(alice.server(), home);
    assert_eq!(handoff_data_after_a_kill(&world, &alice, &home), Vec::<String>::new());
}

#[test]
fn data_from_before_another_proxy_moved_the_session_is_not_given() {
    let (mut world, alice, home) = start_with_session(handing_over("a b c"));
    let second = world.another_proxy("2");
    hand_over(&alice, "logged in");
    world.app(&home).kill();
    let there = alice.copy_at(&second.address);
    let next = there.server();
    world.app(&home).start();
    // What the client did meanwhile, the first proxy does not know: perhaps it logged out.
    let here = there.copy_at(&world.address);
    assert_eq!(here.server(), next);
    assert_eq!(handoff_data_after_a_kill(&world, &here, &next), Vec::<String>::new());
}

#[test]
fn an_id_with_its_servers_route_id() {
    let conf = handing_over("a b c").persistence("sources: [{ route: { cookie: SID } }]");
    let world = World::start(conf);
    let alice = world.browser();
    let home = alice.server();
    let id = format!("Set-Cookie: SID=0AB3.{home}; Path=/");
    // Any server that responds confirms that the session is bound to the server of its route id.
    alice.get(&saying(200, &[&id, DATA])).expect(200);
    kill(&world, &home, &alice);
    for _ in 0..2 {
        assert_eq!(given(&alice.get("/echo")), (vec!["cart=1".to_owned()], Vec::new()), "a guest elsewhere");
    }
}

#[test]
fn a_guest_of_another_version_is_given_it_and_its_word_counts() {
    let world = World::start(two_versions((1, 1), &format!("{ON}, on_server_down: borrow")));
    let (alice, _) = in_version(&world, "v1");
    hand_over(&alice, "cart=1");
    world.app("v1a").kill();
    assert_eq!(handoff_data_after_a_kill(&world, &alice, "v1b"), ["cart=1"]);
    hand_over(&alice, "cart=2");
    assert_eq!(given(&alice.get("/echo")).0, ["cart=2"]);
    hand_over(&alice, "");
    assert_eq!(given(&alice.get("/echo")).0, Vec::<String>::new());
}
