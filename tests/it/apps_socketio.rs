//! Socket.IO, server and client from npm: long polling and the upgrade to WebSocket need every request of a connection
//! on the server that began it.

use serde_json::{Value, json};

use crate::world::World;
use crate::world::apps::{Driver, Nodes, SOCKET_IO};

/// Long polling alone, and one try.
pub(crate) const POLLING: &str = r#""transports": ["polling"], "reconnection": false"#;
/// `engine.io-client` keeps cookies outside browsers too when it is asked to.
const COOKIES: &str = r#""withCredentials": true"#;

pub(crate) fn client(world: &World, options: &[&str]) -> Driver {
    Driver::start(SOCKET_IO, &[&format!("http://{}", world.address), &format!("{{{}}}", options.join(","))])
}

/// The server's name, how often this connection has counted there, and over which transport it did.
#[track_caller]
pub(crate) fn count(client: &mut Driver) -> (String, u64, String) {
    let said = client.ask(&json!({"do": "count"}), "counted");
    let text = |field: &str| said[field].as_str().expect("a word").to_owned();
    (text("server"), said["count"].as_u64().expect("a number"), text("transport"))
}

#[track_caller]
fn assert_the_session_is_unknown(said: &Value) {
    assert_eq!(said["status"], 400, "{said}");
    assert!(said["body"].as_str().is_some_and(|body| body.contains("Session ID unknown")), "{said}");
}

#[test]
fn without_persistence_long_polling_meets_servers_that_do_not_know_it() {
    let nodes = Nodes::start(SOCKET_IO, "a b c");
    let world = World::start(nodes.conf().without_persistence());
    let mut alice = client(&world, &[POLLING, COOKIES]);
    assert_the_session_is_unknown(&alice.wait_for_one_of(&["refused", "disconnected"]));
}

#[test]
fn a_client_that_keeps_no_cookies_is_not_helped_by_the_sealed_cookie() {
    let nodes = Nodes::start(SOCKET_IO, "a b c");
    let world = World::start(nodes.conf());
    let mut alice = client(&world, &[POLLING]);
    assert_the_session_is_unknown(&alice.wait_for_one_of(&["refused", "disconnected"]));
}

#[test]
fn with_the_sealed_cookie_long_polling_stays_on_one_server() {
    let nodes = Nodes::start(SOCKET_IO, "a b c");
    let world = World::start(nodes.conf());
    let mut homes = Vec::new();
    for _ in 0..3 {
        let mut alice = client(&world, &[POLLING, COOKIES]);
        alice.wait_for("connected");
        let (home, ..) = count(&mut alice);
        for counted in 2..=20 {
            assert_eq!(count(&mut alice), (home.clone(), counted, "polling".to_owned()));
        }
        assert_eq!(alice.times("disconnected") + alice.times("refused"), 0);
        homes.push(home);
    }
    homes.sort();
    assert_eq!(homes, ["a", "b", "c"], "each client has a home of its own");
}

#[test]
fn with_the_sealed_cookie_connections_become_websockets_and_a_killed_server_costs_its_own_clients_one_reconnect() {
    let nodes = Nodes::start(SOCKET_IO, "a b c");
    let world = World::start(nodes.conf());
    assert_upgrades_and_survives_a_kill(&nodes, &world, &[COOKIES]);
}

/// Three clients on three servers become WebSockets; one server dies.
pub(crate) fn assert_upgrades_and_survives_a_kill(nodes: &Nodes, world: &World, options: &[&str]) {
    let mut clients: Vec<(Driver, String)> = Vec::new();
    for _ in 0..3 {
        let mut client = client(world, options);
        assert_eq!(client.wait_for("opened")["transport"], "polling");
        assert_eq!(client.wait_for("upgraded")["transport"], "websocket");
        let (home, counted, transport) = count(&mut client);
        assert_eq!((counted, transport.as_str()), (1, "websocket"));
        clients.push((client, home));
    }
    let (mut victim, home) = clients.remove(0);
    assert!(clients.iter().all(|(_, other)| *other != home), "each client has a home of its own");

    nodes.kill(&home);
    victim.wait_for("disconnected");
    victim.wait_for("upgraded");
    let (next, counted, _) = count(&mut victim);
    assert_ne!(next, home, "the dead server is not where it is now");
    assert_eq!(counted, 1, "its counter died with the server");
    nodes.start_again(&home);
    for counted in 2..=5 {
        assert_eq!(count(&mut victim), (next.clone(), counted, "websocket".to_owned()), "and there it stays");
    }
    assert_eq!(victim.times("disconnected"), 1);
    for (bystander, other) in &mut clients {
        assert_eq!(count(bystander), (other.clone(), 2, "websocket".to_owned()), "no other client noticed");
        assert_eq!(bystander.times("disconnected"), 0);
    }
}
