//! No server is left: a quick 503 that says when to come again, and no session lost.

use std::time::{Duration, Instant};

use crate::failover::start_with_session;
use crate::world::{App, Conf, PATIENCE, QUICK_CHECK, World, eventually};

/// Every way in which no server can serve.
fn all_down(conf: Conf, put_down: impl Fn(&mut World), heal: impl Fn(&mut World)) {
    let (mut world, alice, home) = start_with_session(conf);
    put_down(&mut world);
    alice.disconnect();
    let stranger = world.browser();
    for browser in [&alice, &stranger] {
        let start = Instant::now();
        let answer = browser.get("/down").expect(503);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "within a second: {took:?}");
        let after = answer.header("retry-after").unwrap_or_else(|| panic!("no Retry-After: {:?}", answer.head));
        assert!(after.parse::<u32>().is_ok(), "in seconds: {after}");
        assert_eq!(answer.all("set-cookie").len(), 0, "no token");
        browser.disconnect();
    }
    assert_eq!(world.count("GET", "/down"), 0);
    heal(&mut world);
    eventually(PATIENCE, "it heals by itself", || alice.get("/echo").status == 200);
    eventually(PATIENCE, "for every client", || world.browser().get("/echo").status == 200);
    assert_eq!(alice.server(), home, "the session was kept meanwhile");
}

#[test]
fn when_all_servers_refuse_the_answer_is_503_until_they_are_back() {
    let conf = Conf::servers("a b c");
    all_down(conf, |world| world.apps().for_each(App::kill), |world| world.apps().for_each(App::start));
}

#[test]
fn when_all_servers_are_found_down_the_answer_is_503_until_they_are_back() {
    let down = |world: &mut World| {
        world.apps().for_each(App::kill);
        for name in ["a", "b", "c"] {
            world.wait_for_health(name, false);
        }
    };
    let heal = |world: &mut World| {
        world.apps().for_each(App::start);
        for name in ["a", "b", "c"] {
            world.wait_for_health(name, true);
        }
    };
    all_down(Conf::servers("a b c").pool(QUICK_CHECK), down, heal);
}

#[test]
fn when_all_servers_are_in_maintenance_the_answer_is_503_until_they_are_back() {
    let maint = |world: &mut World| {
        world.reload(Conf::servers("a b").server("a", "state: maint").server("b", "state: maint"));
    };
    all_down(Conf::servers("a b"), maint, |world| world.reload(Conf::servers("a b")));
}

#[test]
fn a_lonely_server_that_refuses_is_asked_again_next_time() {
    let (world, alice, home) = start_with_session(Conf::servers("a"));
    world.app("a").kill();
    alice.disconnect();
    alice.get("/echo").expect(503);
    world.app("a").start();
    assert_eq!(alice.server(), home, "at once, with no check to wait for");
}
