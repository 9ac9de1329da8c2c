//! An MCP server on streamable HTTP, server and client of the official SDK: a session is named by `Mcp-Session-Id` alone.

use serde_json::json;

use crate::world::World;
use crate::world::apps::{Driver, MCP, Nodes};

pub(crate) fn client(world: &World) -> Driver {
    Driver::start(MCP, &[&format!("http://{}/mcp", world.address)])
}

/// A session from its beginning to its stream, and its counter; its id and its server.
#[track_caller]
pub(crate) fn begin(client: &mut Driver) -> (String, String) {
    let begun = client.ask(&json!({"do": "begin"}), "begun");
    let text = |field: &str| begun[field].as_str().expect("a word").to_owned();
    let (session, server) = (text("session"), text("server"));
    client.wait_for("stream opened");
    assert_eq!(client.ask(&json!({"do": "tools"}), "tools")["names"], json!(["count", "announce"]));
    for counted in 1..=10 {
        assert_eq!(count(client), (server.clone(), counted), "every call comes home");
    }
    client.tell(&json!({"do": "call", "tool": "announce"}));
    let mut heard = [(); 2].map(|()| client.wait_for_one_of(&["announced", "called"]));
    heard.sort_by_key(|event| event["event"].to_string()); // which comes first is not said: they take two connections
    assert_eq!(heard[0]["by"], server, "the stream that stays open ends at the same server: {heard:?}");
    assert_eq!(heard[1]["server"], server, "{heard:?}");
    (session, server)
}

pub(crate) fn count(client: &mut Driver) -> (String, u64) {
    let called = client.ask(&json!({"do": "call", "tool": "count"}), "called");
    (called["server"].as_str().expect("a server").to_owned(), called["count"].as_u64().expect("a number"))
}

/// Ends the session, after which its server knows nothing of it.
#[track_caller]
pub(crate) fn end(client: &mut Driver, session: &str) {
    assert_eq!(client.ask(&json!({"do": "end"}), "ended")["session"], session);
    let pinged = client.ask(&json!({"do": "ping", "session": session}), "pinged");
    assert_eq!(pinged["status"], 404, "an ended session gets no answer: {pinged}");
}

#[test]
fn one_server_alone_serves_a_session_from_its_beginning_to_its_end() {
    let nodes = Nodes::start(MCP, "a");
    let world = World::start(nodes.conf().without_persistence());
    let mut alice = client(&world);
    let (session, home) = begin(&mut alice);
    assert_eq!(count(&mut alice), (home, 11));
    end(&mut alice, &session);
}

#[test]
fn without_persistence_a_session_cannot_even_begin() {
    let nodes = Nodes::start(MCP, "a b c");
    let world = World::start(nodes.conf().without_persistence());
    let failed = client(&world).ask(&json!({"do": "begin"}), "failed");
    assert_eq!(failed["code"], 404, "the second request met a server that does not know the session: {failed}");
}

#[test]
fn a_client_that_keeps_no_cookies_is_not_helped_by_the_sealed_cookie() {
    let nodes = Nodes::start(MCP, "a b c");
    let world = World::start(nodes.conf());
    let failed = client(&world).ask(&json!({"do": "begin"}), "failed");
    assert_eq!(failed["code"], 404, "{failed}");
}
