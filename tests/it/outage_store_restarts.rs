//! Stores that come back empty, again and again, or late; proxies that stop, crash and restart while the store stays.

use std::time::{Duration, Instant};

use crate::outage_store_fleet::{Fleet, MOVES, PENDING, UP, asked, begin, end, learning, server, store_is, timed};
use crate::world::link::Link;
use crate::world::stores::{Engine, Store};
use crate::world::{Conf, PATIENCE, Proxy, Signal, eventually};

fn conf() -> Conf {
    learning("a b c").store("timeout: 300ms")
}

/// For tests in which no store hangs. A Java node that has just started may take longer than that on a busy machine.
fn patient_conf() -> Conf {
    learning("a b c").store("timeout: 5s")
}

fn three(store: &Store) -> Fleet {
    Fleet::start(&patient_conf(), &[store.entry(), store.entry(), store.entry()])
}

/// Learned sessions that all proxies know, and their servers.
fn create_sessions_known_to_all(fleet: &Fleet, count: usize) -> Vec<(String, String)> {
    let ids = (0..count).map(|n| format!("secret-id-{n}"));
    let known: Vec<_> = ids.map(|id| (id.clone(), begin(fleet.proxy(0), &id))).collect();
    assert_on_their_servers(fleet, &known);
    known
}

#[track_caller]
fn assert_on_their_servers(fleet: &Fleet, known: &[(String, String)]) {
    for proxy in fleet.all() {
        for (id, home) in known {
            assert_eq!(&server(proxy, id), home, "{id} is at home");
        }
    }
}

#[test]
fn a_store_that_was_started_again_empty_is_told_what_the_proxies_know() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let fleet = three(&store);
        let known = create_sessions_known_to_all(&fleet, 6);
        let client = fleet.proxy(0).browser();
        let of_client = client.server();
        let before = store.records();
        assert_eq!(before.len(), 6, "a token needs no record");
        store.kill();
        fleet.wait_for_store(false);
        store.start_again();
        fleet.wait_for_store(true);
        assert_on_their_servers(&fleet, &known);
        eventually(PATIENCE, "all is in the store again", || store.records() == before);
        for proxy in fleet.all() {
            assert_eq!(client.copy_at(&proxy.address).server(), of_client);
        }
        fleet.expect_no_moves();
        fleet.wait_until_written();
    });
}

fn open_files(proxy: &Proxy) -> f64 {
    proxy.metric("process_open_fds", &[])
}

#[test]
fn a_store_that_restarts_again_and_again_leaves_nothing_behind() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let fleet = Fleet::start(&patient_conf(), &[store.entry()]);
        let proxy = fleet.proxy(0);
        let known = create_sessions_known_to_all(&fleet, 3);
        let before = open_files(proxy);
        let threads = proxy.metric("process_threads", &[]);
        for _ in 0..10 {
            store.kill();
            store_is(proxy, false);
            store.start_again();
            store_is(proxy, true);
            assert_on_their_servers(&fleet, &known);
        }
        eventually(PATIENCE, "no connection is left", || open_files(proxy) <= before + 1.0);
        assert_eq!(proxy.metric("process_threads", &[]), threads);
        let log = proxy.log();
        let told = |what: &str| log.matches(what).count();
        assert_eq!(told("shared store unreachable"), 10, "once each time: {log}");
        assert_eq!(told("shared store connected"), 11, "once each time, and at the start: {log}");
        assert!(!log.contains("secret-id"), "no id is told: {log}");
        fleet.expect_no_moves();
    });
}

#[test]
fn a_proxy_starts_and_serves_while_its_store_is_away_and_finds_it_when_it_comes() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        store.kill();
        let mut fleet = None;
        let took = timed(|| fleet = Some(Fleet::without_store(&patient_conf(), &store.entry())));
        let fleet = fleet.expect("just started");
        assert!(took < Duration::from_secs(5), "about a second, and what a busy machine takes: {took:?}");
        let proxy = fleet.proxy(0);
        let alice = begin(proxy, "alice");
        assert_eq!(server(proxy, "alice"), alice);
        proxy.expect_metric(UP, &[], 0.0);
        proxy.expect_metric(PENDING, &[], 1.0);
        store.start_again();
        store_is(proxy, true);
        fleet.wait_until_written();
        assert_eq!(store.records().into_values().collect::<Vec<_>>(), [(0, alice)]);
        let log = proxy.log();
        let told: Vec<_> = log.lines().filter(|line| line.contains("out of reach")).collect();
        let refused = |line: &&str| line.contains("starting without it") && line.contains("Connection refused");
        assert!(told.len() == 1 && told.iter().all(refused), "it is told once, with the reason: {log}");
    });
}

