//! What is counted of a shared store.

use serde_json::json;

use crate::admin_api::ask;
use crate::outage_store_fleet::{Fleet, OPERATIONS, PENDING, UP, asked, begin, end, learning, server};
use crate::world::stores::{Engine, Store};
use crate::world::{Conf, PATIENCE, World, eventually};

const DURATIONS: &str = "homing_store_operation_duration_seconds_count";
const ASKED: [&str; 8] = ["lookup", "bind", "move", "touch", "data_get", "data_put", "forget", "ping"];
const RESULTS: [&str; 8] = ["ok", "lost", "timeout", "unreachable", "refused", "unreadable", "suspended", "dropped"];

#[test]
fn every_store_metric_exists_from_the_start_also_without_a_store() {
    let metrics = World::start(Conf::servers("a")).metrics();
    for op in ASKED {
        for result in RESULTS {
            let labels = [("op", op), ("result", result)];
            assert!(metrics.has(OPERATIONS, &labels), "{labels:?} is missing in:\n{}", metrics.text);
        }
        assert!(metrics.has(DURATIONS, &[("op", op)]), "{op} is missing in:\n{}", metrics.text);
    }
    assert_eq!((metrics.sum(OPERATIONS, &[]), metrics.sum(DURATIONS, &[])), (0.0, 0.0), "no operation was counted");
    assert_eq!(metrics.sum(UP, &[]), 1.0, "nothing is missing where there is no store");
    assert!(metrics.has(PENDING, &[]));
}

#[test]
fn store_operations_are_counted_and_timed() {
    Engine::each(|engine| {
        let store = Store::start(engine);
        let conf = learning("a b c").store("timeout: 5s");
        let fleet = Fleet::start(&conf, &[store.entry(), store.entry()]);
        let (here, there) = (fleet.proxy(0), fleet.proxy(1));
        here.expect_metric(UP, &[], 1.0);
        let alice = begin(here, "alice");
        assert_eq!(asked(here, "bind", "ok"), 1.0);
        let before = asked(there, "lookup", "ok");
        assert_eq!(server(there, "alice"), alice);
        assert_eq!(asked(there, "lookup", "ok"), before + 1.0);
        (0..10).for_each(|_| drop(server(there, "alice")));
        assert_eq!(asked(there, "lookup", "ok"), before + 1.0, "not again: there is a near copy");
        fleet.environment.app(&alice).kill();
        // A reset of a reused connection is transient and moves no session.
        eventually(PATIENCE, "she moves", || server(there, "alice") != alice && asked(there, "move", "ok") > 0.5);
        assert_eq!(asked(there, "move", "ok"), 1.0);
        end(there, "alice");
        eventually(PATIENCE, "an end is a move too", || asked(there, "move", "ok") > 1.5);
        eventually(PATIENCE, "the store is asked whether it is there", || asked(there, "ping", "ok") > 0.5);
        // What was done is counted after it was timed.
        eventually(PATIENCE, "everything but pings is timed", || {
            let metrics = there.metrics();
            ASKED.iter().filter(|op| **op != "ping").all(|op| {
                let timed = metrics.sum(DURATIONS, &[("op", op)]);
                (metrics.sum(OPERATIONS, &[("op", op)]) - timed).abs() < 0.5
            })
        });
        fleet.wait_until_written();
    });
}

#[test]
fn the_status_says_at_once_that_a_store_is_away() {
    // Nothing listens on port 1.
    let store = "store: { type: redis, redis: { urls: [\"redis://127.0.0.1:1\"] } }";
    let world = World::start(Conf::servers("a").top(store));
    let status = ask(&world, "GET", "/api/v1/status", &[], "").expect(200).json();
    assert_eq!(status["store"], json!({ "type": "redis", "up": false }));
    let events = ask(&world, "GET", "/api/v1/events", &[], "").expect(200).json();
    assert_eq!(events["items"][0]["kind"], "store", "{events}");
}
