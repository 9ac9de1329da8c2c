//! A shared store that is slow, silent, unreachable or partitioned delays a few requests by its timeout once, and then none;
//! no session moves.

use std::net::SocketAddr;
use std::time::Duration;

use crate::outage_store_fleet::{Fleet, LOOKUPS, PENDING, asked, begin, learning, server, store_is, timed};
use crate::world::app::answers::saying;
use crate::world::client::get_with;
use crate::world::link::Link;
use crate::world::namespace::Namespace;
use crate::world::stores::{Engine, Store};
use crate::world::{PATIENCE, Proxy, eventually};

const TIMEOUT: &str = "timeout: 500ms";
/// The timeout, and what a busy machine takes; well below twice the timeout.
const ONCE: Duration = Duration::from_millis(900);

/// How a store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// It does not answer, and after three timeouts no request waits for it.
    Silent,
    /// There is no connection; at most the request that finds out waits.
    Gone,
}

/// Engine the requests from now on: the number of failed store queries, and how many of them waited.
fn failed_store_queries(proxy: &Proxy) -> (f64, f64) {
    let waited = asked(proxy, "lookup", "timeout");
    (waited + asked(proxy, "lookup", "unreachable") + asked(proxy, "lookup", "suspended"), waited)
}

/// The first requests that find the store away: a few wait, each once.
fn few_requests_wait(away: Away, near: &Proxy) {
    let mut fastest = Duration::MAX;
    for n in 0..6 {
        let before = failed_store_queries(near).1;
        let took = timed(|| drop(server(near, &format!("stranger-{n}"))));
        let waited = failed_store_queries(near).1 - before;
        assert!(waited < 1.5, "a request waits once, but {waited} times in {took:?}");
        if waited > 0.5 {
            fastest = fastest.min(took);
        }
    }
    if away == Away::Silent {
        assert!(fastest < ONCE, "a wait is no longer than the timeout: {fastest:?}");
    }
}

/// An outage from the first request that meets it to the first after it. The first proxy reaches the store by `way`, the
/// second one directly.
fn outage(away: Away, store: &Store, way: SocketAddr, begins: impl Fn(), ends: impl Fn()) {
    let fleet = Fleet::start(&learning("a b c").store(TIMEOUT), &[store.entry_at(way), store.entry()]);
    let (near, far) = (fleet.proxy(0), fleet.proxy(1));
    let alice = begin(near, "alice");
    let carol = begin(far, "carol");
    let bob = near.browser();
    let of_bob = bob.server();
    assert_eq!(bob.server(), of_bob, "the store was asked for him");
    begins();

    few_requests_wait(away, near);
    let (all, waited) = failed_store_queries(near);
    assert!(all > 5.5, "each of them asked for was counted: {all}");
    let may_wait = if away == Away::Silent { 1.0..=3.0 } else { 0.0..=1.0 };
    assert!(may_wait.contains(&waited), "so many waited: {waited}");
    let took = timed(|| (0..20).for_each(|n| drop(server(near, &format!("another-{n}")))));
    assert_eq!(failed_store_queries(near), (all + 20.0, waited), "no request waits any more; all took {took:?}");
    near.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "store_error")], 26.0);
    store_is(near, false);

    assert_eq!(server(near, "alice"), alice, "a session that is known here stays");
    assert_eq!(bob.server(), of_bob, "and so does one with a token");
    let of_hash = server(near, "carol");
    assert_eq!(server(near, "carol"), of_hash, "an unknown one goes to one server");
    let new = begin(near, "new");
    assert_eq!(server(near, "new"), new, "new sessions begin");
    assert_eq!(failed_store_queries(near).1, waited, "all without waiting");

    ends();
    fleet.wait_for_store(true);
    eventually(PATIENCE, "the other proxy has its session", || server(far, "carol") == carol);
    eventually(PATIENCE, "and this one hears of it", || server(near, "carol") == carol);
    assert_eq!(server(near, "alice"), alice);
    assert_eq!(bob.server(), of_bob);
    fleet.wait_until_written();
    eventually(PATIENCE, "what began meanwhile is known to the other", || server(far, "new") == new);
    fleet.expect_no_moves();
}

#[test]
fn a_request_with_several_writes_to_a_silent_store_waits_once_too() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let conf = learning("a b c").store("timeout: 700ms").persistence("handoff: { enabled: true }");
        let fleet = Fleet::start(&conf, &[store.entry()]);
        let known = begin(fleet.proxy(0), "known");
        store.freeze();
        let lines = ["Set-Cookie: SID=new; Path=/", "Homing-Session-Data: logged in"];
        let took = timed(|| drop(get_with(&fleet.proxy(0).address, &saying(200, &lines), &[]).expect(200)));
        assert!(took < Duration::from_millis(1300), "its server hands out an id, and data: {took:?}");
        fleet.proxy(0).expect_metric(PENDING, &[], 2.0);
        assert_eq!(server(fleet.proxy(0), "known"), known);
        store.thaw();
        fleet.wait_until_written();
    });
}

fn by_link(away: Away, begins: impl Fn(&Link) + Sync) {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let link = Link::to(store.address());
        outage(away, &store, link.address(), || begins(&link), || link.heal());
    });
}

#[test]
fn a_frozen_store_costs_a_request_its_timeout_once_and_then_nothing() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        outage(Away::Silent, &store, store.address(), || store.freeze(), || store.thaw());
    });
}

#[test]
fn a_dead_store_costs_nothing() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        outage(Away::Gone, &store, store.address(), || store.kill(), || store.start_again());
    });
}

#[test]
fn a_slow_store_costs_a_request_its_timeout_once_and_then_nothing() {
    by_link(Away::Silent, |link| link.delay(Duration::from_secs(1)));
}

#[test]
fn a_store_behind_a_silent_link_costs_a_request_its_timeout_once_and_then_nothing() {
    by_link(Away::Silent, Link::hold);
}

#[test]
fn a_store_is_reached_again_after_a_firewall_has_dropped_its_connections() {
    by_link(Away::Silent, Link::lose);
}

#[test]
fn a_store_behind_a_cut_link_costs_nothing() {
    by_link(Away::Gone, Link::cut);
}

#[test]
fn a_store_in_a_partitioned_network_costs_a_request_its_timeout_once_and_then_nothing() {
    Engine::each(|engine| match Namespace::create() {
        Ok(namespace) => {
            let store = Store::within(engine, &namespace);
            outage(Away::Silent, &store, store.address(), || namespace.partition(), || namespace.heal());
        }
        Err(why) => eprintln!("no network namespace here ({why}): see the silent link"),
    });
}
