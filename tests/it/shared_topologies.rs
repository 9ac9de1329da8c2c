//! A shared store of several servers, or behind a lock: a cluster, sentinels, users, TLS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::shared_proxies::{By, Edge, Sessions, assert_on_their_servers, learning, sessions};
use crate::world::apps::LONG;
use crate::world::stores::{Cluster, Kind, RedisServer, Sentinels, Store};
use crate::world::tls::Authority;
use crate::world::{Conf, PATIENCE, Proxy, World, eventually};

/// The minimal permissions of the store's user, as in conf/examples/valkey-tls.yaml.
const RULES: &str =
    "~homing:* resetchannels &homing:* +@connection +@read +@write +@pubsub +@scripting -@dangerous +info";
const UP: &str = "homing_store_up";

/// Requests of all sessions continue on all proxies during an action; returns the sessions that reached a wrong server.
pub(crate) fn while_requests_go_on<T>(edge: &Edge, all: &Sessions, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) || rounds == 0 {
                assert_on_their_servers(edge, all);
                rounds += 1;
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        asking.join().expect("no session strays");
        done
    })
}

fn no_session_strays_while_slots_of_a_cluster_move(kind: Kind) {
    let cluster = Cluster::start(kind);
    let mut edge = Edge::start(&cluster.entry(), learning("a b c").store("near_ttl: 1s"));
    let all = sessions(&edge, 24);
    assert!(cluster.nodes().iter().all(|node| !node.keys().is_empty()), "sessions are spread over the nodes");
    let key = cluster.keys().first().expect("a session").clone();
    let to = (cluster.owner_of(&key) + 1) % 3;
    while_requests_go_on(&edge, &all, || cluster.begin_to_move_slot_of(&key, to));
    // With empty tables: they must ask, and are sent on by ASK ...
    edge.restart(1);
    edge.restart(2);
    assert_on_their_servers(&edge, &all);
    while_requests_go_on(&edge, &all, || cluster.end_moving_slot_of(&key, to));
    // ... and by MOVED.
    edge.restart(0);
    assert_on_their_servers(&edge, &all);
    let key = cluster.keys().last().expect("a session").clone();
    let to = (cluster.owner_of(&key) + 1) % 3;
    while_requests_go_on(&edge, &all, || cluster.move_slot_of(&key, to));
    edge.world.app("a").kill();
    let moved = all.iter().map(|(by, id, home)| {
        let next = by.server(edge.proxies()[0], id);
        assert_eq!(next == *home, home != "a", "its sessions move, and no other");
        (*by, id.clone(), next)
    });
    let moved: Sessions = moved.collect();
    edge.world.app("a").start();
    eventually(PATIENCE, "all proxies agree on the moved sessions", || {
        let at_home = |proxy: &&Proxy| moved.iter().all(|(by, id, home)| by.server(proxy, id) == *home);
        edge.proxies().iter().all(at_home)
    });
    edge.restart(1);
    assert_on_their_servers(&edge, &moved);
}

#[test]
fn no_session_strays_while_slots_of_a_redis_cluster_move() {
    no_session_strays_while_slots_of_a_cluster_move(Kind::Redis);
}

#[test]
fn no_session_strays_while_slots_of_a_valkey_cluster_move() {
    no_session_strays_while_slots_of_a_cluster_move(Kind::Valkey);
}

fn no_session_strays_through_a_failover_of_sentinels(kind: Kind) {
    let sentinels = Sentinels::start(kind);
    let mut edge = Edge::start(&sentinels.entry(), learning("a b c").store("near_ttl: 1s"));
    let mut all = sessions(&edge, 12);
    assert_on_their_servers(&edge, &all);
    eventually(PATIENCE, "the replica has all", || sentinels.replica().keys().len() == all.len());
    let master = while_requests_go_on(&edge, &all, || sentinels.fail_over());
    eventually(LONG, "all proxies have found the new master", || {
        edge.proxies().iter().all(|proxy| proxy.metric(UP, &[]) == 1.0)
    });
    assert_on_their_servers(&edge, &all);
    let later = By::Cookie.begin(edge.proxies()[2], "later");
    eventually(PATIENCE, "the new master is written to", || master.keys().len() == all.len() + 1);
    all.push((By::Cookie, "later".to_owned(), later));
    edge.restart(1);
    assert_on_their_servers(&edge, &all);
}

