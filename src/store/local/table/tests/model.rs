//! Random operations on the table and on a plain map beside it, under a clock moved by hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{ABSOLUTE, IDLE, START, key, table_of};
use crate::session::token::UnixMillis;
use crate::store::local::table::Table;
use crate::store::targets::{Target, TargetIndex};
use crate::store::{EndReason, RebindResult, TableEntry, TableLookup};

/// The last of the targets; the operations choose among the others.
const NOWHERE: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Visit(u64),
    Find(u64),
    Restore { session: u64, target: usize, epoch: u32, age: u64 },
    Rebind { session: u64, expected: u32, to: usize },
    Claim { session: u64, target: usize },
    Assign { session: u64, target: usize },
    Bury { session: u64, epoch: u32, age: u64 },
    Overrule { session: u64, target: usize, epoch: u32 },
    End(u64),
    Sweep(usize),
    Capacity(usize),
    Idle(u64),
}

fn op(sessions: u64) -> impl Strategy<Value = Op> {
    let session = 0..sessions;
    let target = 0..3_usize;
    prop_oneof![
        // Whole ticks, so that the model need not know how the table rounds.
        2 => (0..80_u64).prop_map(|ticks| Op::Pass(ticks * 100)),
        6 => session.clone().prop_map(Op::Visit),
        2 => session.clone().prop_map(Op::Find),
        6 => (session.clone(), target.clone(), 0..4_u32, 0..400_u64)
            .prop_map(|(session, target, epoch, age)| Op::Restore { session, target, epoch, age: age * 100 }),
        4 => (session.clone(), 0..5_u32, target.clone())
            .prop_map(|(session, expected, to)| Op::Rebind { session, expected, to }),
        3 => (session.clone(), target.clone()).prop_map(|(session, target)| Op::Claim { session, target }),
        3 => (session.clone(), target).prop_map(|(session, target)| Op::Assign { session, target }),
        2 => (session.clone(), prop_oneof![0..6_u32, Just(Table::FINAL_EPOCH)], 0..400_u64)
            .prop_map(|(session, epoch, age)| Op::Bury { session, epoch, age: age * 100 }),
        3 => (session.clone(), 0..=NOWHERE, 0..6_u32)
            .prop_map(|(session, target, epoch)| Op::Overrule { session, target, epoch }),
        1 => session.prop_map(Op::End),
        2 => (1..5_usize).prop_map(Op::Sweep),
        1 => (0..12_usize).prop_map(Op::Capacity),
        1 => (1..20_u64).prop_map(Op::Idle),
    ]
}

/// What the table should hold, without the sessions that it evicted.
struct Model {
    now: UnixMillis,
    idle: Duration,
    sessions: HashMap<u64, TableEntry>,
    /// Where ended sessions are: to leave from there is no news.
    tombstone: TargetIndex,
    /// How many must have been reported to have left.
    departed: usize,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

impl Model {
    fn expected(&self, session: u64) -> TableLookup {
        let Some(known) = self.sessions.get(&session) else {
            return TableLookup::Absent;
        };
        if self.now.0 - known.created.0 > millis(ABSOLUTE) {
            TableLookup::ExpiredAbsolute
        } else if self.now.0 - known.last_seen.0 > millis(self.idle) {
            TableLookup::ExpiredIdle
        } else {
            TableLookup::Live(*known)
        }
    }

    /// Forgets a session that is over, as everything but looking does.
    fn settle(&mut self, session: u64) -> TableLookup {
        let found = self.expected(session);
        if matches!(found, TableLookup::ExpiredIdle | TableLookup::ExpiredAbsolute) {
            self.forget(session);
        }
        found
    }

    fn forget(&mut self, session: u64) -> Option<TableEntry> {
        let known = self.sessions.remove(&session);
        self.departed += usize::from(known.is_some_and(|known| known.target != self.tombstone));
        known
    }

