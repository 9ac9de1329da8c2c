//! `on_error: refuse`: while the store is unreachable, requests that name a session get 503, and no session is lost.

use std::time::Duration;

use crate::outage_store_fleet::{Fleet, LOOKUPS, begin, learning, server, timed};
use crate::world::client::{Response, get_with};
use crate::world::stores::{Engine, Store};
use crate::world::{PATIENCE, Proxy, eventually};

const ID: &str = "carol-of-the-other-proxy";

fn ask(proxy: &Proxy, id: &str, path: &str) -> Response {
    get_with(&proxy.address, path, &[("Cookie", &format!("SID={id}"))])
}

fn refused(engine: Engine, begins: impl Fn(&Store), ends: impl Fn(&Store)) {
    let store = Store::start(engine);
    let conf = learning("a b c").store("timeout: 300ms").store("on_error: refuse");
    let fleet = Fleet::start(&conf, &[store.entry(), store.entry()]);
    let (near, far) = (fleet.proxy(0), fleet.proxy(1));
    let alice = begin(near, "alice");
    let carol = begin(far, ID);
    let bob = near.browser();
    let of_bob = bob.server();
    assert_eq!(bob.server(), of_bob);
    begins(&store);

    eventually(PATIENCE, "it is known that the store is away", || ask(near, ID, "/plain").status == 503);
    fleet.wait_for_store(false);
    let before = near.metric(LOOKUPS, &[("source", "learn"), ("result", "store_error")]);
    for n in 0..5 {
        let answer = ask(near, ID, &format!("/refused-{n}")).expect(503);
        assert!(answer.header("retry-after").is_some(), "it says when to come again: {:?}", answer.head);
        assert_eq!(answer.all("set-cookie").len(), 0, "and the client keeps what it has");
    }
    let took = timed(|| drop(ask(near, ID, "/refused-at-once").expect(503)));
    assert!(took < Duration::from_secs(1), "in the end without waiting: {took:?}");
    near.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "store_error")], before + 6.0);
    let line = near.access_line("/refused-0");
    assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some("store_unavailable"), Some(503)), "{line}");

    ask(near, "alice", "/plain").expect(503);
    bob.get("/plain").expect(503);
    let new = near.browser();
    new.get("/plain").expect(200);
    ends(&store);
    fleet.wait_for_store(true);
    eventually(PATIENCE, "all is as before", || ask(near, ID, "/plain").text() == carol);
    // An emptied store is filled again by the proxies that know the sessions.
    eventually(PATIENCE, "at the other proxy too", || ask(far, "alice", "/plain").text() == alice);
    assert_eq!((server(near, "alice"), bob.server()), (alice, of_bob));
    assert_eq!(new.server(), new.server());
    fleet.expect_no_moves();
}

#[test]
fn while_a_frozen_store_is_silent_requests_with_sessions_get_503_and_retry_after() {
    Engine::each(|engine| refused(engine, Store::freeze, Store::thaw));
}

#[test]
fn while_a_store_is_dead_requests_with_sessions_get_503_and_retry_after() {
    Engine::each(|engine| refused(engine, Store::kill, Store::start_again));
}
