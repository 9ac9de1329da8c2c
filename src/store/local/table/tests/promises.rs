//! One promise, one test.

use std::time::Duration;

use super::{START, after, key, sweep_a_round, table, table_of};
use crate::session::token::UnixMillis;
use crate::store::{EndReason, RebindResult, TableEntry, TableLookup};

#[test]
fn a_session_that_never_came_is_absent() {
    let (table, _) = table(100);
    assert_eq!(table.visit(&key(1), START), TableLookup::Absent);
    assert!(table.is_empty(), "asking costs no memory");
}

#[test]
fn a_restored_session_is_found_where_its_token_said() {
    let (table, _) = table(100);
    let a = table.target("shop", "a");
    let known = table.restore(key(1), &a, 3, START, after(5));
    assert_eq!(known, TableEntry { target: a.index(), epoch: 3, created: START, last_seen: after(5) });
    assert_eq!(table.visit(&key(1), after(6)), TableLookup::Live(known));
    assert_eq!((table.len(), a.sessions()), (1, 1));
}

#[test]
fn a_visit_keeps_a_session_alive_and_looking_does_not() {
    let (table, _) = table(100);
    table.restore(key(1), &table.target("shop", "a"), 0, START, START);
    assert!(matches!(table.visit(&key(1), after(9)), TableLookup::Live(known) if known.last_seen == START));
    assert!(matches!(table.visit(&key(1), after(18)), TableLookup::Live(known) if known.last_seen == after(9)));
    assert!(matches!(table.find(&key(1), after(28)), TableLookup::Live(known) if known.last_seen == after(18)));
    assert_eq!(table.find(&key(1), after(29)), TableLookup::ExpiredIdle);
    assert_eq!(table.len(), 1, "looking removes nothing");
}

#[test]
fn an_idle_session_is_not_answered_and_leaves_at_once() {
    let (table, departures) = table(100);
    let a = table.target("shop", "a");
    table.restore(key(1), &a, 0, START, START);
    assert_eq!(table.visit(&key(1), after(11)), TableLookup::ExpiredIdle);
    assert_eq!(table.visit(&key(1), after(11)), TableLookup::Absent);
    assert_eq!((table.len(), a.sessions()), (0, 0));
    assert_eq!(*departures.lock(), [("a".to_owned(), EndReason::Idle)]);
}

#[test]
fn a_busy_session_still_ends_at_its_absolute_limit() {
    let (table, departures) = table(100);
    table.restore(key(1), &table.target("shop", "a"), 0, START, START);
    for second in 1..=60 {
        assert!(matches!(table.visit(&key(1), after(second)), TableLookup::Live(_)));
    }
    assert_eq!(table.visit(&key(1), after(61)), TableLookup::ExpiredAbsolute);
    assert_eq!(*departures.lock(), [("a".to_owned(), EndReason::Absolute)]);
}

#[test]
fn limits_changed_by_a_reload_count_for_sessions_that_are_there() {
    let (table, _) = table(100);
    table.restore(key(1), &table.target("shop", "a"), 0, START, START);
    table.set_limits("shop", Duration::from_secs(2), Duration::from_secs(60));
    assert_eq!(table.visit(&key(1), after(3)), TableLookup::ExpiredIdle);
}

#[test]
fn the_higher_epoch_wins_whoever_comes_first() {
    let (table, _) = table(100);
    let (a, b) = (table.target("shop", "a"), table.target("shop", "b"));
    table.restore(key(1), &a, 2, START, START);
    let stands = table.restore(key(1), &b, 1, START, START);
    assert_eq!((stands.target, stands.epoch), (a.index(), 2), "an old token moves no session");
    let stands = table.restore(key(1), &b, 3, START, START);
    assert_eq!((stands.target, stands.epoch), (b.index(), 3), "a newer one does");
    assert_eq!((a.sessions(), b.sessions(), table.len()), (0, 1, 1));
}

#[test]
fn of_two_places_with_one_epoch_the_token_wins() {
    let (table, _) = table(100);
    let (a, b) = (table.target("shop", "a"), table.target("shop", "b"));
    table.restore(key(1), &a, 2, START, START);
    let stands = table.restore(key(1), &b, 2, START, START);
    assert_eq!((stands.target, stands.epoch), (b.index(), 2));
}