    fn put(&mut self, session: u64, known: TableEntry) {
        self.sessions.insert(session, TableEntry { last_seen: self.now, ..known });
    }
}

fn step(table: &Table, targets: &[Arc<Target>], model: &mut Model, op: &Op) -> Result<(), TestCaseError> {
    let now = model.now;
    match *op {
        Op::Pass(millis) => model.now.0 += millis,
        Op::Visit(session) => {
            let expected = model.settle(session);
            prop_assert_eq!(table.visit(&key(session), now), expected);
            if let TableLookup::Live(known) = expected {
                model.put(session, known);
            }
        }
        Op::Find(session) => prop_assert_eq!(table.find(&key(session), now), model.expected(session)),
        Op::Restore { session, target, epoch, age } => {
            let token =
                TableEntry { target: targets[target].index(), epoch, created: UnixMillis(now.0 - age), last_seen: now };
            let found = model.settle(session);
            let stands = match found {
                TableLookup::Live(known) if known.epoch > epoch => known,
                TableLookup::Live(known) if known.epoch == epoch && known.target == token.target => known,
                TableLookup::Live(known) => TableEntry { last_seen: known.last_seen, ..token },
                _ => token,
            };
            prop_assert_eq!(table.restore(key(session), &targets[target], epoch, token.created, now), stands);
            if let TableLookup::Live(known) = found {
                prop_assert!(stands.epoch >= known.epoch, "an epoch fell while its session lived");
            }
            model.put(session, stands);
        }
        Op::Rebind { session, expected, to } => {
            let found = model.settle(session);
            let rebound = table.rebind(key(session), expected, &targets[to], now, now);
            match found {
                TableLookup::Live(known) if known.epoch > expected => {
                    prop_assert_eq!(rebound, RebindResult::AlreadyMoved(known));
                    model.put(session, known);
                }
                _ => {
                    prop_assert_eq!(rebound, RebindResult::Moved { epoch: expected + 1 });
                    let created = if let TableLookup::Live(known) = found { known.created } else { now };
                    let target = targets[to].index();
                    model.put(session, TableEntry { target, epoch: expected + 1, created, last_seen: now });
                }
            }
        }
        Op::Claim { .. } | Op::Assign { .. } | Op::Bury { .. } | Op::Overrule { .. } => {
            named_by_others(table, targets, model, op)?;
        }
        Op::End(session) => prop_assert_eq!(table.end(&key(session)), model.forget(session)),
        Op::Sweep(steps) => {
            let swept: usize = (0..steps).map(|_| table.sweep_step(now)).sum();
            let over = model.sessions.keys().filter(|s| !matches!(model.expected(**s), TableLookup::Live(_))).count();
            prop_assert!(swept <= over, "{swept} were swept, {over} were over");
            prop_assert!(swept == over || steps < table.shards(), "a whole round left an expired session");
        }
        Op::Capacity(capacity) => table.set_capacity(capacity),
        Op::Idle(seconds) => {
            model.idle = Duration::from_secs(seconds);
            table.set_limits("shop", model.idle, ABSOLUTE);
        }
    }
    Ok(())
}

/// Sessions whose names others gave, and those that are over.
fn named_by_others(table: &Table, targets: &[Arc<Target>], model: &mut Model, op: &Op) -> Result<(), TestCaseError> {
    let now = model.now;
    match *op {
        Op::Claim { session, target } => {
            let (theirs, epoch) = match model.settle(session) {
                // An ended session begins again.
                TableLookup::Live(known) if known.target == model.tombstone => (None, known.epoch.saturating_add(1)),
                TableLookup::Live(known) => (Some(known), known.epoch),
                _ => (None, 0),
            };
            prop_assert_eq!(table.claim(key(session), &targets[target], now), theirs);
            let mine = TableEntry { target: targets[target].index(), epoch, created: now, last_seen: now };
            model.put(session, theirs.unwrap_or(mine));
        }
        Op::Assign { session, target } => {
            let target = &targets[target];
            let (news, known) = match model.settle(session) {
                TableLookup::Live(known) if known.target == target.index() => (false, known),
                TableLookup::Live(known) => {
                    let created = if known.target == model.tombstone { now } else { known.created };
                    (
                        true,
                        TableEntry { target: target.index(), epoch: known.epoch.saturating_add(1), created, ..known },
                    )
                }
                _ => (true, TableEntry { target: target.index(), epoch: 0, created: now, last_seen: now }),
            };
            prop_assert_eq!(table.assign(key(session), target, now), news);
            model.put(session, known);
        }
        Op::Bury { session, epoch, age } => {
            let (created, last) = match model.settle(session) {
                TableLookup::Live(known) if known.target == model.tombstone => (known.created, known.epoch.max(epoch)),
                TableLookup::Live(known) => (known.created, known.epoch.saturating_add(1).max(epoch)),
                _ => (UnixMillis(now.0 - age), epoch),
            };
            // Whoever was bound has left.
            model.forget(session);
            table.insert_tombstone(
                key(session),
                &targets[NOWHERE],
                epoch,
                (UnixMillis(now.0 - age), now),
                EndReason::Ended,
            );
            model.put(session, TableEntry { target: model.tombstone, epoch: last, created, last_seen: now });
        }
        Op::Overrule { session, target, epoch } => {
            let (to, target) = (&targets[target], targets[target].index());
            let known = model.sessions.get(&session).copied();
            prop_assert_eq!(table.apply_remote(&key(session), to, epoch, now), known.is_some());
            if let Some(known) = known
                && (epoch > known.epoch || (epoch == known.epoch && target != known.target))
            {
                model.departed += usize::from(target == model.tombstone && known.target != model.tombstone);
                let created = if known.target == model.tombstone { now } else { known.created };
                model.sessions.insert(session, TableEntry { target, epoch, created, ..known });
            }
        }
        _ => {}
    }
    Ok(())
}

/// Follows the table's evictions: the model drops those sessions too, if the table had a reason.
fn follow(table: &Table, model: &mut Model, op: &Op, before: usize) -> Result<(), TestCaseError> {
    let (now, capacity) = (model.now, table.capacity());
    let (there, gone): (HashMap<_, _>, HashMap<_, _>) =
        model.sessions.iter().partition(|(session, _)| table.find(&key(**session), now) != TableLookup::Absent);
    match op {
        Op::Sweep(_) => {
            let alive = gone.keys().filter(|session| matches!(model.expected(**session), TableLookup::Live(_))).count();
            prop_assert_eq!(alive, 0, "swept although within their limits");
        }
        Op::Capacity(capacity) => {
            prop_assert_eq!(gone.len(), before.saturating_sub(*capacity));
            if let Some(first) = first_seen(&there) {
                prop_assert!(
                    gone.values().all(|known| known.last_seen <= first),
                    "a session that stays was idle for longer"
                );
            }
        }
        Op::Restore { .. } | Op::Rebind { .. } | Op::Claim { .. } | Op::Assign { .. } | Op::Bury { .. }
            if before == capacity =>
        {
            prop_assert!(gone.len() <= 1, "{} were sent away for one newcomer", gone.len());
            if let Some(first) = first_seen(&there) {
                let nearly = UnixMillis(first.0 + (now.0 - first.0) / 8);
                prop_assert!(
                    gone.values().all(|known| known.last_seen <= nearly),
                    "a session that stays was idle for longer"
                );
            }
        }
        _ => prop_assert_eq!(gone.len(), 0, "lost without a reason"),
    }
    // A table without capacity does not keep the newcomer, which then never was in it.
    let told = gone.values().filter(|known| known.target != model.tombstone).count();
    model.departed += if before == 0 { 0 } else { told };
    model.sessions = there;
    Ok(())
}

fn first_seen(sessions: &HashMap<u64, TableEntry>) -> Option<UnixMillis> {
    sessions.values().map(|known| known.last_seen).min()
}

/// What holds after every step.
fn check(table: &Table, targets: &[Arc<Target>], model: &Model) -> Result<(), TestCaseError> {
    prop_assert!(table.len() <= table.capacity(), "{} in a table for {}", table.len(), table.capacity());
    prop_assert_eq!(table.len(), model.sessions.len(), "the table has as many as the model");
    for target in targets {
        let bound = model.sessions.values().filter(|known| known.target == target.index()).count();
        prop_assert_eq!(target.sessions(), bound as u64, "sessions of {}", target.server());
    }
    for session in model.sessions.keys() {
        prop_assert_eq!(table.find(&key(*session), model.now), model.expected(*session));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_a_plain_map_would(
        shards in prop::sample::select(vec![2, 4, 64]),
        capacity in 1..24_usize,
        ops in prop::collection::vec(op(16), 1..200),
    ) {
        let (table, departures) = table_of(shards, capacity);
        let targets: Vec<_> = ["a", "b", "c", ""].iter().map(|name| table.target("shop", name)).collect();
        let tombstone = targets[NOWHERE].index();
        let mut model = Model { now: START, idle: IDLE, sessions: HashMap::new(), tombstone, departed: 0 };
        for op in &ops {
            let before = table.len();
            step(&table, &targets, &mut model, op)?;
            follow(&table, &mut model, op, before)?;
            check(&table, &targets, &model)?;
            prop_assert_eq!(departures.lock().len(), model.departed, "whoever leaves is reported, once");
        }
    }
}
