//! Several versions of one application behind one route, by weight.

use std::collections::BTreeMap;

use crate::routes_match::routed;
use crate::world::World;
use crate::world::h2c::{H2Request, h2_all};

fn split(shares: &str) -> String {
    routed(&format!("  - {{ name: app, split: [{shares}] }}\n"), "v1 v2 v3")
}

/// How many of so many clients that carry nothing each version was given.
fn shares(world: &World, clients: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::from(["v1", "v2", "v3"].map(|version| (version.to_owned(), 0)));
    let browser = world.browser();
    for _ in 0..clients {
        *shares.entry(browser.request("GET", "/").without_cookies().send().server()).or_default() += 1;
    }
    shares
}

#[test]
fn versions_take_their_shares_of_new_clients_and_one_of_weight_0_none() {
    let world = World::start(split("{ pool: v1, weight: 3 }, { pool: v2 }, { pool: v3, weight: 0 }"));
    let shares = shares(&world, 400);
    // Six standard deviations of a share of three quarters are 52.
    assert!((248..=352).contains(&shares["v1"]) && shares["v1"] + shares["v2"] == 400, "{shares:?}");
    world.expect_metric("homing_route_requests_total", &[("route", "app"), ("code", "200")], 400.0);
    world.expect_metric("homing_requests_total", &[("pool", "v3")], 0.0);
}

#[test]
fn a_reload_changes_the_shares_at_once() {
    let mut world = World::start(split("{ pool: v1, weight: 1 }, { pool: v2, weight: 0 }, { pool: v3, weight: 0 }"));
    assert_eq!(shares(&world, 20)["v1"], 20);
    world.reload(split("{ pool: v1, weight: 0 }, { pool: v2, weight: 1 }, { pool: v3, weight: 0 }"));
    assert_eq!(shares(&world, 20)["v2"], 20, "all of them meet the new version");
    let over_h2 = h2_all(&world.address, vec![H2Request::get("/"); 10]);
    assert!(over_h2.iter().all(|answer| answer.server() == "v2"), "over HTTP/2 too");
    world.reload(split("{ pool: v2, weight: 0 }, { pool: v3, weight: 65535 }"));
    assert_eq!(shares(&world, 20)["v3"], 20);
    world.expect_metric("homing_route_requests_total", &[("route", "app")], 70.0);
}

#[test]
fn a_reload_that_would_leave_no_version_changes_nothing() {
    let mut world = World::start(split("{ pool: v1 }, { pool: v2, weight: 0 }, { pool: v3, weight: 0 }"));
    world.try_reload(split("{ pool: v1, weight: 0 }, { pool: v2, weight: 0 }, { pool: v3, weight: 0 }"));
    world.expect_metric("homing_config_last_reload_success", &[], 0.0);
    assert_eq!(shares(&world, 10)["v1"], 10);
}
