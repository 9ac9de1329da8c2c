//! Proxies that share a store, and every fault between them, on a runtime with a paused clock that advances only when all
//! tasks wait.

mod agreement;
mod faults;
mod node;
mod request;
mod scenarios;
mod world;

use std::collections::BTreeMap;

use self::world::World;

/// What must have happened in all worlds together.
const MUST_HAPPEN: &[&str] = &[
    "moved",
    "the store did not answer",
    "another proxy was first to move it",
    "another proxy was first to bind it",
    "two proxies said two servers in one epoch",
    "token and table said two servers in one epoch",
    "a move that the store was not told of",
    "a decision was written when the store was back",
    "the store was emptied",
    "what an emptied store had forgotten was told again",
    "an ended session was begun again",
    "ended",
    "a proxy restarted",
    "an epoch never falls",
    "after the faults all proxies, the store and the client agree",
    "a session that a proxy knew comes home",
    "a request waits for the store no longer than it may",
    "no session moves because the store died",
    "nothing is refused because of the store",
];

const SEEDS: u64 = 96;

#[test]
fn sessions_keep_every_promise_whatever_becomes_of_the_store() {
    let wanted: Option<u64> = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().expect("SIM_SEED is a number"));
    let seeds = wanted.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds {
        for (what, times) in World::lives(seed).seen {
            *seen.entry(what).or_default() += times;
        }
    }
    for what in MUST_HAPPEN {
        let times = seen.get(what).copied().unwrap_or_default();
        assert!(wanted.is_some() || times >= 10, "\"{what}\" happened {times} times in all: {seen:#?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_world_with_a_store() {
    for seed in 0..4 {
        assert_eq!(World::lives(seed).fingerprint, World::lives(seed).fingerprint, "seed {seed}");
    }
}
