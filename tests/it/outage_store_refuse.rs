//! `on_error: refuse`: while the store is away, 503 for whom only the store knows, and for nobody else.

use std::time::Duration;

use crate::outage_store_fleet::{Fleet, LOOKUPS, Of, Store, begin, learning, server, timed};
use crate::world::client::{Response, get_with};
use crate::world::{PATIENCE, Proxy, eventually};

const ID: &str = "carol-whom-the-other-proxy-knows";

fn ask(proxy: &Proxy, path: &str) -> Response {
    get_with(&proxy.address, path, &[("Cookie", &format!("SID={ID}"))])
}

fn refused(of: Of, begins: impl Fn(&Store), ends: impl Fn(&Store)) {
    let store = Store::start(of);
    let conf = learning("a b c").store("timeout: 300ms").store("on_error: refuse");
    let fleet = Fleet::start(&conf, &[store.entry(), store.entry()]);
    let (near, far) = (fleet.proxy(0), fleet.proxy(1));
    let alice = begin(near, "alice");
    let carol = begin(far, ID);
    let bob = near.browser();
    let of_bob = bob.server();
    assert_eq!(bob.server(), of_bob);
    let dora = far.browser();
    let of_dora = dora.server();
    begins(&store);

    for n in 0..5 {
        let answer = ask(near, &format!("/refused-{n}")).expect(503);
        assert!(answer.header("retry-after").is_some(), "it says when to come again: {:?}", answer.head);
        assert_eq!(answer.all("set-cookie").len(), 0, "and the client keeps what it has");
    }
    let took = timed(|| drop(ask(near, "/refused-at-once").expect(503)));
    assert!(took < Duration::from_secs(1), "in the end without waiting: {took:?}");
    near.expect_metric(LOOKUPS, &[("source", "learn"), ("result", "store_error")], 6.0);
    near.expect_metric("homing_requests_rejected_total", &[("reason", "store_unavailable")], 6.0);
    let line = near.access_line("/refused-0");
    assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some("store_unavailable"), Some(503)), "{line}");

    assert_eq!(server(near, "alice"), alice, "who is in the near copy is served");
    assert_eq!(bob.server(), of_bob);
    assert_eq!(dora.copy_at(&near.address).server(), of_dora, "and whose token says where");
    let new = near.browser();
    let of_new = new.server();
    assert_eq!(new.server(), of_new, "and whoever is new, again and again");
    let of_id = begin(near, "new");
    assert_eq!((server(near, "new"), server(near, "new")), (of_id.clone(), of_id), "with an id too");
    ends(&store);
    fleet.wait_for_store(true);
    eventually(PATIENCE, "the other proxy has its session", || server(far, ID) == carol);
    eventually(PATIENCE, "and all is as before", || ask(near, "/plain").text() == carol);
    assert_eq!((new.server(), bob.server()), (of_new, of_bob));
    fleet.expect_no_moves();
}

#[test]
fn while_a_frozen_store_is_silent_those_whom_only_it_knows_are_told_to_come_again() {
    Of::each(|of| refused(of, Store::freeze, Store::thaw));
}

#[test]
fn while_a_store_is_dead_those_whom_only_it_knows_are_told_to_come_again() {
    Of::each(|of| refused(of, Store::kill, Store::start_again));
}
