//! What holds when many ask at once.

use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;

use super::{START, after, key, scrambled, sweep_a_round, table};
use crate::session::token::UnixMillis;
use crate::store::{RebindResult, TableLookup};

const THREADS: u64 = 8;

#[test]
fn of_parallel_moves_of_one_session_one_wins_and_all_see_it() {
    let (table, _) = table(100_000);
    let from = table.target("shop", "gone");
    let to: Vec<_> = (0..THREADS).map(|n| table.target("shop", &format!("s{n}"))).collect();
    for session in 0..500 {
        // Every second one is not in the table: its first mover puts it there.
        if session % 2 == 0 {
            table.restore(key(session), &from, 4, START, START);
        }
        let barrier = Barrier::new(to.len());
        let outcomes: Vec<_> = thread::scope(|scope| {
            let movers: Vec<_> = to
                .iter()
                .map(|to| {
                    scope.spawn(|| {
                        barrier.wait();
                        match table.rebind(key(session), 4, to, START, START) {
                            RebindResult::Moved { epoch } => (true, to.index(), epoch),
                            RebindResult::AlreadyMoved(known) => (false, known.target, known.epoch),
                        }
                    })
                })
                .collect();
            movers.into_iter().map(|mover| mover.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|(won, ..)| *won).count(), 1, "exactly one moves it");
        assert_eq!(outcomes.iter().map(|(_, target, epoch)| (*target, *epoch)).collect::<HashSet<_>>().len(), 1);
        assert_eq!(outcomes[0].2, 5);
    }
    assert_eq!(from.sessions(), 0);
    assert_eq!(to.iter().map(|target| target.sessions()).sum::<u64>(), 500);
}

#[test]
fn the_cap_holds_while_many_sessions_begin_at_once() {
    for capacity in [1, 3, 50, 5_000] {
        let (table, _) = table(capacity);
        let targets: Vec<_> = (0..5).map(|n| table.target("shop", &format!("s{n}"))).collect();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (table, targets) = (&table, &targets);
                scope.spawn(move || {
                    for n in 0..5_000 {
                        let target = &targets[usize::try_from(n % 5).unwrap()];
                        table.restore(key(thread << 32 | n), target, 0, START, UnixMillis(START.0 + n));
                        assert!(table.len() <= capacity, "{} in a table for {capacity}", table.len());
                    }
                });
            }
        });
        assert!(table.len() + 16 * capacity / 1000 >= capacity, "only {} in a table for {capacity}", table.len());
        assert_eq!(targets.iter().map(|target| target.sessions()).sum::<u64>(), table.len() as u64);
    }
}

#[test]
fn counts_add_up_after_a_brawl() {
    let (table, departures) = table(800);
    let targets: Vec<_> = (0..5).map(|n| table.target("shop", &format!("s{n}"))).collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, targets) = (&table, &targets);
            scope.spawn(move || {
                for n in 0..20_000 {
                    let dice = scrambled(thread << 32 | n);
                    let (session, now) = (key(dice % 1500), UnixMillis(START.0 + n * 2));
                    let target = &targets[usize::try_from(dice >> 16).unwrap() % 5];
                    match (dice >> 8) % 16 {
                        0..6 => drop(table.visit(&session, now)),
                        6..10 => drop(table.restore(session, target, (dice >> 40) as u32 % 8, START, now)),
                        10..13 => drop(table.rebind(session, (dice >> 40) as u32 % 8, target, START, now)),
                        13 => drop(table.end(&session)),
                        14 => drop(table.sweep_step(now)),
                        _ if n % 64 == 0 => table.set_capacity(400 + usize::try_from(dice >> 32).unwrap() % 400),
                        _ => {}
                    }
                }
            });
        }
    });
    let there = (0..1500).filter(|n| matches!(table.find(&key(*n), START), TableLookup::Live(_))).count();
    assert_eq!(table.len(), there);
    assert_eq!(targets.iter().map(|target| target.sessions()).sum::<u64>(), there as u64);
    assert!(table.len() <= table.capacity());
    assert!(!departures.lock().is_empty());
    sweep_a_round(&table, after(1000));
    assert!(table.is_empty() && targets.iter().all(|target| target.sessions() == 0));
}

#[test]
fn a_session_in_use_is_never_lost_to_the_sweep() {
    let (table, departures) = table(10_000);
    let a = table.target("shop", "a");
    for n in 0..1_000 {
        table.restore(key(n), &a, 0, START, START);
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            for second in (0..50).flat_map(|s| [s * 1000, s * 1000 + 500]) {
                for n in 0..1_000 {
                    let found = table.visit(&key(n), UnixMillis(START.0 + second));
                    assert!(
                        matches!(found, TableLookup::Live(_)),
                        "{found:?} for a session that was here a moment ago"
                    );
                }
            }
        });
        scope.spawn(|| {
            for _ in 0..2_000 {
                table.sweep_step(after(10));
            }
        });
    });
    assert!(departures.lock().is_empty());
}
