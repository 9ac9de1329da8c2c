//! Redis and Valkey that answer, but will not; a failover by sentinels; a cluster without one of its nodes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::outage_store_fleet::{Fleet, PENDING, asked, begin, learning, server, store_is};
use crate::world::stores::{Cluster, Kind, RedisServer, Sentinels};
use crate::world::{Address, App, Conf, PATIENCE, Proxy, eventually};

fn conf() -> Conf {
    learning("a b c").store("timeout: 300ms")
}

fn refused(proxy: &Proxy) -> f64 {
    proxy.metric("homing_store_operations_total", &[("result", "refused")])
}

/// A store that reads but does not write, for a reason that comes and goes.
fn read_only_store(kind: Kind, begins: impl Fn(&RedisServer), ends: impl Fn(&RedisServer)) {
    let store = RedisServer::start(kind);
    let fleet = Fleet::start(&conf(), &[store.entry(), store.entry()]);
    let (here, there) = (fleet.proxy(0), fleet.proxy(1));
    let alice = begin(here, "alice");
    begins(&store);
    let new = begin(here, "new");
    assert_eq!(server(here, "new"), new, "new sessions begin");
    assert!(refused(here) > 0.5, "the store's refusal is counted");
    here.expect_metric(PENDING, &[], 1.0);
    assert_eq!(server(here, "alice"), alice);
    let client = there.browser();
    let of_client = client.server();
    assert_eq!(client.server(), of_client);
    ends(&store);
    fleet.wait_until_written();
    fleet.wait_for_store(true);
    assert_eq!(server(there, "new"), new, "told when the store takes it");
    assert_eq!(server(there, "alice"), alice);
    assert_eq!(client.server(), of_client);
    fleet.expect_no_moves();
}

#[test]
fn a_store_that_became_read_only_is_told_when_it_writes_again() {
    let silent = App::reserve("silent");
    let port = silent.socket_address().port().to_string();
    for kind in Kind::BOTH {
        read_only_store(
            kind,
            |store| store.command(&["REPLICAOF", "127.0.0.1", &port]).ok(),
            |store| store.command(&["REPLICAOF", "NO", "ONE"]).ok(),
        );
    }
}

#[test]
fn a_store_that_is_full_is_told_when_it_has_room() {
    for kind in Kind::BOTH {
        read_only_store(
            kind,
            |store| store.command(&["CONFIG", "SET", "maxmemory", "1"]).ok(),
            |store| store.command(&["CONFIG", "SET", "maxmemory", "0"]).ok(),
        );
    }
}

/// Clients come to all proxies, each again and again, while something happens. Every request must be answered, by the
/// session's own server.
fn with_requests_during(fleet: &Fleet, known: &[(String, String)], happens: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking: Vec<_> = fleet
            .all()
            .map(|proxy| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !over.load(Relaxed) {
                        for (id, home) in known {
                            assert_eq!(&server(proxy, id), home, "{id} is at home");
                            asked += 1;
                        }
                        thread::yield_now();
                    }
                    asked
                })
            })
            .collect();
        happens();
        over.store(true, Relaxed);
        for one in asking {
            assert!(one.join().expect("all are answered") > known.len(), "requests came all the time");
        }
    });
}

fn failover(kind: Kind, loses: impl Fn(&RedisServer), comes_back: impl Fn(&RedisServer)) {
    let sentinels = Sentinels::start(kind);
    let fleet = Fleet::start(&conf(), &[sentinels.entry(), sentinels.entry(), sentinels.entry()]);
    let known: Vec<_> = (0..4).map(|n| format!("id-{n}")).map(|id| (id.clone(), begin(fleet.proxy(0), &id))).collect();
    fleet.all().for_each(|proxy| known.iter().for_each(|(id, home)| assert_eq!(&server(proxy, id), home)));
    let old = sentinels.master();
    with_requests_during(&fleet, &known, || {
        loses(old);
        sentinels.wait_for_failover_from(old);
        fleet.wait_for_store(true);
        let writes = |proxy: &Proxy| asked(proxy, "bind", "ok");
        for (number, proxy) in fleet.all().enumerate() {
            let before = writes(proxy);
            begin(proxy, &format!("after-{number}"));
            eventually(PATIENCE, "the new master is told", || writes(proxy) > before);
        }
    });
    fleet.wait_until_written();
    for number in 0..3 {
        let id = format!("after-{number}");
        let homes: Vec<_> = fleet.all().map(|proxy| server(proxy, &id)).collect();
        assert!(homes.iter().all(|home| *home == homes[0]), "all know what is new: {homes:?}");
    }
    assert!(sentinels.master().keys().len() >= known.len() + 3, "all is with the new master");
    comes_back(old);
    fleet.all().for_each(|proxy| store_is(proxy, true));
    fleet.expect_no_moves();
}

#[test]
fn a_failover_after_the_master_died_moves_no_session() {
    failover(Kind::Redis, RedisServer::kill, |_| {});
}

#[test]
fn a_failover_after_the_master_froze_moves_no_session() {
    failover(Kind::Valkey, RedisServer::freeze, RedisServer::thaw);
}

#[test]
fn a_dead_node_of_a_cluster_loses_its_slots_alone() {
    let cluster = Cluster::with(Kind::Redis, |node| node.line("cluster-require-full-coverage no"));
    let fleet = Fleet::start(&conf(), &[cluster.entry(), cluster.entry()]);
    let (here, there) = (fleet.proxy(0), fleet.proxy(1));
    let mut kept: [Vec<(String, String)>; 3] = Default::default();
    for id in (0..18).map(|n| format!("id-{n}")) {
        let before = [0, 1, 2].map(|number| cluster.node(number).keys().len());
        let home = begin(here, &id);
        let keeper = (0..3).find(|number| cluster.node(*number).keys().len() > before[*number]);
        kept[keeper.expect("one keeps it")].push((id, home));
    }
    let [lost, left, other] = kept;
    assert!(!lost.is_empty() && !left.is_empty() && !other.is_empty(), "each keeps some");
    cluster.node(0).kill();
    assert!(!Address::from(cluster.node(0).address()).is_listening());
    for (id, home) in left.iter().chain(&other) {
        eventually(PATIENCE, "what the other nodes keep is found", || &server(there, id) == home);
    }
    for (id, home) in &lost {
        assert_eq!(&server(here, id), home, "the lost slots' sessions go on by the near copy");
    }
    let new: Vec<_> = (0..6).map(|n| format!("new-{n}")).map(|id| (id.clone(), begin(here, &id))).collect();
    for (id, home) in &new {
        assert_eq!(&server(here, id), home);
    }
    cluster.node(0).start_again();
    cluster.wait_until_ok();
    for (id, home) in lost.iter().chain(&new) {
        eventually(PATIENCE, "all is there again", || server(here, id) == *home && server(there, id) == *home);
    }
    fleet.wait_until_written();
    fleet.expect_no_moves();
}
