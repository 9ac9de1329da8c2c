//! What is promised of single sessions, in a calm world.

use std::sync::Arc;

use homing::persistence::Outcome;
use homing::session::key::SessionKey;
use homing::session::source::{ExternalId, SessionClaim};

use super::node::Node;
use super::request::{Does, serve};
use super::world::World;

fn ids(keys: &[SessionKey]) -> SessionClaim {
    let named = |key: &SessionKey| ExternalId { key: *key, former: std::iter::empty().collect() };
    SessionClaim::Ids(keys.iter().map(named).collect())
}

async fn binds(node: &Node, key: SessionKey, server: usize) {
    let place = Arc::clone(&node.version().targets[server]);
    node.table.assign(key, &place, node.now());
    // What it could not be told it is told later.
    let _ = node.store.assign(key, &place, node.now()).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_ids_the_second_is_found_though_the_first_has_ended() {
    let world = World::new(0);
    let (here, there) = (world.node(0), world.node(1));
    let (first, second) = (SessionKey(1), SessionKey(2));
    binds(&here, first, 0).await;
    let ended = serve(&world, &here, &ids(&[first]), Does { ends: true, ..Does::default() }).await;
    assert!(ended.ended);
    // The numbers of servers are each proxy's own.
    binds(&there, second, 1).await;
    let home = there.version().name(1).to_owned();
    let served = serve(&world, &here, &ids(&[first, second]), Does::default()).await;
    assert_eq!((served.outcome, served.by), (Some(Outcome::Kept), Some(home)));
}
