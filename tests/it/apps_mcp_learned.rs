//! An MCP server with its own session header alone: learned from the first answer, ended by DELETE, and refused with 404
//! when its server is gone, whereupon the client begins a new session.

use serde_json::json;

use crate::apps_mcp::{begin, client, count, end};
use crate::world::apps::{MCP, Nodes};
use crate::world::{Conf, World};

fn learning(nodes: &Nodes) -> Conf {
    nodes
        .conf()
        .persistence("sources: [{ learn: { header: Mcp-Session-Id, ends_on: [DELETE] } }]")
        .persistence("issue: none")
}

#[test]
fn with_the_learned_header_sessions_live_from_their_beginning_to_their_end() {
    let nodes = Nodes::start(MCP, "a b c");
    let world = World::start(learning(&nodes));
    let mut clients = [client(&world), client(&world), client(&world)];
    let sessions = clients.each_mut().map(begin);
    let mut homes: Vec<_> = sessions.iter().map(|(_, home)| home.as_str()).collect();
    homes.sort_unstable();
    assert_eq!(homes, ["a", "b", "c"], "each client has a home of its own");
    for (client, (_, home)) in clients.iter_mut().zip(&sessions) {
        assert_eq!(count(client), (home.clone(), 11), "also while the others came and went");
    }
    for (client, (session, _)) in clients.iter_mut().zip(&sessions) {
        end(client, session);
    }
    world.expect_metric("homing_sessions_ended_total", &[("pool", "web"), ("reason", "ended")], 3.0);
}

#[test]
fn a_client_whose_server_was_killed_is_told_404_and_begins_anew() {
    let nodes = Nodes::start(MCP, "a b c");
    let conf = learning(&nodes).persistence("on_server_down: refuse").persistence("refuse_status: 404");
    let world = World::start(conf);
    let (mut alice, mut bob) = (client(&world), client(&world));
    let (session, home) = begin(&mut alice);
    let (_, other) = begin(&mut bob);
    assert_ne!(home, other, "each client has a home of its own");

    nodes.kill(&home);
    let failed = alice.ask(&json!({"do": "call", "tool": "count"}), "failed");
    assert_eq!(failed["code"], 404, "{failed}");
    let said = failed["message"].as_str().expect("what it was told");
    assert!(!said.contains("Session not found on"), "the proxy says so, no other server was asked: {said}");
    let (next_session, next) = begin(&mut alice);
    assert_ne!(next, home, "a new session begins on a server that lives");
    assert_ne!(next_session, session);
    nodes.start_again(&home);
    assert_eq!(count(&mut alice), (next, 11), "and there it stays");
    assert_eq!(count(&mut bob), (other, 11), "no other client noticed");
}