#[test]
fn a_session_moves_once_for_one_failure() {
    let (table, _) = table(100);
    let (a, b, c) = (table.target("shop", "a"), table.target("shop", "b"), table.target("shop", "c"));
    table.restore(key(1), &a, 0, START, START);
    assert_eq!(table.rebind(key(1), 0, &b, START, after(1)), RebindResult::Moved { epoch: 1 });
    let RebindResult::AlreadyMoved(known) = table.rebind(key(1), 0, &c, START, after(2)) else { panic!("moved twice") };
    assert_eq!((known.target, known.epoch, known.last_seen), (b.index(), 1, after(1)));
    assert_eq!((a.sessions(), b.sessions(), c.sessions()), (0, 1, 0));
}

#[test]
fn a_session_unknown_or_known_by_an_older_epoch_moves_too() {
    let (table, _) = table(100);
    let (a, b) = (table.target("shop", "a"), table.target("shop", "b"));
    assert_eq!(table.rebind(key(1), 4, &b, START, after(1)), RebindResult::Moved { epoch: 5 });
    table.restore(key(2), &a, 1, START, START);
    assert_eq!(table.rebind(key(2), 4, &b, START, after(1)), RebindResult::Moved { epoch: 5 });
    assert_eq!((a.sessions(), b.sessions()), (0, 2));
}

#[test]
fn an_ended_session_is_gone_and_reported() {
    let (table, departures) = table(100);
    let a = table.target("shop", "a");
    table.restore(key(1), &a, 7, START, START);
    assert_eq!(table.end(&key(1)).map(|known| known.epoch), Some(7));
    assert_eq!(table.end(&key(1)), None);
    assert_eq!((table.len(), a.sessions()), (0, 0));
    assert_eq!(*departures.lock(), [("a".to_owned(), EndReason::Ended)]);
}

#[test]
fn an_expired_session_that_comes_back_with_a_token_begins_again() {
    let (table, departures) = table(100);
    let (a, b) = (table.target("shop", "a"), table.target("shop", "b"));
    table.restore(key(1), &a, 5, START, START);
    let stands = table.restore(key(1), &b, 1, after(20), after(20));
    assert_eq!((stands.target, stands.epoch), (b.index(), 1), "as if the sweep had come by first");
    assert_eq!((table.len(), a.sessions(), b.sessions()), (1, 0, 1));
    assert_eq!(*departures.lock(), [("a".to_owned(), EndReason::Idle)]);
}

#[test]
fn a_small_table_holds_exactly_its_capacity() {
    for capacity in 1..40 {
        let (table, departures) = table(capacity);
        let a = table.target("shop", "a");
        for n in 0..200 {
            table.restore(key(n), &a, 0, START, START);
            let expected = capacity.min(usize::try_from(n).unwrap() + 1);
            assert_eq!((table.len(), a.sessions()), (expected, expected as u64), "capacity {capacity}, session {n}");
            assert!(matches!(table.find(&key(n), START), TableLookup::Live(_)), "the newcomer is never the one to go");
        }
        assert_eq!(departures.lock().len(), 200 - capacity);
    }
}

#[test]
fn a_full_table_evicts_the_longest_idle() {
    const CAPACITY: u64 = 20_000;
    let (table, _) = table(usize::try_from(CAPACITY).unwrap());
    let a = table.target("shop", "a");
    for n in 0..CAPACITY {
        table.restore(key(n), &a, 0, START, UnixMillis(START.0 + n / 10));
    }
    for n in 0..CAPACITY / 2 {
        table.visit(&key(n), after(3));
    }
    for n in CAPACITY..CAPACITY + CAPACITY / 4 {
        table.restore(key(n), &a, 0, START, after(4));
    }
    let lost = (0..CAPACITY / 2).filter(|n| table.find(&key(*n), after(4)) == TableLookup::Absent).count();
    assert!(
        table.len() <= usize::try_from(CAPACITY).unwrap() && table.len() > usize::try_from(CAPACITY).unwrap() - 16,
        "{} are left",
        table.len()
    );
    assert_eq!(lost, 0, "no session that was just used had to go");
}

#[test]
fn a_table_without_capacity_keeps_no_session() {
    let (table, departures) = table(0);
    let a = table.target("shop", "a");
    assert_eq!(table.restore(key(1), &a, 2, START, START).epoch, 2);
    assert_eq!(table.rebind(key(1), 2, &a, START, START), RebindResult::Moved { epoch: 3 });
    assert_eq!((table.len(), a.sessions(), departures.lock().len()), (0, 0, 0));
}

