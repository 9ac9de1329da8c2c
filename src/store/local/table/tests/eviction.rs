//! Eviction when the table is full.

use std::thread;
use std::time::Duration;

use super::{START, key, table};
use crate::session::token::UnixMillis;
use crate::store::TableLookup;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How many of `staying` sessions are evicted from a table for `capacity` while they are in use and others begin that are
/// used once. A day passes for a table full of the latter; each of them is the longest idle when the rest of the table has
/// been replaced once, and in that time each staying session is used twice.
fn sent_away(capacity: u64, staying: u64, newcomers: u64) -> usize {
    let (table, _) = table(usize::try_from(capacity).unwrap());
    table.set_limits("shop", 365 * DAY, 365 * DAY);
    let a = table.target("shop", "a");
    let at = |turn: u64| UnixMillis(START.0 + turn * 24 * 3_600_000 / capacity);
    for n in 0..staying {
        table.restore(key(n), &a, 0, START, START);
    }
    for newcomer in 0..newcomers {
        table.restore(key(capacity + newcomer), &a, 0, at(newcomer), at(newcomer));
        if newcomer % ((capacity - staying) / 2) == 0 {
            (0..staying).for_each(|n| assert_ne!(table.visit(&key(n), at(newcomer)), TableLookup::ExpiredIdle));
        }
    }
    (0..staying).filter(|n| table.find(&key(*n), at(newcomers)) == TableLookup::Absent).count()
}

#[test]
fn a_session_in_use_stays_while_a_flood_passes() {
    let floods = [(1_000, 900, 50_000), (1_000, 980, 10_000), (10_000, 9_000, 50_000), (10_000, 9_800, 5_000)];
    for (capacity, staying, newcomers) in floods.into_iter().chain([(100_000, 90_000, 80_000)]) {
        let gone = sent_away(capacity, staying, newcomers);
        assert_eq!(gone, 0, "of {staying} sessions in use, in a table for {capacity}");
    }
}

#[test]
fn sessions_in_use_stay_while_many_begin_at_once() {
    const STAYING: u64 = 4_000;
    const THREADS: u64 = 8;
    let (table, _) = table(5_000);
    let a = table.target("shop", "a");
    table.set_limits("shop", DAY, DAY);
    (0..STAYING).for_each(|n| _ = table.restore(key(n), &a, 0, START, START));
    // Half of the rest is exchanged between two visits.
    for round in 1..100 {
        let now = UnixMillis(START.0 + round * 1_000);
        thread::scope(|scope| {
            for thread in 1..=THREADS {
                let newcomer = move |n| key(thread << 40 | round << 20 | n);
                let (table, a) = (&table, &a);
                scope.spawn(move || (0..500 / THREADS).for_each(|n| _ = table.restore(newcomer(n), a, 0, now, now)));
            }
        });
        let gone = (0..STAYING).filter(|n| table.visit(&key(*n), now) == TableLookup::Absent).count();
        assert_eq!(gone, 0, "of {STAYING} in round {round}");
    }
    assert!(table.len() > 4_900, "only {} in a table for 5,000", table.len());
}
