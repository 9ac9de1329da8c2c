//! Several versions of one application: a session keeps its own for its whole life.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::thread;

use crate::failover::{MOVES, OUTCOMES};
use crate::world::{Browser, SESSION_COOKIE, World};

/// Two versions with two servers each, `v1a`, `v1b`, `v2a` and `v2b`.
pub(crate) fn two_versions(weights: (u16, u16), persistence: &str) -> String {
    let mut text = format!(
        "version: 1\nlisteners: [{{ address: \"{{{{proxy}}}}\" }}]\nadmin: {{ address: \"{{{{admin}}}}\" }}\n\
         log: {{ access: \"{{{{access}}}}\" }}\nkeys: [{}]\nroutes:\n  - {{ name: app, split: [{{ pool: v1, weight: {} }}, \
         {{ pool: v2, weight: {} }}] }}\npools:\n",
        crate::world::KEY_1,
        weights.0,
        weights.1
    );
    for version in ["v1", "v2"] {
        let server = |letter| format!("{{ name: {version}{letter}, address: \"{{{{{version}{letter}}}}}\" }}");
        let (a, b) = (server('a'), server('b'));
        writeln!(text, "  {version}: {{ servers: [{a}, {b}], persistence: {{ {persistence} }} }}").expect("a string");
    }
    text
}

fn version(server: &str) -> &str {
    &server[..2]
}

/// A browser with a session in the first version.
fn start_in_version_1(persistence: &str) -> (World, Browser, String) {
    let world = World::start(two_versions((1, 0), persistence));
    let alice = world.browser();
    let home = alice.server();
    assert_eq!((version(&home), alice.server()), ("v1", home.clone()));
    (world, alice, home)
}

#[test]
fn a_session_keeps_its_version_when_its_weight_becomes_zero() {
    let (mut world, alice, home) = start_in_version_1("");
    world.reload(two_versions((0, 1), ""));
    for _ in 0..10 {
        assert_eq!(alice.server(), home);
        assert_eq!(version(&world.browser().server()), "v2", "new clients meet the new version");
    }
    world.restart_proxy();
    assert_eq!(alice.server(), home, "after a restart too");
}

#[test]
fn sessions_of_both_versions_stay_where_they_are_under_any_weights() {
    let world = World::start(two_versions((1, 1), ""));
    let browsers: Vec<_> = (0..40).map(|_| world.browser()).map(|browser| (browser.server(), browser)).collect();
    let versions: BTreeSet<_> = browsers.iter().map(|(home, _)| version(home).to_owned()).collect();
    assert_eq!(versions.len(), 2, "forty clients meet both");
    for _ in 0..3 {
        for (home, browser) in &browsers {
            assert_eq!(browser.server(), *home);
        }
    }
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 40.0);
}

#[test]
fn a_session_first_looks_for_another_server_of_its_version() {
    let (world, alice, home) = start_in_version_1("");
    world.app(&home).kill();
    alice.disconnect();
    assert_eq!(version(&alice.server()), "v1");
    world.expect_metric(MOVES, &[("pool", "v1"), ("reason", "connect_failure")], 1.0);
}

#[test]
fn a_session_leaves_its_version_once_when_no_server_there_can_serve() {
    let world = World::start(two_versions((1, 1), ""));
    let (alice, home) = in_version(&world, "v1");
    world.app("v1a").kill();
    world.app("v1b").kill();
    alice.disconnect();
    let answer = alice.get("/echo").expect(200);
    let next = answer.server();
    assert_eq!(version(&next), "v2");
    assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "it has another token");
    let told = answer.received("homing-session-moved").concat();
    assert!(told.starts_with(&format!("from={home}; reason=connect_failure")), "{told}");
    world.app("v1a").start();
    world.app("v1b").start();
    for _ in 0..5 {
        let answer = alice.get("/echo").expect(200);
        assert_eq!((answer.server(), answer.set_cookie(SESSION_COOKIE)), (next.clone(), None), "it does not go back");
        assert_eq!(answer.received("homing-session-moved"), Vec::<String>::new());
    }
    assert_eq!(world.metric(MOVES, &[]), 1.0);
}

