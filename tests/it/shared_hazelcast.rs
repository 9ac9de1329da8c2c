//! Three proxies on a cluster of Hazelcast: its members are added, killed, started again and frozen, and no session strays.

use crate::shared_proxies::{Edge, MOVES, Sessions, assert_on_their_servers, learning, sessions};
use crate::shared_topologies::while_requests_go_on;
use crate::world::apps::LONG;
use crate::world::stores::{HazelcastMember, JavaStore};
use crate::world::{PATIENCE, Proxy, eventually};

/// Until this member has seen a cluster of that size so many times.
fn await_size(member: &HazelcastMember, size: usize, times: usize) {
    let said = format!("Members {{size:{size},");
    eventually(LONG, &said, || member.log().matches(&said).count() >= times);
}

#[test]
fn no_session_strays_while_members_of_hazelcast_come_and_go() {
    if !JavaStore::Hazelcast.is_here() {
        return;
    }
    let [first, second, third] = HazelcastMember::cluster([true, true, false]);
    let mut edge = Edge::start(&HazelcastMember::entry(&[&first, &second]), learning("a b c"));
    let all = sessions(&edge, 24);
    assert_on_their_servers(&edge, &all);

    while_requests_go_on(&edge, &all, || {
        third.start_again();
        await_size(&first, 3, 1);
    });
    // With an empty table it must ask the store, a new member included.
    edge.restart(0);
    assert_on_their_servers(&edge, &all);

    while_requests_go_on(&edge, &all, || {
        first.kill();
        await_size(&third, 2, 1);
    });
    edge.restart(1);
    assert_on_their_servers(&edge, &all);

    while_requests_go_on(&edge, &all, || {
        first.start_again();
        await_size(&third, 3, 2);
        second.freeze();
        await_size(&third, 2, 2);
    });
    edge.restart(2);
    assert_on_their_servers(&edge, &all);
    second.thaw();
    assert_eq!(edge.metric(MOVES, &[]), 0.0);

    edge.world.app("a").kill();
    let moved = all.iter().map(|(by, id, home)| {
        let next = by.server(edge.proxies()[0], id);
        assert_eq!(next == *home, home != "a", "only sessions of the dead server move");
        (*by, id.clone(), next)
    });
    let moved: Sessions = moved.collect();
    edge.world.app("a").start();
    eventually(PATIENCE, "all proxies agree on what moved", || {
        let at_home = |proxy: &&Proxy| moved.iter().all(|(by, id, home)| by.server(proxy, id) == *home);
        edge.proxies().iter().all(at_home)
    });
}
