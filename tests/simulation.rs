//! Sessions, servers and failures by the seed, over the code that decides in production: no network, no clock.
//!
//! `SIM_SEED=n cargo test --test simulation` replays one world. A broken promise names itself, the seed and the step, and
//! tells the story that led to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

#[allow(dead_code, reason = "the unit tests of the guard before a store need all of it")]
#[path = "simulation/engine.rs"]
mod engine;
#[path = "simulation/journal.rs"]
mod journal;
#[path = "simulation/load.rs"]
mod load;
#[path = "simulation/proxy.rs"]
mod proxy;
#[path = "simulation/rebalance.rs"]
mod rebalance;
#[path = "simulation/request.rs"]
mod request;
#[path = "simulation/rules.rs"]
mod rules;
#[path = "simulation/scenarios.rs"]
mod scenarios;
#[path = "simulation/setup.rs"]
mod setup;
#[path = "simulation/shared/mod.rs"]
mod shared;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;

use ::homing;
use homing::config::Balance;
use world::World;

/// What must have happened in all worlds together: a promise that nothing puts to the test is worth nothing.
const MUST_HAPPEN: &[&str] = &[
    "new",
    "kept",
    "moved",
    "borrowed",
    "refused",
    "held",
    "drain over",
    "followed",
    "replayed",
    "connect failed",
    "broke off",
    "hit",
    "restored",
    "unknown_server",
    "expired_idle",
    "expired_absolute",
    "forged",
    "parallel requests of one session end on one server",
    "proxies that see the same send a session to the same server",
    "a session moves once for each failure of its server",
    "a backup takes new sessions only when no other can",
    "after the faults all proxies and the client agree",
];

#[test]
fn sessions_keep_every_promise_in_every_world() {
    let wanted: Option<u64> = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().expect("SIM_SEED is a number"));
    let seeds = wanted.map_or(0..256, |seed| seed..seed + 1);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds {
        let mut world = World::random(seed);
        world.run();
        for (what, times) in world.journal.seen {
            *seen.entry(what).or_default() += times;
        }
    }
    for what in MUST_HAPPEN {
        let times = seen.get(what).copied().unwrap_or_default();
        assert!(wanted.is_some() || times >= 20, "\"{what}\" happened {times} times in all: {seen:#?}");
    }
}

/// Random and least requests draw from the thread's own randomness, so only the other two balances replay exactly.
#[test]
fn the_same_seed_gives_the_same_world() {
    let mut replayed = 0;
    for seed in 0..8 {
        let (mut first, mut second) = (World::random(seed), World::random(seed));
        if matches!(first.setup.balance, Balance::Random | Balance::LeastRequests) {
            continue;
        }
        first.run();
        second.run();
        assert_eq!(first.journal.fingerprint, second.journal.fingerprint, "seed {seed}");
        replayed += 1;
    }
    assert_eq!(replayed, 4, "half of the balances replay");
}
