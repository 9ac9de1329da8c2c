//! Where new sessions go.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use crate::world::{Conf, PATIENCE, QUICK_CHECK, World, eventually};

/// How many of so many new clients each server was given.
fn shares(world: &World, clients: usize) -> BTreeMap<String, usize> {
    let mut shares: BTreeMap<String, usize> = world.apps().map(|app| (app.name().to_owned(), 0)).collect();
    let browser = world.browser();
    for _ in 0..clients {
        let server = browser.request("GET", "/echo").without_cookies().send().server();
        *shares.entry(server).or_default() += 1;
    }
    shares
}

/// The servers that a request with these words is sent to, asked several times.
fn servers_for(world: &World, target: &str, header: Option<(&str, &str)>) -> BTreeSet<String> {
    let browser = world.browser();
    let ask = |_| {
        let request = browser.request("GET", target).without_cookies();
        let request = if let Some((name, value)) = header { request.header(name, value) } else { request };
        request.send().server()
    };
    (0..4).map(ask).collect()
}

/// Each of fifty values has one server, and together they have all three.
fn assert_hashed(world: &World, ask: impl Fn(usize) -> BTreeSet<String>) {
    let mut all = BTreeSet::new();
    for value in 0..50 {
        let servers = ask(value);
        assert_eq!(servers.len(), 1, "one value, one server: {servers:?}");
        all.extend(servers);
    }
    assert_eq!(all.len(), world.apps().count(), "values are spread over all servers");
}

fn hashed(on: &str) -> Conf {
    Conf::servers("a b c").pool("balance: hash").pool(&format!("hash_on: \"{on}\"")).without_persistence()
}

#[test]
fn round_robin_gives_each_server_exactly_its_weight() {
    let conf = Conf::servers("a b c").server("a", "weight: 3").server("b", "weight: 2");
    let world = World::start(conf);
    let shares = shares(&world, 60);
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [30, 20, 10], "{shares:?}");
}

#[test]
fn random_gives_each_server_roughly_its_weight() {
    let conf = Conf::servers("a b c").server("c", "weight: 2").pool("balance: random");
    let shares = shares(&World::start(conf), 400);
    assert!((60..=140).contains(&shares["a"]) && (60..=140).contains(&shares["b"]), "a quarter each: {shares:?}");
    assert!((150..=250).contains(&shares["c"]), "a half: {shares:?}");
}

#[test]
fn hash_on_the_clients_address_keeps_a_client_on_one_server() {
    let world = World::start(hashed("client_ip").listener("trusted_proxies: [127.0.0.0/8]"));
    assert_hashed(&world, |n| servers_for(&world, "/echo", Some(("X-Forwarded-For", &format!("203.0.113.{n}")))));
}

#[test]
fn hash_on_the_uri_keeps_a_page_on_one_server() {
    let world = World::start(hashed("uri"));
    assert_hashed(&world, |n| servers_for(&world, &format!("/page?n={n}"), None));
}

#[test]
fn hash_on_a_header_keeps_its_value_on_one_server() {
    let world = World::start(hashed("header:X-Tenant"));
    assert_hashed(&world, |n| servers_for(&world, &format!("/{n}"), Some(("x-tenant", &format!("tenant-{n}")))));
}

#[test]
fn hash_on_a_cookie_keeps_its_value_on_one_server() {
    let world = World::start(hashed("cookie:user"));
    assert_hashed(&world, |n| servers_for(&world, "/echo", Some(("Cookie", &format!("a=1; user=u{n}; z=2")))));
}

#[test]
fn hash_on_a_query_parameter_keeps_its_value_on_one_server() {
    let world = World::start(hashed("query:room"));
    assert_hashed(&world, |n| servers_for(&world, &format!("/chat?x=1&room=r{n}"), None));
}

#[test]
fn a_request_without_the_hashed_word_is_served_all_the_same() {
    let world = World::start(hashed("header:X-Tenant"));
    assert!(!servers_for(&world, "/echo", None).is_empty(), "by any server");
}

#[test]
fn a_dead_server_moves_only_its_own_share_of_a_hash() {
    let world = World::start(hashed("uri").pool(QUICK_CHECK));
    let pages: Vec<String> = (0..40).map(|n| format!("/page/{n}")).collect();
    let before: Vec<_> = pages.iter().map(|page| servers_for(&world, page, None)).collect();
    world.app("b").kill();
    world.wait_for_health("b", false);
    for (page, before) in pages.iter().zip(before) {
        let after = servers_for(&world, page, None);
        if before.contains("b") {
            assert!(!after.contains("b"), "{page} went elsewhere");
        } else {
            assert_eq!(after, before, "{page} stays");
        }
    }
}

