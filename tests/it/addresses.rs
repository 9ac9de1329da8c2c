//! Sessions by the client's address, behind a proxy that is trusted.

use std::collections::BTreeSet;

use crate::world::PATIENCE;
use crate::world::client::get_with;
use crate::world::{Conf, Response, SESSION_COOKIE, World, at_once, eventually};

const LOOKUPS: &str = "homing_session_lookups_total";
const OUTCOMES: &str = "homing_session_outcomes_total";
const MOVES: &str = "homing_session_moves_total";
const ENTRIES: &str = "homing_table_entries";

fn by_address(servers: &str, prefixes: &str) -> Conf {
    Conf::servers(servers)
        .listener("trusted_proxies: [127.0.0.0/8]")
        .persistence(&format!("sources: [{{ client_ip: {{ {prefixes} }} }}]"))
}

fn from(world: &World, address: &str) -> Response {
    get_with(&world.address, "/plain", &[("X-Forwarded-For", address)])
}

fn server(world: &World, address: &str) -> String {
    from(world, address).expect(200).text()
}

#[test]
fn a_client_comes_home_by_its_address() {
    let world = World::start(by_address("a b c", ""));
    let home: Vec<_> = (1..=9).map(|n| format!("192.0.2.{n}")).map(|a| (server(&world, &a), a)).collect();
    assert_eq!(home.iter().map(|(home, _)| home).collect::<BTreeSet<_>>().len(), 3, "new clients are balanced");
    for (home, address) in home.iter().chain(&home) {
        let answer = from(&world, address);
        assert_eq!((answer.text(), answer.all("set-cookie").len()), (home.clone(), 0));
    }
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 9.0);
    world.expect_metric(OUTCOMES, &[("outcome", "kept")], 18.0);
    world.expect_metric(LOOKUPS, &[("source", "client_ip"), ("result", "unknown")], 9.0);
    world.expect_metric(LOOKUPS, &[("source", "client_ip"), ("result", "hit")], 18.0);
    assert_eq!((world.metric(ENTRIES, &[]), world.metric("homing_sessions", &[])), (9.0, 9.0));
    let line = world.access_line("/plain");
    assert_eq!((line["source"].as_str(), line["lookup"].as_str()), (Some("client_ip"), Some("unknown")));
    assert_eq!((line["outcome"].as_str(), line["epoch"].as_u64()), (Some("new"), Some(0)));
    assert_eq!(line["session"].as_str().map(str::len), Some(8));
}

#[test]
fn the_rightmost_untrusted_hop_is_the_client() {
    let world = World::start(by_address("a b c", ""));
    let home = server(&world, "192.0.2.1");
    for spoofed in ["6.6.6.6, 192.0.2.1", "192.0.2.1:4711", "192.0.2.1, 127.0.0.9", "x, 192.0.2.1", "::ffff:192.0.2.1"]
    {
        for _ in 0..2 {
            assert_eq!(server(&world, spoofed), home, "{spoofed}");
        }
    }
    assert_eq!(world.metric(ENTRIES, &[]), 1.0, "all of them are one client");
}

#[test]
fn a_stranger_cannot_choose_its_address() {
    let world = World::start(Conf::servers("a b c").persistence("sources: [{ client_ip: {} }]"));
    let servers: BTreeSet<_> = (0..9).map(|n| server(&world, &format!("192.0.2.{n}"))).collect();
    assert_eq!((servers.len(), world.metric(ENTRIES, &[])), (1, 1.0), "they all come from one address");
}

#[test]
fn a_network_is_one_client_where_the_pool_says_so() {
    let world = World::start(by_address("a b c", "ipv4_prefix: 24, ipv6_prefix: 56"));
    for (network, others) in [
        ("192.0.2.1", ["192.0.2.2", "192.0.2.200", "::ffff:192.0.2.3"]),
        ("198.51.100.7", ["198.51.100.0", "198.51.100.255", "198.51.100.8"]),
        ("2001:db8::1", ["2001:db8::2", "2001:db8:0:1::1", "[2001:db8:0:ff::1]:80"]),
        ("2001:db8:0:100::1", ["2001:db8:0:100::2", "2001:db8:0:1ff::", "2001:db8:0:123::9"]),
    ] {
        let home = server(&world, network);
        for other in others {
            assert_eq!(server(&world, other), home, "{network} and {other}");
        }
    }
    assert_eq!(world.metric(ENTRIES, &[]), 4.0);
}

#[test]
fn a_hundred_parallel_first_requests_of_one_address_land_on_one_server() {
    let world = World::start(by_address("a b c", ""));
    for (round, address) in ["192.0.2.1", "192.0.2.2", "2001:db8::1"].iter().enumerate() {
        let servers = at_once(100, || server(&world, address));
        assert_eq!(servers.len(), 1, "{servers:?}");
        world.expect_metric(OUTCOMES, &[("outcome", "new")], (round + 1) as f64);
        assert_eq!(world.metric(ENTRIES, &[]), (round + 1) as f64);
    }
}