/// A browser that was given this version by chance.
pub(crate) fn in_version(world: &World, wanted: &str) -> (Browser, String) {
    let browsers = (0..200).map(|_| world.browser()).map(|browser| (browser.server(), browser));
    let (home, browser) = browsers.into_iter().find(|(home, _)| version(home) == wanted).expect("one of 200");
    (browser, home)
}

#[test]
fn parallel_requests_of_a_session_that_leaves_its_version_go_to_one_server() {
    let world = World::start(two_versions((1, 1), ""));
    let (alice, _) = in_version(&world, "v1");
    world.app("v1a").kill();
    world.app("v1b").kill();
    let servers: BTreeSet<String> = thread::scope(|scope| {
        let copies: Vec<_> = (0..20).map(|_| alice.copy_at(&world.address)).collect();
        let asked: Vec<_> = copies.into_iter().map(|copy| scope.spawn(move || copy.server())).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    assert_eq!(servers.len(), 1, "{servers:?}");
}

#[test]
fn sessions_that_leave_their_version_go_by_their_keys_and_not_by_the_hint_of_their_address() {
    let world = World::start(two_versions((1, 1), "new_session_hint: client_ip"));
    let sessions: Vec<_> = (0..20).map(|_| world.browser()).collect();
    let homes: BTreeSet<_> = sessions.iter().map(Browser::server).collect();
    assert_eq!(homes.len(), 1, "new clients of one address stay together: {homes:?}");
    let theirs = version(homes.first().expect("one"));
    for letter in ['a', 'b'] {
        world.app(&format!("{theirs}{letter}")).kill();
    }
    sessions.iter().for_each(Browser::disconnect);
    let servers: BTreeSet<_> = sessions.iter().map(Browser::server).collect();
    assert_eq!(servers.len(), 2, "they share the other version: {servers:?}");
}

#[test]
fn new_clients_get_another_version_while_one_cannot_serve() {
    let world = World::start(two_versions((1, 1), ""));
    world.app("v2a").kill();
    world.app("v2b").kill();
    for _ in 0..20 {
        assert_eq!(version(&world.browser().get("/echo").expect(200).server()), "v1");
    }
    world.expect_metric(OUTCOMES, &[("pool", "v1"), ("outcome", "new")], 20.0);
}

#[test]
fn a_version_of_weight_zero_takes_no_request_even_when_no_other_can() {
    let (world, alice, _) = start_in_version_1("");
    world.app("v1a").kill();
    world.app("v1b").kill();
    alice.disconnect();
    alice.get("/echo").expect(503);
    world.browser().get("/echo").expect(503);
}

#[test]
fn a_pool_that_refuses_has_the_last_word() {
    let world = World::start(two_versions((1, 1), "on_server_down: refuse"));
    let (alice, home) = in_version(&world, "v1");
    world.app(&home).kill();
    alice.disconnect();
    alice.get("/echo").expect(503);
    assert_eq!(alice.token(), None, "and its next request begins a new session");
    alice.get("/echo").expect(200);
}

#[test]
fn a_session_that_is_guest_in_another_version_goes_home() {
    let world = World::start(two_versions((1, 1), "on_server_down: borrow"));
    let (alice, home) = in_version(&world, "v1");
    world.app("v1a").kill();
    world.app("v1b").kill();
    alice.disconnect();
    let answer = alice.get("/echo").expect(200);
    assert_eq!((version(&answer.server()), answer.set_cookie(SESSION_COOKIE)), ("v2", None));
    world.app("v1a").start();
    world.app("v1b").start();
    assert_eq!(alice.server(), home);
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn clients_of_one_address_keep_their_version() {
    let world = World::start(two_versions((1, 1), "sources: [client_ip: {}]"));
    let home = world.browser().server();
    for _ in 0..20 {
        assert_eq!(world.browser().server(), home);
    }
}
