//! A server that was removed from the file drains on over a restart of the proxy, by what the state file has of it.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::drains::{clients_on, departures, millis_ago};
use crate::handoff::{handing_over, shopping};
use crate::overrides::{state_file_of, with_state_file};
use crate::snapshot::crash;
use crate::world::{Browser, Conf, PATIENCE, QUICK_CHECK, World, eventually};

const MOVES: &str = "homing_session_moves_total";
const HOUR: &str = "drain_deadline: 1h";

fn conf(servers: &str, deadline: &str) -> Conf {
    with_state_file(Conf::servers(servers).pool(deadline))
}

fn saved(world: &World) -> Value {
    let text = fs::read_to_string(state_file_of(world)).expect("the file");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until the file has so many removed servers.
fn wait_for_saved(world: &World, count: usize) {
    eventually(PATIENCE, "the state file is written", || {
        fs::exists(state_file_of(world)).is_ok_and(|exists| exists)
            && saved(world)["removed"].as_array().map_or(0, Vec::len) == count
    });
}

/// Clients of a server that is removed from the file then.
fn start_with_removed_server(deadline: &str) -> (World, Vec<Browser>) {
    let mut world = World::start(conf("a b c", deadline));
    let clients = clients_on(&world, "b", 4);
    world.reload(conf("a c", deadline));
    wait_for_saved(&world, 1);
    (world, clients)
}

/// Restarts the proxy; meanwhile the drain of the removed server has begun so long ago.
fn restart_after(world: &mut World, ago: Duration) {
    world.stop_proxy();
    let mut document = saved(world);
    document["removed"][0]["since"] = u64::try_from(millis_ago(ago)).expect("some milliseconds").into();
    fs::write(state_file_of(world), document.to_string()).expect("the file");
    world.start_proxy();
}

fn is_shown(world: &World, server: &str) -> bool {
    world.metrics().text.contains(&format!("server=\"{server}\",state"))
}

#[test]
fn its_sessions_stay_over_restarts_and_crashes_and_it_gets_no_new_ones() {
    let (mut world, clients) = start_with_removed_server(HOUR);
    for crashes in [false, true, false] {
        if crashes {
            crash(&mut world);
            world.start_proxy();
        } else {
            world.restart_proxy();
        }
        assert!(clients.iter().all(|client| client.server() == "b"), "bound sessions stay");
        assert!((0..8).all(|_| world.browser().server() != "b"), "it gets no new ones");
        assert_eq!(world.metric(MOVES, &[]), 0.0);
        assert!(world.log().contains("removed server goes on draining"), "{}", world.log());
    }
    world.reload(conf("a c", HOUR).server("a", "weight: 2"));
    assert!(clients.iter().all(|client| client.server() == "b"), "through a reload, too");
    world.reload(conf("a b c", HOUR));
    wait_for_saved(&world, 0);
    clients_on(&world, "b", 1);
}

#[test]
fn its_deadline_is_counted_from_the_start_of_its_drain() {
    let (mut world, clients) = start_with_removed_server(HOUR);
    restart_after(&mut world, Duration::from_secs(59 * 60));
    assert!(clients.iter().all(|client| client.server() == "b"));
    let ago = |world: &World| {
        let since = saved(world)["removed"][0]["since"].as_u64().expect("a time");
        millis_ago(Duration::ZERO) - u128::from(since)
    };
    world.reload(conf("a c", HOUR).server("a", "weight: 2"));
    assert!(ago(&world) >= 59 * 60 * 1000, "its clock goes on: {} ms", ago(&world));
    restart_after(&mut world, Duration::from_secs(62 * 60));
    assert!(clients.iter().all(|client| client.server() != "b"), "the deadline was over meanwhile");
    assert_eq!(world.metric(MOVES, &[("reason", "removed")]), 4.0);
    assert!(!is_shown(&world, "b"));
    wait_for_saved(&world, 0);
}

#[test]
fn it_is_gone_when_the_deadline_is_over_after_a_restart() {
    let (mut world, clients) = start_with_removed_server("drain_deadline: 6s");
    world.restart_proxy();
    assert!(clients.iter().all(|client| client.server() == "b"));
    departures(&clients, "b");
    assert_eq!(world.metric(MOVES, &[("reason", "removed")]), 4.0);
    eventually(PATIENCE, "it is gone", || !is_shown(&world, "b"));
    wait_for_saved(&world, 0);
    world.restart_proxy();
    assert!(!is_shown(&world, "b"));
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn it_is_checked_and_its_sessions_take_their_data_along_as_ever() {
    let conf = |servers: &str| with_state_file(handing_over(servers).pool(HOUR).pool(QUICK_CHECK));
    let mut world = World::start(conf("a b"));
    let alice = world.browser();
    let home = shopping(&alice);
    let other = if home == "a" { "b" } else { "a" };
    // The removed server is found by its address of before.
    world.reload(conf(other));
    wait_for_saved(&world, 1);
    world.restart_proxy();
    assert_eq!(alice.get("/kept-cart").expect(200).text(), format!("alice has tea,milk on {home}"));
    alice.get("/kept-cart/add?item=eggs").expect(200);
    world.app(&home).set_health(500);
    world.wait_for_health(&home, false);
    assert_eq!(alice.get("/kept-cart").expect(200).text(), format!("alice has tea,milk,eggs on {other}"));
}

#[test]
fn in_the_file_again_at_a_restart_it_is_a_server_as_any_other() {
    let (mut world, clients) = start_with_removed_server(HOUR);
    world.stop_proxy();
    world.environment.rewrite(conf("a b c", HOUR));
    world.start_proxy();
    assert!(clients.iter().all(|client| client.server() == "b"));
    clients_on(&world, "b", 1);
    wait_for_saved(&world, 0);
    assert_eq!(world.metric(MOVES, &[]), 0.0);
}

#[test]
fn where_removed_servers_do_not_drain_any_more_its_sessions_move() {
    let (mut world, clients) = start_with_removed_server(HOUR);
    world.stop_proxy();
    world.environment.rewrite(with_state_file(Conf::servers("a c")));
    world.start_proxy();
    assert!(clients.iter().all(|client| client.server() != "b"));
    assert_eq!(world.metric(MOVES, &[("reason", "removed")]), 4.0);
}

#[test]
fn a_damaged_file_keeps_no_proxy_from_starting_and_its_sessions_move() {
    let damages: [fn(&str) -> String; 4] = [
        |text| text[..text.len() / 2].to_owned(),
        |text| text.replace("\"since\"", "\"until\""),
        |text| text.replace("127.0.0.1", "nowhere at all"),
        |text| text.replace("\"weight\": 1", "\"weight\": 70000"),
    ];
    for damage in damages {
        let (mut world, clients) = start_with_removed_server(HOUR);
        world.stop_proxy();
        let text = fs::read_to_string(state_file_of(&world)).expect("the file");
        assert_ne!(damage(&text), text, "{text}");
        fs::write(state_file_of(&world), damage(&text)).expect("the file");
        world.start_proxy();
        assert!(world.log().contains("put aside"), "{}", world.log());
        assert!(clients.iter().all(|client| client.server() != "b"));
        assert_eq!(world.metric(MOVES, &[("reason", "removed")]), 4.0);
    }
}

#[test]
fn removed_in_maint_it_is_gone_at_once() {
    let mut world = World::start(conf("a b", HOUR));
    let clients = clients_on(&world, "b", 2);
    world.reload(conf("a b", HOUR).server("b", "state: maint"));
    world.reload(conf("a", HOUR));
    eventually(PATIENCE, "it is gone", || !is_shown(&world, "b"));
    assert!(clients.iter().all(|client| client.server() == "a"));
}