#[test]
fn a_smaller_capacity_sends_the_longest_idle_away() {
    let (table, departures) = table(1000);
    let a = table.target("shop", "a");
    for n in 0..1000 {
        table.restore(key(n), &a, 0, START, after(n / 200));
    }
    table.set_capacity(400);
    assert_eq!((table.len(), a.sessions(), departures.lock().len()), (400, 400, 600));
    let stayed = (800..1000).filter(|n| matches!(table.find(&key(*n), after(5)), TableLookup::Live(_))).count();
    assert_eq!(stayed, 200, "the most recently used stay");
    table.set_capacity(2);
    assert_eq!(table.len(), 2);
    table.set_capacity(1000);
    table.restore(key(5000), &a, 0, START, after(5));
    assert_eq!(table.len(), 3);
}

#[test]
fn a_round_of_sweeping_finds_all_the_dead_and_none_of_the_living() {
    let (table, departures) = table(50_000);
    let (a, b) = (table.target("shop", "a"), table.target("other", "b"));
    for n in 0..10_000 {
        table.restore(key(n), if n % 4 == 0 { &b } else { &a }, 0, START, after(n % 2 * 5));
    }
    assert_eq!(sweep_a_round(&table, after(10)), 0);
    assert_eq!(sweep_a_round(&table, after(12)), 2500, "idle since the start, in the pool with limits");
    assert_eq!((table.len(), a.sessions(), b.sessions()), (7500, 5000, 2500));
    assert!(departures.lock().iter().all(|gone| *gone == ("a".to_owned(), EndReason::Idle)));
}

#[test]
fn memory_comes_back_when_sessions_have_gone() {
    let (table, _) = table(100_000);
    let a = table.target("shop", "a");
    let empty = table.bytes();
    for n in 0..100_000 {
        table.restore(key(n), &a, 0, START, if n % 50 == 0 { after(9) } else { START });
    }
    let full = table.bytes();
    sweep_a_round(&table, after(11));
    assert_eq!(table.len(), 2000);
    assert!(full > 100_000 * 33, "a full table takes its slots: {full}");
    assert!(table.bytes() < full / 16, "{} of {full} bytes are left for a fiftieth of the sessions", table.bytes());
    sweep_a_round(&table, after(60));
    assert_eq!(table.bytes(), empty);
}

#[test]
fn a_steady_exchange_of_sessions_takes_no_more_memory() {
    const CAPACITY: u64 = 700;
    let (table, _) = table_of(2, usize::try_from(CAPACITY).unwrap());
    let a = table.target("shop", "a");
    let mut most = 0;
    for n in 0..200_000 {
        table.restore(key(n), &a, 0, START, UnixMillis(START.0 + n));
        most = most.max(table.bytes());
    }
    // 512 slots hold 350 sessions; 1,024 are what the removed ones' marks would make of it.
    assert!(most < 3 * 512 * 33, "it grew to {most} bytes: removed sessions left marks that are never cleared");
}

#[test]
fn places_are_found_by_number() {
    let (table, _) = table(10);
    let a = table.target("shop", "a");
    assert_eq!(table.target_at(a.index()).map(|target| target.server().to_string()), Some("a".to_owned()));
    assert_eq!(table.targets().len(), 1);
}

#[test]
fn a_callback_may_use_the_table() {
    use std::sync::{Arc, OnceLock, Weak};

    use crate::store::local::table::Table;

    let slot: Arc<OnceLock<Weak<Table>>> = Arc::default();
    let inside = Arc::clone(&slot);
    let table = Arc::new(Table::new(
        2,
        START,
        Box::new(move |_, _| {
            // Would wait for ever if the lock of any shard were still held.
            if let Some(table) = inside.get().and_then(Weak::upgrade) {
                let _ = (table.bytes(), table.end(&key(99)));
            }
        }),
    ));
    slot.set(Arc::downgrade(&table)).unwrap();
    table.set_limits("shop", super::IDLE, super::ABSOLUTE);
    let a = table.target("shop", "a");
    for n in 0..10 {
        table.restore(key(n), &a, 0, START, START);
    }
    table.set_capacity(1);
    table.end(&key(9));
    table.restore(key(20), &a, 0, START, START);
    table.visit(&key(20), after(30));
    table.restore(key(21), &a, 0, START, START);
    sweep_a_round(&table, after(30));
    assert!(table.is_empty());
}
