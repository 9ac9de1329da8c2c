//! Socket.IO with a client that keeps no cookies: the proxy learns the connection's id from the first answer's `io` cookie
//! and finds it in the query parameter `sid` of all that follow.

use crate::apps_socketio::{POLLING, assert_upgrades_and_survives_a_kill, client, count};
use crate::world::apps::{Nodes, SOCKET_IO};
use crate::world::{Conf, World};

fn learning(nodes: &Nodes) -> Conf {
    nodes.conf().persistence("sources: [{ learn: { query: sid, cookie: io } }]").persistence("issue: none")
}

#[test]
fn with_the_learned_id_long_polling_stays_on_one_server() {
    let nodes = Nodes::start(SOCKET_IO, "a b c");
    let world = World::start(learning(&nodes));
    let mut homes = Vec::new();
    for _ in 0..3 {
        let mut alice = client(&world, &[POLLING]);
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
    let hits = world.metric("homing_session_lookups_total", &[("source", "learn"), ("result", "hit")]);
    assert!(hits >= 60.0, "the learned id decided every time, and it is counted as such: {hits}");
}

#[test]
fn with_the_learned_id_connections_become_websockets_and_a_killed_server_costs_its_own_clients_one_reconnect() {
    let nodes = Nodes::start(SOCKET_IO, "a b c");
    let world = World::start(learning(&nodes));
    assert_upgrades_and_survives_a_kill(&nodes, &world, &[]);
}
