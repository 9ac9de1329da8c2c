//! Session data follows its session from proxy to proxy, by way of the store that they share.

use crate::handoff::{HANDOFF, given, hand_over, handing_over};
use crate::shared_proxies::{Edge, with_every_store};
use crate::world::app::answers::saying;
use crate::world::stores::{Engine, Store};
use crate::world::{Browser, Conf, PATIENCE, Proxy, eventually};

with_every_store! {
    a_logged_in_cart_goes_from_proxy_to_proxy_through_the_kill_of_its_servers
    a_log_out_at_one_proxy_counts_at_all
    too_much_is_refused_and_the_old_stays_in_the_store
    a_new_server_that_was_not_ready_is_given_it_by_the_next_proxy_too
}

/// The same client at another proxy.
fn at(client: &Browser, proxy: &Proxy) -> Browser {
    client.copy_at(&proxy.address)
}

/// Logged in, with tea in the cart; and her server.
fn shopping(client: &Browser) -> String {
    client.get("/kept-cart/login?name=alice").expect(200);
    let text = client.get("/kept-cart/add?item=tea").expect(200).text();
    text.strip_prefix("alice has tea on ").expect("a cart").to_owned()
}

fn data(store: &Store) -> Vec<String> {
    store.all().into_iter().filter(|(key, _)| key.ends_with(":d")).map(|(_, value)| value).collect()
}

fn a_logged_in_cart_goes_from_proxy_to_proxy_through_the_kill_of_its_servers(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), handing_over("a b c d"));
    let [first, second, third] = edge.proxies();
    let alice = first.browser();
    let home = shopping(&alice);
    edge.world.app(&home).kill();
    let alice = at(&alice, second);
    let text = alice.get("/kept-cart/add?item=eggs").expect(200).text();
    let next = text.strip_prefix("alice has tea,eggs on ").expect("still logged in").to_owned();
    edge.world.app(&next).kill();
    let alice = at(&alice, third);
    let text = alice.get("/kept-cart").expect(200).text();
    assert!(text.starts_with("alice has tea,eggs on "), "{text}");
    let alice = at(&alice, first);
    assert_eq!(alice.get("/kept-cart").expect(200).text(), text, "and the first proxy does not undo it");
    assert_eq!(edge.metric(HANDOFF, &[("result", "given")]), 2.0);
}

#[test]
fn without_handoff_the_cart_is_lost() {
    let store = Store::start(Engine::Redis);
    let edge = Edge::start(&store.entry(), Conf::servers("a b c d"));
    let alice = edge.proxies()[0].browser();
    let home = shopping(&alice);
    edge.world.app(&home).kill();
    at(&alice, edge.proxies()[1]).get("/kept-cart").expect(401);
}

fn a_log_out_at_one_proxy_counts_at_all(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), handing_over("a b c d"));
    let [first, second, third] = edge.proxies();
    let alice = first.browser();
    let answer = hand_over(&alice, "login=alice");
    assert_eq!(answer.header("homing-session-data"), None, "clients do not see it");
    eventually(PATIENCE, "the store keeps it", || data(&store) == ["1 0 login=alice"]);
    let answer = hand_over(&at(&alice, second), "");
    assert_eq!(answer.header("homing-session-data"), None, "that neither");
    assert!(data(&store).iter().all(|text| !text.contains("login")), "{:?}", data(&store));
    edge.world.app(&answer.server()).kill();
    for proxy in [first, third] {
        let (data, _) = given(&at(&alice, proxy).get("/echo"));
        assert_eq!(
            data,
            Vec::<String>::new(),
            "no client is logged in again, not by what the first proxy remembers either"
        );
    }
    assert_eq!(edge.metric(HANDOFF, &[("result", "given")]), 0.0);
}

fn too_much_is_refused_and_the_old_stays_in_the_store(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), handing_over("a b c d"));
    let [first, second, third] = edge.proxies();
    let alice = first.browser();
    let home = hand_over(&alice, "cart=1").server();
    let answer = hand_over(&at(&alice, second), &"x".repeat(101));
    assert_eq!((answer.server(), answer.header("homing-session-data")), (home.clone(), None));
    second.expect_metric(HANDOFF, &[("result", "refused_size")], 1.0);
    assert_eq!(data(&store), ["1 0 cart=1"]);
    edge.world.app(&home).kill();
    let answer = at(&alice, third).get("/echo");
    let told = format!("from={home}; reason=connect_failure; epoch=1");
    assert_eq!(given(&answer), (vec!["cart=1".to_owned()], vec![told]));
    assert_eq!([answer.header("homing-session-data"), answer.header("homing-session-moved")], [None, None]);
    eventually(PATIENCE, "and it is kept with the move", || data(&store) == ["1 1 cart=1"]);
}

fn a_new_server_that_was_not_ready_is_given_it_by_the_next_proxy_too(engine: Engine) {
    let store = Store::start(engine);
    let edge = Edge::start(&store.entry(), handing_over("a b c d"));
    let [first, second, _] = edge.proxies();
    let alice = first.browser();
    let home = hand_over(&alice, "cart=1").server();
    edge.world.app(&home).kill();
    alice.get(&saying(503, &[])).expect(503);
    let alice = at(&alice, second);
    let told = format!("from={home}; reason=connect_failure; epoch=1");
    let answer = alice.get("/echo");
    assert_eq!(given(&answer), (vec!["cart=1".to_owned()], vec![told]), "as if it had come to the first");
    let again = alice.get("/echo");
    assert_eq!(again.server(), answer.server());
    assert_eq!(given(&again), (vec![], vec![]), "and no more once it has answered");
}
