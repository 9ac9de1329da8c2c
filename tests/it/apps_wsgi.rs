//! A Python shop behind WSGI, its sessions in each process's memory (Beaker, waitress): log-ins
//! and baskets.

use serde_json::json;

use crate::world::apps::{Nodes, WSGI};
use crate::world::{Browser, Response, World};

fn log_in(browser: &Browser, name: &str) -> Response {
    browser.post("/login", format!("name={name}"))
}

/// Logs in and says where.
#[track_caller]
pub(crate) fn server_of(browser: &Browser, name: &str) -> String {
    log_in(browser, name).expect(200).server()
}

/// Puts things into the basket, each of which must be there afterwards.
#[track_caller]
pub(crate) fn fill(browser: &Browser, name: &str, home: &str) {
    for items in 1..=10 {
        let answer = browser.post("/cart", format!("item=tea-{items}")).expect(200).json();
        assert_eq!(answer["server"], home, "every request comes home");
        assert_eq!(answer["items"].as_array().map(Vec::len), Some(items), "nothing is lost: {answer}");
    }
    let cart = browser.get("/cart").expect(200).json();
    assert_eq!((&cart["server"], &cart["user"]), (&json!(home), &json!(name)));
}

#[test]
fn without_persistence_no_client_stays_logged_in() {
    let nodes = Nodes::start(WSGI, "a b c");
    let world = World::start(nodes.conf().without_persistence());
    let alice = world.browser();
    let home = server_of(&alice, "alice");
    let answer = alice.get("/cart").expect(401).json();
    assert_ne!(answer["server"], home, "another server was asked, which knows nothing of it");
}

#[test]
fn with_the_sealed_cookie_baskets_fill_up_and_a_killed_server_costs_its_own_users_one_login() {
    let nodes = Nodes::start(WSGI, "a b c");
    let world = World::start(nodes.conf());
    assert_baskets_survive_but_the_killed_servers(&nodes, &world);
}

/// Two users on two servers fill their baskets; the server of one dies.
pub(crate) fn assert_baskets_survive_but_the_killed_servers(nodes: &Nodes, world: &World) {
    let (alice, bob) = (world.browser(), world.browser());
    let (home, other) = (server_of(&alice, "alice"), server_of(&bob, "bob"));
    assert_ne!(home, other, "two users have two servers");
    fill(&alice, "alice", &home);
    fill(&bob, "bob", &other);

    nodes.kill(&home);
    let answer = alice.get("/cart").expect(401).json();
    let next = answer["server"].as_str().expect("a server").to_owned();
    assert_ne!(next, home);
    nodes.start_again(&home);
    assert_eq!(server_of(&alice, "alice"), next, "it moved once, and there it logs in");
    fill(&alice, "alice", &next);
    let cart = bob.get("/cart").expect(200).json();
    assert_eq!(cart["items"].as_array().map(Vec::len), Some(10), "no other client noticed: {cart}");
    assert_eq!(bob.post("/logout", "").expect(200).server(), other, "and it is there that he logs out");
    assert_eq!(bob.cookie("SHOPSESSION"), None, "the shop has taken its cookie away");
    world.expect_metric("homing_session_moves_total", &[("pool", "web")], 1.0);
}