#[test]
fn new_sessions_are_balanced_by_hash_and_then_kept() {
    let world = World::start(Conf::servers("a b c").pool("balance: hash").pool("hash_on: uri"));
    let alice = world.browser();
    let home = alice.get("/start").server();
    for n in 0..12 {
        assert_eq!(alice.get(&format!("/other/{n}")).server(), home, "the session decides, not the hash");
    }
}

#[test]
fn least_requests_prefers_the_idle_server() {
    let world = World::start(Conf::servers("a b").pool("balance: least_requests"));
    thread::scope(|scope| {
        let slow = scope.spawn(|| world.browser().get("/slow?ms=2500").server());
        eventually(PATIENCE, "the slow request arrives", || world.count("GET", "/slow") == 1);
        let busy = world.apps().find(|app| app.requests() == 1).expect("one is busy").name().to_owned();
        let shares = shares(&world, 10);
        assert_eq!(shares[&busy], 0, "the busy server is spared: {shares:?}");
        assert_eq!(slow.join().expect("an answer"), busy);
    });
}

#[test]
fn least_requests_uses_every_server_when_all_are_idle() {
    let world = World::start(Conf::servers("a b c").pool("balance: least_requests"));
    let shares = shares(&world, 30);
    assert!(shares.values().all(|n| *n >= 3), "ties do not always go to the first: {shares:?}");
}

#[test]
fn least_requests_goes_by_weight() {
    let conf = Conf::servers("a b").server("a", "weight: 3").pool("balance: least_requests");
    let world = World::start(conf);
    thread::scope(|scope| {
        let ask = |n: usize| {
            scope.spawn(|| world.browser().get("/slow?ms=2500").server());
            eventually(PATIENCE, "it arrives", || world.count("GET", "/slow") == n);
        };
        (1..=8).for_each(ask);
        assert_eq!(world.app("a").count("GET", "/slow"), 6, "three to one");
    });
}

#[test]
fn weight_zero_takes_no_new_session() {
    for balance in ["round_robin", "random", "least_requests", "hash"] {
        let conf = Conf::servers("a b c").server("b", "weight: 0").pool(&format!("balance: {balance}"));
        let shares = shares(&World::start(conf), 20);
        assert_eq!(shares["b"], 0, "{balance}: {shares:?}");
    }
}

#[test]
fn when_every_weight_is_zero_new_clients_get_503() {
    let conf = Conf::servers("a b").server("a", "weight: 0").server("b", "weight: 0");
    let world = World::start(conf);
    assert!(world.browser().get("/echo").expect(503).header("retry-after").is_some());
}

#[test]
fn a_backup_takes_new_sessions_only_while_no_other_can() {
    let conf = Conf::servers("a b spare").server("spare", "backup: true").pool(QUICK_CHECK);
    let world = World::start(conf);
    assert_eq!(shares(&world, 12)["spare"], 0, "not while others can");
    for name in ["a", "b"] {
        world.app(name).kill();
        world.wait_for_health(name, false);
    }
    assert_eq!(shares(&world, 6)["spare"], 6, "when no other can");
    let guest = world.browser();
    assert_eq!(guest.server(), "spare");
    world.app("a").start();
    world.wait_for_health("a", true);
    assert_eq!(shares(&world, 6)["a"], 6, "the others are back");
    assert_eq!(guest.server(), "spare", "its session stays nevertheless");
}

#[test]
fn a_server_in_maintenance_or_draining_takes_no_new_session() {
    let conf = Conf::servers("a b c").server("a", "state: maint").server("c", "state: drain");
    let shares = shares(&World::start(conf), 10);
    assert_eq!((shares["a"], shares["b"], shares["c"]), (0, 10, 0));
}

#[test]
fn a_refusing_server_is_passed_over_for_new_clients() {
    let world = World::start(Conf::servers("a b c"));
    world.app("b").kill();
    let shares = shares(&world, 12);
    assert_eq!((shares["a"] + shares["c"], shares["b"]), (12, 0), "no client notices");
}
