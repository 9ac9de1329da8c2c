//! gRPC, server and client of its own library: a session is named by metadata.

use serde_json::{Value, json};

use crate::world::apps::{Driver, GRPC, LONG, Nodes};
use crate::world::tls::Authority;
use crate::world::{Conf, World, eventually};

const HOST: &str = "shop.example.org";

fn sticky(nodes: &Nodes) -> Conf {
    let conf = nodes.conf().pool("connection: { protocol: h2 }");
    conf.persistence("sources: [header: { name: X-Session }], issue: header")
}

fn plain(world: &World, name: &str) -> Driver {
    Driver::start(GRPC, &[&world.address.to_string(), name])
}

#[track_caller]
fn call(client: &mut Driver, command: &Value) -> Vec<String> {
    let done = client.ask(command, "done");
    let responses = done["responses"].as_array().unwrap_or_else(|| panic!("{command}: {done}"));
    responses.iter().map(|response| response.as_str().expect("a text").to_owned()).collect()
}

/// Its server, and how many calls have come there.
#[track_caller]
fn add(client: &mut Driver) -> (String, u64) {
    let response = call(client, &json!({ "do": "Add" })).concat();
    let (server, count) = response.split_once(' ').expect("a server and a count");
    (server.to_owned(), count.parse().expect("a count"))
}

/// Calls of every kind, all at one server.
#[track_caller]
fn use_every_kind_of_call(client: &mut Driver) -> String {
    let (home, first) = add(client);
    assert_eq!(first, 1);
    for expected in 2..=8 {
        assert_eq!(add(client), (home.clone(), expected), "every call comes home");
    }
    let watched = call(client, &json!({ "do": "Watch", "messages": 5 }));
    assert_eq!(watched, (0..5).map(|number| format!("{home} {number}")).collect::<Vec<_>>());
    let chatted = call(client, &json!({ "do": "Chat", "messages": 5 }));
    assert_eq!(chatted, (0..5).map(|number| format!("{home} message {number}")).collect::<Vec<_>>());
    let whole = call(client, &json!({ "do": "Whole", "messages": 40, "size": 60_000 }));
    assert_eq!(whole, [format!("{home} 2400000")], "a stream of the client, larger than any window");
    let failed = client.ask(&json!({ "do": "Fail" }), "done");
    let expected = (json!("NOT_FOUND"), json!("no such thing"), json!(home));
    assert_eq!(
        (&failed["code"], &failed["details"], &failed["trailing"]["served-by"]),
        (&expected.0, &expected.1, &expected.2)
    );
    home
}

#[test]
fn grpc_calls_of_a_session_come_home_by_their_metadata() {
    let nodes = Nodes::start(GRPC, "a b c");
    let world = World::start(sticky(&nodes));
    let homes: Vec<String> =
        ["alice", "bob", "carol"].map(|name| use_every_kind_of_call(&mut plain(&world, name))).into();
    assert!(homes.iter().any(|home| *home != homes[0]), "clients are balanced: {homes:?}");
}

#[test]
fn grpc_calls_come_home_over_tls() {
    let nodes = Nodes::start(GRPC, "a b c");
    let authority = Authority::new();
    let conf = sticky(&nodes).listener("tls: { certificates: [{ cert: a.pem, key: a.key }] }");
    let start = World::builder(conf).before(|environment| {
        authority.issue(environment.directory(), "a", &[HOST]);
        authority.write(environment.directory(), "ca");
    });
    let world = start.start();
    let ca = world.directory().join("ca.pem");
    let ca = ca.to_str().expect("a path of text");
    for name in ["alice", "bob"] {
        use_every_kind_of_call(&mut Driver::start(GRPC, &[&world.address.to_string(), name, ca, HOST]));
    }
}

#[test]
fn a_grpc_session_moves_once_when_its_server_dies() {
    let nodes = Nodes::start(GRPC, "a b c");
    let world = World::start(sticky(&nodes));
    let mut alice = plain(&world, "alice");
    let (home, _) = add(&mut alice);
    assert_eq!(add(&mut alice), (home.clone(), 2));
    nodes.kill(&home);
    // The call that finds the connection dead may fail: it is a POST, and may have been carried out.
    eventually(LONG, "the session moves", || {
        alice.ask(&json!({ "do": "Add" }), "done")["responses"].as_array().is_some()
    });
    let (next, count) = add(&mut alice);
    assert_ne!(next, home);
    for more in 1..=5 {
        assert_eq!(add(&mut alice), (next.clone(), count + more), "it stays there");
    }
}