#[test]
fn a_frozen_store_does_not_keep_a_proxy_from_starting() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        store.freeze();
        let start = Instant::now();
        let fleet = Fleet::without_store(&conf(), &store.entry());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let alice = begin(fleet.proxy(0), "alice");
        assert_eq!(server(fleet.proxy(0), "alice"), alice);
        store.thaw();
        store_is(fleet.proxy(0), true);
        fleet.wait_until_written();
        assert_eq!(store.records().into_values().collect::<Vec<_>>(), [(0, alice)]);
    });
}

#[test]
fn a_proxy_that_stops_writes_first_what_the_store_does_not_know() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let link = Link::to(store.address());
        let mut fleet = Fleet::start(&patient_conf(), &[store.entry_at(link.address()), store.entry()]);
        link.cut();
        store_is(fleet.proxy(0), false);
        let homes: Vec<_> = (0..50).map(|n| begin(fleet.proxy(0), &format!("id-{n}"))).collect();
        fleet.proxy(0).expect_metric(PENDING, &[], 50.0);
        link.heal();
        fleet.end(0, Signal::SIGTERM);
        for (n, home) in homes.iter().enumerate() {
            assert_eq!(&server(fleet.proxy(1), &format!("id-{n}")), home);
        }
        assert_eq!(store.records().len(), 50);
    });
}

#[test]
fn a_proxy_stops_in_time_although_its_store_is_away() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let mut fleet = Fleet::start(&conf(), &[store.entry()]);
        store.freeze();
        begin(fleet.proxy(0), "untold");
        let mut log = String::new();
        let took = timed(|| log = fleet.end(0, Signal::SIGTERM));
        assert!(took < Duration::from_secs(8), "a few seconds, and what a busy machine takes: {took:?}");
        assert_eq!(log.matches("the last decisions were not written").count(), 1, "{log}");
    });
}

#[test]
fn a_proxy_that_crashes_takes_nothing_with_it_that_others_know() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let mut fleet = three(&store);
        let known = create_sessions_known_to_all(&fleet, 6);
        let alone: Vec<_> = (0..6).map(|n| format!("alone-{n}")).collect();
        let alone: Vec<_> = alone.iter().map(|id| (id.clone(), begin(fleet.proxy(0), id))).collect();
        end(fleet.proxy(0), "secret-id-0");
        let ended = || store.records().values().filter(|record| **record == (1, "-".to_owned())).count();
        eventually(PATIENCE, "the store knows of the end", || ended() == 1);
        fleet.end(0, Signal::SIGKILL);
        assert_on_their_servers(&fleet, &known[1..]);
        assert_on_their_servers(&fleet, &alone);
        fleet.start_again(0);
        fleet.wait_for_store(true);
        assert_on_their_servers(&fleet, &known[1..]);
        assert_on_their_servers(&fleet, &alone);
        assert_eq!(ended(), 1);
        fleet.expect_no_moves();
    });
}

#[test]
fn a_snapshot_brings_sessions_home_after_a_restart_of_all_proxies_and_the_store() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let confs: Vec<_> = (0..2)
            .map(|n| {
                let snapshot = format!("snapshot: {{ path: \"{{{{dir}}}}/sessions-{n}\", interval: 1h }}");
                patient_conf().store(&snapshot).store(&store.entry())
            })
            .collect();
        let mut fleet = Fleet::of(&confs);
        let known = create_sessions_known_to_all(&fleet, 6);
        let before = store.records();
        (0..2).for_each(|number| drop(fleet.end(number, Signal::SIGTERM)));
        store.kill();
        store.start_again();
        (0..2).for_each(|number| fleet.start_again(number));
        fleet.wait_for_store(true);
        assert_eq!(store.records().len(), 0);
        assert_on_their_servers(&fleet, &known);
        eventually(PATIENCE, "all is in the store again", || store.records() == before);
        fleet.all().for_each(|proxy| proxy.expect_metric(MOVES, &[], 0.0));
        assert!(asked(fleet.proxy(0), "lookup", "ok") > 5.5, "the store was asked");
    });
}
