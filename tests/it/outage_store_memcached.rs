//! One of three memcached servers is lost: only its part of the sessions is.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outage_store_fleet::{Fleet, asked, begin, learning, server, timed};
use crate::world::stores::MemcachedServer;
use crate::world::{PATIENCE, Proxy, eventually};

const IDS: usize = 24;

/// Sessions that the first proxy knows, by the server of memcached that keeps them.
fn kept_by(servers: &[MemcachedServer; 3], proxy: &Proxy) -> [BTreeMap<String, String>; 3] {
    let mut parts = [const { BTreeMap::new() }; 3];
    for id in (0..IDS).map(|n| format!("id-{n}")) {
        let before = servers.each_ref().map(|server| server.keys().len());
        let home = begin(proxy, &id);
        let keeper = (0..3).find(|number| servers[*number].keys().len() > before[*number]);
        parts[keeper.expect("one keeps it")].insert(id, home);
    }
    assert!(parts.iter().all(|part| part.len() >= 2), "each keeps some: {parts:?}");
    parts
}

fn lose_one_server(lose: impl Fn(&MemcachedServer), find: impl Fn(&MemcachedServer)) {
    let servers = [(); 3].map(|()| MemcachedServer::start());
    let entry = MemcachedServer::entry(&servers.each_ref());
    let fleet = Fleet::start(&learning("a b c").store("timeout: 300ms"), &[entry.clone(), entry]);
    let (here, there) = (fleet.proxy(0), fleet.proxy(1));
    let [lost, left, other] = kept_by(&servers, here);
    let unavailable = || asked(there, "lookup", "timeout") + asked(there, "lookup", "unreachable");
    lose(&servers[0]);

    // Until the other proxy has found out that the server is away.
    let (some, _) = lost.first_key_value().expect("at least two");
    eventually(PATIENCE, "it is found to be away", || {
        server(there, some);
        asked(there, "lookup", "unreachable") > 0.5
    });
    let (in_vain, found) = (unavailable(), asked(there, "lookup", "ok"));
    let took = timed(|| {
        for (id, home) in left.iter().chain(&other) {
            assert_eq!(&server(there, id), home, "what other servers keep is found");
        }
    });
    let count = (left.len() + other.len()) as f64;
    assert_eq!(asked(there, "lookup", "ok") - found, count, "with a question each; all took {took:?}");
    assert_eq!(unavailable(), in_vain, "and none in vain");
    assert!(took < Duration::from_secs(3), "without waiting: {took:?}");
    there.expect_metric("homing_store_up", &[], 1.0);
    for (id, home) in &lost {
        assert_eq!(&server(here, id), home, "the lost part goes on by the near copy");
        let of_hash = server(there, id);
        assert_eq!(server(there, id), of_hash, "and where there is none, by the consistent hash");
    }
    let new = begin(here, "new");
    assert_eq!(server(here, "new"), new, "new sessions begin");

    find(&servers[0]);
    for (id, home) in &lost {
        eventually(PATIENCE, "the near copy is written back", || {
            server(here, id) == *home && server(there, id) == *home
        });
    }
    fleet.wait_until_written();
    fleet.expect_no_moves();
}

#[test]
fn a_dead_server_of_memcached_loses_its_part_alone() {
    lose_one_server(MemcachedServer::kill, MemcachedServer::start_again);
}

#[test]
fn a_frozen_server_of_memcached_loses_its_part_alone() {
    lose_one_server(MemcachedServer::freeze, MemcachedServer::thaw);
}
