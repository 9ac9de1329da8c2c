//! With a snapshot, session data survives a restart of the proxy: users stay logged in when both proxy and server die.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::failover::start_with_session;
use crate::handoff::{BYTES, answering, given, hand_over, handing_over, kill, moved, nothing, shopping};
use crate::snapshot::{crash, file_of, log_count, sibling, with_snapshot};
use crate::world::app::answers::saying;
use crate::world::{Browser, Conf, PATIENCE, World, eventually};

/// Servers that hand over, to a proxy that writes it down at every stop.
fn handoff_with_snapshot() -> Conf {
    with_snapshot(handing_over("a b c"), "sessions", "1h")
}

/// The file has this in it.
fn await_written(world: &World, text: &str) {
    eventually(PATIENCE, "it is on disk", || {
        let bytes = fs::read(file_of(world)).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    });
}

/// After the proxy has died, the session's server does too. Alice has her cart at another.
fn alice_is_logged_in_without(home: &str, world: &World, alice: &Browser) {
    kill(world, home, alice);
    let text = alice.get("/kept-cart").expect(200).text();
    let next = text.strip_prefix("alice has tea,milk on ").expect("still logged in");
    assert_ne!(next, home);
}

#[test]
fn a_logged_in_cart_survives_a_restart_of_the_proxy_and_the_death_of_its_server() {
    let mut world = World::start(handoff_with_snapshot());
    let alice = world.browser();
    let home = shopping(&alice);
    for _ in 0..2 {
        world.restart_proxy();
        alice.disconnect();
    }
    assert!(world.log().contains(" data=1 data_left_out=0"), "{}", world.log());
    assert!(!world.log().contains("alice"), "but not what it is");
    alice_is_logged_in_without(&home, &world, &alice);
}

#[test]
fn a_logged_in_cart_survives_a_crash_of_the_proxy_after_an_interval_and_the_death_of_its_server() {
    let mut world = World::start(with_snapshot(handing_over("a b c"), "sessions", "1s"));
    let alice = world.browser();
    let home = shopping(&alice);
    await_written(&world, "tea,milk");
    crash(&mut world);
    world.start_proxy();
    alice.disconnect();
    alice_is_logged_in_without(&home, &world, &alice);
}

#[test]
fn the_data_of_a_learned_session_survives_too() {
    let conf = handing_over("a b c").persistence("sources: [{ learn: { cookie: SID } }]");
    let mut world = World::start(with_snapshot(conf, "sessions", "1h"));
    let alice = world.browser();
    let home = alice.get(&saying(200, &["Set-Cookie: SID=alice; Path=/", "Homing-Session-Data: cart=1"])).server();
    world.restart_proxy();
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")), moved("cart=1", &home, 1));
}

#[test]
fn a_new_server_that_has_yet_to_answer_is_given_it_after_a_restart_too() {
    let (mut world, alice, home) = start_with_session(handoff_with_snapshot());
    hand_over(&alice, "cart=1");
    kill(&world, &home, &alice);
    let next = answering(&alice.get(&saying(503, &[])).expect(503));
    for _ in 0..2 {
        world.restart_proxy();
        alice.disconnect();
        let answer = alice.get(&saying(503, &[])).expect(503);
        assert_eq!((given(&answer), answering(&answer)), (moved("cart=1", &home, 1), next.clone()));
    }
    assert_eq!(given(&alice.get(&saying(404, &[])).expect(404)), moved("cart=1", &home, 1));
    world.restart_proxy();
    alice.disconnect();
    assert_eq!(given(&alice.get("/echo")), nothing(), "it has answered");
    kill(&world, &next, &alice);
    assert_eq!(given(&alice.get("/echo")), moved("cart=1", &next, 2), "and goes on to the next");
}

#[test]
fn a_move_without_data_that_was_not_told_yet_is_told_after_a_restart() {
    let (mut world, alice, home) = start_with_session(handoff_with_snapshot());
    kill(&world, &home, &alice);
    alice.get(&saying(503, &[])).expect(503);
    world.restart_proxy();
    alice.disconnect();
    let (data, told) = given(&alice.get("/echo"));
    assert_eq!((data.len(), told), (0, moved("", &home, 1).1));
}

#[test]
fn a_client_that_logged_out_before_a_restart_stays_logged_out() {
    let mut world = World::start(handoff_with_snapshot());
    let alice = world.browser();
    shopping(&alice);
    world.restart_proxy();
    alice.disconnect();
    assert!(world.metric(BYTES, &[]) > 0.0);
    alice.get("/kept-cart/logout").expect(200);
    world.restart_proxy();
    assert_eq!(world.metric(BYTES, &[]), 0.0);
}

#[test]
fn a_pool_that_hands_nothing_over_any_more_is_given_nothing_back() {
    let (mut world, alice, home) = start_with_session(handoff_with_snapshot());
    hand_over(&alice, "cart=1");
    world.stop_proxy();
    world.environment.rewrite(with_snapshot(Conf::servers("a b c"), "sessions", "1h"));
    world.start_proxy();
    assert!(world.log().contains(" data=0 data_left_out=1"), "{}", world.log());
    world.reload(handoff_with_snapshot());
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")).0, Vec::<String>::new());
}

#[test]
fn of_a_damaged_file_neither_sessions_nor_data_are_loaded() {
    let (mut world, alice, home) = start_with_session(handoff_with_snapshot());
    hand_over(&alice, "cart=1");
    world.stop_proxy();
    let mut bytes = fs::read(file_of(&world)).unwrap();
    let at = bytes.windows(6).position(|part| part == b"cart=1").expect("it is in the file");
    bytes[at] ^= 0x20;
    fs::write(file_of(&world), &bytes).unwrap();
    world.start_proxy();
    assert_eq!(log_count(&world, "was skipped, all of it"), 1, "{}", world.log());
    assert_eq!((world.metric("homing_table_entries", &[]), world.metric(BYTES, &[])), (0.0, 0.0));
    assert_eq!(fs::read(sibling(&file_of(&world), ".damaged")).unwrap(), bytes);
    kill(&world, &home, &alice);
    assert_eq!(given(&alice.get("/echo")), (Vec::new(), moved("", &home, 1).1), "her token says where she was");
}

#[test]
fn only_the_owner_may_read_the_file() {
    let mut world = World::start(handoff_with_snapshot());
    shopping(&world.browser());
    world.stop_proxy();
    await_written(&world, "alice");
    for file in [file_of(&world), sibling(&file_of(&world), ".lock")] {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}