#[test]
fn an_address_moves_once_when_its_server_dies() {
    let world = World::start(by_address("a b c d", ""));
    let home = server(&world, "192.0.2.1");
    world.app(&home).kill();
    let servers = at_once(50, || server(&world, "192.0.2.1"));
    assert_eq!(servers.len(), 1, "{servers:?}");
    world.app(&home).start();
    assert_eq!(server(&world, "192.0.2.1"), *servers.first().expect("one"), "it stays");
    world.expect_metric(MOVES, &[("reason", "connect_failure")], 1.0);
}

#[test]
fn a_borrowed_address_returns_home() {
    let world = World::start(by_address("a b c", "").persistence("on_server_down: borrow"));
    let home = server(&world, "192.0.2.1");
    world.app(&home).kill();
    assert_ne!(server(&world, "192.0.2.1"), home);
    world.app(&home).start();
    eventually(PATIENCE, "home again", || server(&world, "192.0.2.1") == home);
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn a_refused_address_begins_a_new_session() {
    let world = World::start(by_address("a b c", "").persistence("on_server_down: refuse"));
    let home = server(&world, "192.0.2.1");
    world.app(&home).kill();
    from(&world, "192.0.2.1").expect(503);
    let next = server(&world, "192.0.2.1");
    assert_ne!(next, home);
    assert_eq!(server(&world, "192.0.2.1"), next);
}

#[test]
fn an_address_is_bound_where_its_first_request_was_answered() {
    let world = World::builder(by_address("a b c", "")).down("a").start();
    for n in 0..20 {
        let address = format!("192.0.2.{n}");
        let home = server(&world, &address);
        assert_ne!(home, "a", "nothing answers there");
        for _ in 0..2 {
            assert_eq!(server(&world, &address), home, "bound where it was answered");
        }
    }
    world.expect_metric(OUTCOMES, &[("outcome", "new")], 20.0);
    world.expect_metric(OUTCOMES, &[("outcome", "kept")], 40.0);
    world.expect_metric(MOVES, &[], 0.0);
}

#[test]
fn parallel_first_requests_land_on_one_server_although_the_first_choice_takes_no_connection() {
    let world = World::builder(by_address("a b c d", "")).down("a").down("b").start();
    for n in 0..24 {
        let address = format!("192.0.2.{n}");
        let servers = at_once(12, || server(&world, &address));
        assert_eq!(servers.len(), 1, "address {n}: {servers:?}");
        assert_eq!(server(&world, &address), *servers.first().expect("one"), "and there it stays");
    }
}

#[test]
fn addresses_survive_a_reload() {
    let mut world = World::start(by_address("a b c", ""));
    let homes: Vec<_> = (0..6).map(|n| format!("192.0.2.{n}")).map(|a| (server(&world, &a), a)).collect();
    world.reload(by_address("c b a x", "").persistence("idle_timeout: 10m"));
    for (home, address) in &homes {
        assert_eq!(server(&world, address), *home);
    }
    world.expect_metric(LOOKUPS, &[("source", "client_ip"), ("result", "hit")], 6.0);
}

#[test]
fn an_address_brings_a_client_without_a_cookie_home_and_gives_it_a_token() {
    let conf = Conf::servers("a b c")
        .listener("trusted_proxies: [127.0.0.0/8]")
        .persistence("sources: [{ cookie: {} }, { client_ip: {} }]");
    let world = World::start(conf);
    let token_of = |answer: &Response| {
        let line = answer.set_cookie(SESSION_COOKIE).map(str::to_owned);
        line.map(|line| line.split(';').next().expect("a pair").to_owned())
    };
    let first = from(&world, "192.0.2.1").expect(200);
    let (home, token) = (first.text(), token_of(&first).expect("a token"));
    for _ in 0..3 {
        let again = from(&world, "192.0.2.1").expect(200);
        assert_eq!(again.text(), home, "the address's server");
        assert_ne!(token_of(&again).expect("a token of its own"), token);
    }
    let other = (2..20).map(|n| format!("192.0.2.{n}")).find(|address| server(&world, address) != home);
    let other = other.expect("an address on another server");
    for _ in 0..3 {
        let headers = [("X-Forwarded-For", other.as_str()), ("Cookie", token.as_str())];
        let answer = get_with(&world.address, "/plain", &headers).expect(200);
        assert_eq!((answer.text(), token_of(&answer)), (home.clone(), None), "the token wins");
    }
    world.expect_metric(LOOKUPS, &[("source", "cookie"), ("result", "restored")], 1.0);
    world.expect_metric(LOOKUPS, &[("source", "cookie"), ("result", "hit")], 2.0);
    world.expect_metric(OUTCOMES, &[("outcome", "kept")], 6.0);
}
