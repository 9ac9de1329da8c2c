//! The server's route id inside the application's own id, as in `JSESSIONID=0AB3.app1`.

use std::collections::BTreeSet;

use crate::world::client::get_with;
use crate::world::{Conf, Response, SESSION_COOKIE, World, at_once};

const LOOKUPS: &str = "homing_session_lookups_total";
const OUTCOMES: &str = "homing_session_outcomes_total";
const MOVES: &str = "homing_session_moves_total";

/// Server a has the route id app1, server b app2, and server c its own name.
fn route_conf() -> Conf {
    Conf::servers("a b c")
        .server("a", "route: app1")
        .server("b", "route: app2")
        .persistence("sources: [{ route: { cookie: JSESSIONID, query: jsessionid } }]")
}

fn with_id(world: &World, id: &str) -> Response {
    get_with(&world.address, "/plain", &[("Cookie", &format!("theme=dark; JSESSIONID={id}"))]).expect(200)
}

fn server(world: &World, id: &str) -> String {
    with_id(world, id).text()
}

#[test]
fn an_id_goes_to_the_server_of_its_route_id() {
    let world = World::start(route_conf());
    for _ in 0..3 {
        for (id, home) in [("0AB3.app1", "a"), ("0AB3.app2", "b"), ("FF.c", "c"), ("other.app1", "a")] {
            assert_eq!(server(&world, id), home, "{id}");
        }
    }
    world.expect_metric(LOOKUPS, &[("source", "route"), ("result", "hit")], 12.0);
    world.expect_metric(OUTCOMES, &[("outcome", "kept")], 12.0);
    assert_eq!(world.metric("homing_table_entries", &[]), 0.0, "nothing needs to be remembered");
    let line = world.access_line("/plain");
    assert_eq!((line["source"].as_str(), line["outcome"].as_str()), (Some("route"), Some("kept")));
    assert_eq!(line["session"].as_str().map(str::len), Some(8));
}

#[test]
fn the_route_id_is_found_in_path_and_query_too() {
    let world = World::start(route_conf());
    for target in [
        "/say?jsessionid=x.app2",
        "/say;jsessionid=x.app2",
        "/say;jsessionid=x.app2?a=b",
        "/say;v=1;jsessionid=x.app2/c",
    ] {
        for _ in 0..2 {
            let answer = get_with(&world.address, target, &[]);
            assert_eq!(answer.server(), "b", "{target}");
            assert_eq!(answer.json()["target"], target, "the application sees its own id");
        }
    }
    let answer = get_with(&world.address, "/say?jsessionid=x.app2", &[("Cookie", "JSESSIONID=no-route-id")]);
    assert_eq!(answer.server(), "b", "an id without a route id does not hide one with a route id");
}

#[test]
fn another_separator_and_a_chain_of_servers_are_understood() {
    let conf = Conf::servers("a b c").persistence("sources: [{ route: { cookie: JSESSIONID, separator: \"!\" } }]");
    let world = World::start(conf);
    assert_eq!(server(&world, "id.c!b!a"), "b", "the first is its server");
    assert_eq!(server(&world, "id!gone!a"), "a", "the second is where its copy is");
}

#[test]
fn an_unknown_route_id_begins_no_session_but_goes_to_one_server() {
    let world = World::start(route_conf());
    let mut servers = BTreeSet::new();
    for id in ["x.app9", "y.app9", "plain", "plain2", "trailing.", ".", "z.APP1", "w.app10"] {
        let went = at_once(8, || server(&world, id));
        assert_eq!(went.len(), 1, "{id}: {went:?}");
        servers.extend(went);
    }
    assert!(servers.len() > 1, "they are spread: {servers:?}");
    world.expect_metric(LOOKUPS, &[("source", "route"), ("result", "unknown")], 64.0);
    world.expect_metric(OUTCOMES, &[("outcome", "balanced")], 64.0);
    let answer = with_id(&world, "x.app9");
    assert_eq!(answer.set_cookie(SESSION_COOKIE), None, "nothing is given");
}

#[test]
fn a_session_is_guest_elsewhere_while_its_server_is_down() {
    let world = World::start(route_conf());
    world.app("b").kill();
    let guests: BTreeSet<_> = (0..6).map(|_| server(&world, "x.app2")).collect();
    assert_eq!(guests.len(), 1, "always the same: {guests:?}");
    assert_eq!(at_once(20, || server(&world, "x.app2")), guests);
    world.app("b").start();
    assert_eq!(server(&world, "x.app2"), "b", "home again");
    world.expect_metric(OUTCOMES, &[("outcome", "borrowed")], 26.0);
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_route_id_counts_on_a_draining_server_unless_the_pool_says_otherwise() {
    let mut world = World::start(route_conf().server("b", "state: drain"));
    for _ in 0..3 {
        assert_eq!(server(&world, "x.app2"), "b", "kept");
    }
    world.reload(route_conf().server("b", "state: drain").persistence("on_server_drain: reassign"));
    let guests: BTreeSet<_> = (0..3).map(|_| server(&world, "x.app2")).collect();
    assert!(guests.len() == 1 && !guests.contains("b"), "{guests:?}");
    world.reload(route_conf());
    assert_eq!(server(&world, "x.app2"), "b");
}

#[test]
fn a_server_in_maintenance_gets_no_requests_by_route_id() {
    let mut world = World::start(route_conf());
    assert_eq!(server(&world, "x.app2"), "b");
    world.reload(route_conf().server("b", "state: maint"));
    let before = world.app("b").requests();
    let guests: BTreeSet<_> = (0..4).map(|_| server(&world, "x.app2")).collect();
    assert_eq!((guests.len(), world.app("b").requests()), (1, before));
    get_with(&world.address, "/cacheable", &[("Cookie", "JSESSIONID=x.app2")]).expect(200);
    let line = world.access_line("/cacheable");
    assert_eq!((line["outcome"].as_str(), line["reason"].as_str()), (Some("borrowed"), Some("maint")));
}
