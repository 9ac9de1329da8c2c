//! The Python shop with its own session cookie alone: the proxy learns it, follows it when a login changes it, forgets it
//! when the shop takes it away, and sets no cookie of its own.

use crate::apps_wsgi::{assert_baskets_survive_but_the_killed_servers, fill, server_of};
use crate::world::apps::{Nodes, WSGI};
use crate::world::{Conf, PATIENCE, World, eventually};

fn learning(nodes: &Nodes) -> Conf {
    nodes.conf().persistence("sources: [{ learn: { cookie: SHOPSESSION } }]").persistence("issue: none")
}

#[test]
fn with_the_learned_cookie_baskets_fill_up_and_a_killed_server_costs_its_own_users_one_login() {
    let nodes = Nodes::start(WSGI, "a b c");
    let world = World::start(learning(&nodes));
    assert_baskets_survive_but_the_killed_servers(&nodes, &world);
    eventually(PATIENCE, "the logout ended a session", || {
        world.metric("homing_sessions_ended_total", &[("pool", "web"), ("reason", "ended")]) >= 1.0
    });
    world.expect_metric("homing_tokens_issued_total", &[("pool", "web")], 0.0);
}

#[test]
fn a_login_that_changes_the_id_keeps_the_user_on_the_server() {
    let nodes = Nodes::start(WSGI, "a b c");
    let world = World::start(learning(&nodes));
    let alice = world.browser();
    let home = server_of(&alice, "alice");
    for _ in 0..5 {
        let before = alice.cookie("SHOPSESSION").expect("the shop's cookie");
        assert_eq!(server_of(&alice, "alice"), home, "the old id leads home");
        assert_ne!(alice.cookie("SHOPSESSION").expect("the shop's cookie"), before, "a login changes the id");
        fill(&alice, "alice", &home);
    }
    assert_eq!(alice.token(), None, "the proxy sets no cookie of its own");
    world.expect_metric("homing_session_moves_total", &[("pool", "web")], 0.0);
}
