//! Ignite as the store of three proxies: nodes of its cluster come and go, and other programs write to it too.

use std::time::Duration;

use crate::shared_proxies::{By, Edge, assert_on_their_servers, learning, sessions};
use crate::shared_topologies::while_requests_go_on;
use crate::world::stores::{IgniteNode, JavaStore};
use crate::world::{PATIENCE, Proxy, eventually};

const UP: &str = "homing_store_up";

#[test]
fn no_session_strays_while_nodes_of_a_cluster_die_hang_and_come_back() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let nodes = IgniteNode::cluster([true, true, true]);
    let mut edge = Edge::start(&IgniteNode::entry(&nodes.each_ref()), learning("a b c").store("near_ttl: 1s"));
    let all = sessions(&edge, 24);
    assert_on_their_servers(&edge, &all);
    let [first, second, third] = &nodes;
    let all_connected = |edge: &Edge| {
        let connected = |proxy: &&Proxy| proxy.metric(UP, &[]) == 1.0;
        eventually(PATIENCE, "all proxies are connected", || edge.proxies().iter().all(connected));
    };
    while_requests_go_on(&edge, &all, || first.kill());
    all_connected(&edge);
    // With empty tables: they must ask, and the copies are there.
    edge.restart(0);
    edge.restart(1);
    assert_on_their_servers(&edge, &all);
    while_requests_go_on(&edge, &all, || first.start_again());
    while_requests_go_on(&edge, &all, || {
        second.freeze();
        let before = third.log().matches("Topology snapshot").count();
        eventually(PATIENCE, "the others give the frozen node up", || {
            third.log().matches("Topology snapshot").count() > before
        });
    });
    all_connected(&edge);
    edge.restart(2);
    edge.restart(0);
    assert_on_their_servers(&edge, &all);
    assert_eq!(edge.metric("homing_session_moves_total", &[]), 0.0);
}

#[test]
fn a_session_that_another_program_moves_or_ends_goes_by_what_that_wrote() {
    if !JavaStore::Ignite.is_here() {
        return;
    }
    let node = IgniteNode::start();
    // Copies are not refreshed: what is known here of the other program's doings was announced.
    let edge = Edge::start(&IgniteNode::entry(&[&node]), learning("a b c").store("near_ttl: 1h"));
    let by = By::Header;
    by.begin_at(edge.proxies()[0], "a", "alice");
    for proxy in edge.proxies() {
        assert_eq!(by.server(proxy, "alice"), "a");
    }
    let key = "k = next(k for k, _ in cache.scan())\n";
    let text = node.python(&format!("{key}print(cache.get(k))"));
    assert!(text.starts_with("1 0 a "), "{text}");
    let began = text.split(' ').nth(3).expect("when it began").to_owned();
    node.python(&format!("{key}cache.put(k, '1 1 b {began} ops')"));
    for proxy in edge.proxies() {
        eventually(PATIENCE, "it has moved", || by.server(proxy, "alice") == "b");
    }
    node.python(&format!("{key}cache.put(k, '1 2 - {began} ops')"));
    let ended = |proxy: &Proxy| proxy.metric("homing_sessions", &[]) == 0.0;
    for proxy in edge.proxies() {
        eventually(Duration::from_secs(10), "it has ended", || ended(proxy));
    }
    assert_eq!(edge.metric("homing_store_announcements_total", &[]), 6.0, "two announcements at three proxies");
}
