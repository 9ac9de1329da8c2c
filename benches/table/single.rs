//! Memory, and what an operation costs while nothing else happens.

use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

use crate::clock::{clocked, on_the_processor, on_two_threads, per};
use crate::crowd::machine;
use crate::figures::{Figures, Tails};
use crate::sessions::{Bench, MILLION, NOW, any_of, scrambled, unknown_key};

/// So many operations make a mean.
const TURNS: u64 = 5 * MILLION;

pub(crate) fn visits(sessions: u64, figures: &mut Figures) {
    let before = resident();
    let bench = Bench::new(sessions);
    let fill = on_the_processor(|| (0..sessions).for_each(|n| bench.insert(n, NOW)));
    let at_once = resident().saturating_sub(before) as f64 / sessions as f64;
    let_the_allocator_rest();
    let bytes = resident().saturating_sub(before) as f64 / sessions as f64;
    figures.note("resident_bytes", "a session takes, resident", bytes);
    figures.note("resident_at_once_bytes", "  right after they came", at_once);
    figures.note("own_bytes", "  by the table's own account", bench.table.bytes() as f64 / sessions as f64);
    figures.note("shards", "  shards", bench.table.shards() as f64);
    figures.note("insert_ns", "insert, mean while filling", per(fill, sessions));

    let keys = on_the_processor(|| (0..TURNS).for_each(|n| _ = black_box(any_of(sessions, n))));
    let mut mean = |name: &str, what: &str, operation: &(dyn Fn(u64) + Sync)| {
        let took = on_the_processor(|| (0..TURNS).for_each(operation));
        figures.note(name, what, per(took.saturating_sub(keys), TURNS));
    };
    mean("visit_ns", "visit, mean", &|n| bench.visit(&any_of(sessions, n), NOW));
    mean("miss_ns", "visit of an unknown session", &|n| bench.visit(&unknown_key(n), NOW));
    mean("rebind_ns", "move to another server", &|n| bench.rebind(sessions, n));
    let two = on_two_threads(|| (0..TURNS).for_each(|n| bench.visit(&any_of(sessions, n), NOW)));
    figures.note("visit_2_threads_ns", "visit, two threads at once", per(two.saturating_sub(keys), TURNS));
    let one_by_one = (0..2 * MILLION).map(|n| any_of(sessions, n)).map(|key| clocked(|| bench.visit(&key, NOW)));
    figures.tails("visit", "visit, each by the clock", &Tails::of(one_by_one));
    after_a_request(&bench, sessions, figures);
    memory_itself(bench.table.bytes(), figures);
    machine(figures);
}

/// A proxy does other things between two visits, which takes the caches: so much memory is read before each visit.
fn after_a_request(bench: &Bench, sessions: u64, figures: &mut Figures) {
    let other = vec![1_u64; (512 << 10) / 8];
    let visit = |turn: u64| {
        black_box(other.iter().step_by(8).sum::<u64>());
        let key = black_box(any_of(sessions, turn ^ 0x5555));
        clocked(|| bench.visit(&key, NOW))
    };
    let tails = Tails::of((0..50_000).map(visit));
    figures.tails("visit_after_other_work", "visit, after 512 KiB of other memory", &tails);
}

/// What the memory alone takes: reads at random from as much as the table has, each as soon as the one before is there.
fn memory_itself(bytes: usize, figures: &mut Figures) {
    let cells: Vec<u64> = (0..bytes as u64 / 8).collect();
    let mut at = 0;
    let took = on_the_processor(|| {
        for turn in 0..TURNS {
            let next = scrambled(turn ^ at) % cells.len() as u64;
            at = cells[next as usize];
        }
    });
    black_box(at);
    figures.note("one_read_ns", "one dependent read of that much memory", per(took, TURNS));
}

/// The allocator gives pages back some milliseconds after they are free, when it is next asked for some.
fn let_the_allocator_rest() {
    for _ in 0..300 {
        thread::sleep(Duration::from_millis(10));
        for size in (6..20).map(|power| 1_usize << power) {
            drop(black_box(vec![1_u8; size]));
        }
    }
}

/// Bytes of this process in memory.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or_default() * 1024
}
