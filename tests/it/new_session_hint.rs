//! Parallel first requests of one browser, which carry nothing yet, land on one server.

use std::collections::BTreeSet;

use crate::world::client::get_with;
use crate::world::{Conf, SESSION_COOKIE, World, at_once};

fn hinted(servers: &str) -> Conf {
    Conf::servers(servers).listener("trusted_proxies: [127.0.0.0/8]").persistence("new_session_hint: client_ip")
}

/// A new client from there.
fn server(world: &World, address: &str) -> String {
    let answer = get_with(&world.address, "/plain", &[("X-Forwarded-For", address)]).expect(200);
    assert!(answer.set_cookie(SESSION_COOKIE).is_some(), "each gets a token of its own");
    answer.text()
}

#[test]
fn parallel_first_requests_of_one_browser_land_on_one_server() {
    let world = World::start(hinted("a b c"));
    let mut servers = BTreeSet::new();
    for n in 0..9 {
        let address = format!("192.0.2.{n}");
        let went = at_once(10, || server(&world, &address));
        assert_eq!(went.len(), 1, "{address}: {went:?}");
        servers.extend(went);
    }
    assert_eq!(servers.len(), 3, "other addresses are balanced");
    assert_eq!(world.metric("homing_table_entries", &[]), 0.0, "a hint is no session");
}

#[test]
fn without_the_hint_they_are_balanced() {
    let world = World::start(Conf::servers("a b c").listener("trusted_proxies: [127.0.0.0/8]"));
    assert_eq!(at_once(9, || server(&world, "192.0.2.1")).len(), 3);
}

#[test]
fn an_ipv6_network_is_one_browser() {
    let world = World::start(hinted("a b c"));
    let servers: BTreeSet<_> = (1..6).map(|n| server(&world, &format!("2001:db8::{n}"))).collect();
    assert_eq!(servers.len(), 1, "{servers:?}");
}

#[test]
fn a_hint_to_a_server_that_is_gone_is_dropped_by_all_alike() {
    let mut world = World::start(hinted("a b c d"));
    for n in 0..12 {
        let address = format!("192.0.2.{n}");
        let first = server(&world, &address);
        world.app(&first).kill();
        let next = at_once(12, || server(&world, &address));
        assert_eq!(next.len(), 1, "{next:?}");
        assert!(!next.contains(&first));
        world.app(&first).start();
        assert_eq!(server(&world, &address), *next.first().expect("one"), "and they stay together");
    }
    let first = server(&world, "198.51.100.1");
    world.reload(hinted("a b c d").server(&first, "state: drain"));
    let next = at_once(12, || server(&world, "198.51.100.1"));
    assert!(next.len() == 1 && !next.contains(&first), "{next:?}");
}

#[test]
fn a_token_beats_the_hint() {
    let world = World::start(hinted("a b c"));
    let answer = get_with(&world.address, "/plain", &[("X-Forwarded-For", "192.0.2.1")]).expect(200);
    let token = answer.set_cookie(SESSION_COOKIE).and_then(|line| line.split(';').next()).expect("a token").to_owned();
    let other = (2..20).map(|n| format!("192.0.2.{n}")).find(|address| server(&world, address) != answer.text());
    let other = other.expect("an address on another server");
    let headers = [("X-Forwarded-For", other.as_str()), ("Cookie", token.as_str())];
    assert_eq!(get_with(&world.address, "/plain", &headers).text(), answer.text());
}