#[test]
fn no_session_strays_through_a_failover_of_redis_under_sentinels() {
    no_session_strays_through_a_failover_of_sentinels(Kind::Redis);
}

#[test]
fn no_session_strays_through_a_failover_of_valkey_under_sentinels() {
    no_session_strays_through_a_failover_of_sentinels(Kind::Valkey);
}

#[test]
fn a_user_with_only_the_documented_permissions_is_enough() {
    for kind in Kind::BOTH {
        let server = RedisServer::setup(kind).user("homing", "a-password-4711", RULES).start();
        let edge = Edge::start(&server.entry(), learning("a b c").store("near_ttl: 1h"));
        let all = sessions(&edge, 6);
        assert_on_their_servers(&edge, &all);
        let (by, id, home) = &all[0];
        edge.world.app(home).kill();
        let next = by.server(edge.proxies()[1], id);
        for proxy in edge.proxies() {
            eventually(PATIENCE, "the move is announced", || by.server(proxy, id) == next);
            assert!(!proxy.log().contains("4711"), "{}", proxy.log());
            assert_eq!(proxy.metric("homing_store_operations_total", &[("result", "refused")]), 0.0);
        }
    }
}

/// A proxy with or without the store's authority in its environment.
fn with_authority(conf: &Conf, file: Option<&str>, work: impl FnOnce(&Proxy)) {
    let mut environment = World::builder(conf).without_proxy();
    let mut launch = environment.launch("");
    launch.environment.extend(file.map(|file| ("SSL_CERT_FILE".to_owned(), file.to_owned())));
    work(&Proxy::start(&launch, environment.directory()));
}

#[test]
fn a_store_behind_tls_is_believed_by_its_authority_and_by_no_other() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().expect("a directory"));
    authority.write(directory.path(), "authority");
    let file = directory.path().join("authority.pem").display().to_string();
    let server = RedisServer::setup(Kind::Redis).user("homing", "a-password-4711", RULES).tls(&authority).start();
    let conf = learning("a b c").store(&server.entry());
    assert!(server.entry().contains("rediss://"));
    with_authority(&conf, Some(&file), |proxy| {
        let home = By::Cookie.begin(proxy, "alice");
        assert_eq!(By::Cookie.server(proxy, "alice"), home);
        assert_eq!((proxy.metric(UP, &[]), server.keys().len()), (1.0, 1));
    });
    with_authority(&conf, None, |proxy| {
        By::Cookie.begin(proxy, "bob");
        let log = proxy.log();
        assert!(log.contains("out of reach") && log.to_lowercase().contains("certificate"), "{log}");
        assert_eq!((proxy.metric(UP, &[]), server.keys().len()), (0.0, 1), "and nothing was written");
    });
}

#[test]
fn a_wrong_password_is_told_without_it_and_the_proxy_serves_on() {
    let server = RedisServer::setup(Kind::Redis).user("homing", "a-password-4711", RULES).start();
    let entry = server.entry().replace("a-password-4711", "another-one-0815");
    let edge = Edge::start_without_store(&entry, learning("a b c"));
    let proxy = edge.proxies()[0];
    let homes: Vec<_> = (0..6).map(|n| (By::Cookie.begin(proxy, &format!("id-{n}")), format!("id-{n}"))).collect();
    for (home, id) in &homes {
        assert_eq!(&By::Cookie.server(proxy, id), home, "by what it knows itself");
    }
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("out of reach")).expect("a warning");
    assert!(line.contains("WARN") && line.to_lowercase().contains("password"), "{line}");
    for secret in ["0815", "4711"] {
        assert!(!log.contains(secret), "{log}");
    }
    assert_eq!(proxy.metric(UP, &[]), 0.0);
    assert!(Store::Redis(server).all().is_empty());
}
