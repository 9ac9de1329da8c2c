//! Visits during inserts, evictions and expiry: their tail latency, compared with a quiet table.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use homing::session::token::UnixMillis;
use homing::store::TableLookup;
use homing::store::disk::{LocalStore, write};
use homing::store::local::data::SessionData;

use crate::clock::clocked;
use crate::figures::{Figures, Tails};
use crate::sessions::{Bench, LATER, MILLION, NOW, any_of, key, newcomer};
use crate::single::resident;

/// As long as a quiet table is looked at.
const QUIET: Duration = Duration::from_secs(2);
/// Newcomers a second of a busy proxy: more than one core of it answers.
const RATE: u64 = 20_000;

/// Inserts into a full table, each of which evicts a session: usually an idle one, and none of the nine in ten that are
/// active.
pub(crate) fn evicting(sessions: u64, figures: &mut Figures) {
    let bench = Bench::new(sessions);
    let staying = sessions / 10 * 9;
    (0..sessions).for_each(|n| bench.insert(n, if n < staying { LATER } else { NOW }));
    let before = resident();
    let at = |turn: u64| UnixMillis(NOW.0 + turn / 1000);
    let alone = Tails::of((0..MILLION).map(|n| clocked(|| bench.insert(newcomer(0, n), at(n)))));
    figures.tails("insert_full", "insert into a full table", &alone);
    let grown = resident() as f64 - before as f64;
    figures.note("grown_by_flood_bytes", "  memory grown by it, a session", grown / sessions as f64);
    assert!((sessions - 16..=sessions).contains(&(bench.table.len() as u64)));

    let quiet = while_others(&bench, staying, |_| thread::sleep(QUIET));
    figures.tails("evict_quiet", "visit, quiet table", &quiet);
    let flat_out = while_others(&bench, staying, |_| {
        let until = Instant::now() + QUIET;
        for turn in (0..).take_while(|turn| turn % 64 > 0 || Instant::now() < until) {
            bench.insert(newcomer(1, turn), at(MILLION + turn));
        }
    });
    figures.tails("evict_flat_out", "visit, others come flat out", &flat_out);
    figures.compare("evict_flat_out", &flat_out, &quiet);
    let paced = while_others(&bench, staying, |_| {
        for turn in 0..200 {
            (0..RATE / 100).for_each(|n| bench.insert(newcomer(2, turn * RATE + n), at(2 * MILLION + turn)));
            thread::sleep(Duration::from_millis(10));
        }
    });
    figures.tails("evict_paced", "visit, 20,000 others a second", &paced);
    figures.compare("evict_paced", &paced, &quiet);
    let there = (0..staying).filter(|n| matches!(bench.table.find(&key(*n), LATER), TableLookup::Live(_))).count();
    figures.note("evict_staying", "  share of returning sessions still in the table", there as f64 / staying as f64);
    assert!(there as u64 > staying / 2, "most visits found their session");
}

/// A million sessions expire while another thread looks others up, as fast as it can.
pub(crate) fn expiring(sessions: u64, figures: &mut Figures) {
    let bench = Bench::new(sessions + MILLION);
    let living = (0..sessions).map(|n| clocked(|| bench.insert(n, LATER)));
    let dying = (0..MILLION).map(|n| clocked(|| bench.insert(newcomer(0, n), NOW)));
    figures.tails("insert_growing", "insert while growing", &Tails::of(living.chain(dying)));

    let quiet = while_others(&bench, sessions, |_| thread::sleep(QUIET));
    figures.tails("sweep_quiet", "visit, quiet table", &quiet);
    let (mut steps, mut swept) = (Vec::new(), 0);
    let flat_out = while_others(&bench, sessions, |measuring| {
        for round in 0..6 {
            measuring.store(false, Relaxed);
            (0..MILLION).filter(|_| round > 0).for_each(|n| bench.insert(newcomer(round, n), NOW));
            measuring.store(true, Relaxed);
            (0..bench.table.shards()).for_each(|_| steps.push(clocked(|| swept += bench.table.sweep_step(LATER))));
        }
    });
    assert_eq!(swept as u64, 6 * MILLION, "all expired sessions and no others");
    let steps = Tails::of(steps.into_iter());
    figures.tails("sweep_step", "a whole sweep step", &steps);
    figures.note("sweep_one_ns", "sweep, mean for one that expires", steps.sum() as f64 / swept as f64);
    figures.tails("sweep_flat_out", "visit, swept flat out", &flat_out);
    figures.compare("sweep_flat_out", &flat_out, &quiet);
    writing(&bench, sessions, &quiet, figures);

    (0..MILLION).for_each(|n| bench.insert(newcomer(7, n), NOW));
    let paced = while_others(&bench, sessions, |_| {
        for _ in 0..200 {
            (0..bench.table.shards().div_ceil(200)).for_each(|_| _ = bench.table.sweep_step(LATER));
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(bench.table.len() as u64, sessions);
    figures.tails("sweep_paced", "visit, a million swept in 2 s", &paced);
    figures.compare("sweep_paced", &paced, &quiet);
}

/// The table is written to memory, over and over, while another thread looks others up.
fn writing(bench: &Bench, sessions: u64, quiet: &Tails, figures: &mut Figures) {
    let mut file = Vec::new();
    let data = SessionData::new(0, LATER, Box::new(|_| ()));
    let visits = while_others(bench, sessions, |_| {
        let until = Instant::now() + QUIET / 2;
        while Instant::now() < until {
            file.clear();
            write(LocalStore { table: &bench.table, data: &data }, LATER, &mut file).unwrap();
        }
    });
    figures.tails("snapshot", "visit, snapshots written flat out", &visits);
    figures.compare("snapshot", &visits, quiet);
}

/// Visits to live sessions while another thread runs a task, as long as it takes.
fn while_others(bench: &Bench, sessions: u64, something: impl FnOnce(&AtomicBool) + Send) -> Tails {
    let visit = |turn: u64| {
        let key = any_of(sessions, turn);
        clocked(|| bench.visit(&key, LATER))
    };
    measured_while(visit, something)
}

/// The duration of each of many sequential operations while another thread runs a task. The task can suspend the measurement
/// by the flag.
pub(crate) fn measured_while(one: impl Fn(u64) -> u32 + Sync, something: impl FnOnce(&AtomicBool) + Send) -> Tails {
    let (measuring, stop) = (AtomicBool::new(true), AtomicBool::new(false));
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut took = Vec::with_capacity(20_000_000);
            for turn in (0..).take_while(|_| !stop.load(Relaxed)) {
                let nanos = one(turn);
                if measuring.load(Relaxed) {
                    took.push(nanos);
                }
            }
            took
        });
        something(&measuring);
        stop.store(true, Relaxed);
        Tails::of(looking.join().unwrap().into_iter())
    })
}

/// How long this machine pauses a thread that only reads the clock: interrupts and other processes.
pub(crate) fn machine(figures: &mut Figures) {
    let until = Instant::now() + Duration::from_secs(1);
    let mut gaps = Vec::with_capacity(50_000_000);
    let mut last = Instant::now();
    while last < until {
        let mut now = last;
        gaps.push(clocked(|| now = Instant::now()));
        last = now;
    }
    figures.tails("machine", "the machine itself: clock, no work", &Tails::of(gaps.into_iter()));
}
