//! What the table of sessions costs: how long a visit, an insert, a move take; how much memory a session takes; and how
//! long anybody waits while the table grows, evicts and expires.
//!
//! ```text
//! cargo bench --bench table                 criterion: means, one and two threads, a million and ten million sessions
//! cargo bench --bench table -- --scale      memory, tails and longest stalls from 10 thousand to 10 million sessions
//! ```
//!
//! `SHARDS=4096` in the environment tries another number of shards. Where the kernel gives huge pages to those who ask
//! (`madvise` or `always` in `/sys/kernel/mm/transparent_hugepage/enabled`), mimalloc asks, and then the unused end of
//! every allocation is resident too; `MIMALLOC_ALLOW_THP=0` in the environment shows the difference.
//!
//! `--scale` runs every size in a process of its own, three times over (`-- --scale 5` for five). A "hold" is how long the
//! whole operation took, which no lock inside it can have outlasted. Samples during which the kernel ran somebody else are
//! left out and counted; interrupts and a hypervisor's other guests stay in, so the last line says what they do to a thread
//! that only looks at the clock.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench")]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "for people")]

#[path = "table/clock.rs"]
mod clock;

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::Cursor;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use homing::session::key::SessionKey;
use homing::session::token::UnixMillis;
use homing::store::data::SessionData;
use homing::store::memory::Table;
use homing::store::places::Place;
use homing::store::snapshot::{Memory, Wanted, load, write};

use clock::{SWITCHED, clocked, on_the_processor, timed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
/// When those who were never touched after [`NOW`] are over.
const LATER: UnixMillis = UnixMillis(NOW.0 + 1_801_000);
const MILLION: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let after = |flag: &str| arguments.iter().position(|a| a == flag).map(|at| arguments.get(at + 1));
    if let Some(sessions) = after("--scale-one") {
        scale_one(sessions.and_then(|n| n.parse().ok()).expect("a number of sessions"));
    } else if let Some(rounds) = after("--scale") {
        scale(rounds.and_then(|n| n.parse().ok()).unwrap_or(3));
    } else {
        let mut criterion = Criterion::default().configure_from_args().sample_size(20);
        for sessions in [MILLION, 10 * MILLION] {
            means(&mut criterion, sessions);
        }
        criterion.final_summary();
    }
}

/// splitmix64: key number *n* is as good as random.
fn scrambled(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn key(number: u64) -> SessionKey {
    SessionKey(u128::from(scrambled(number)) << 64 | u128::from(scrambled(!number)))
}

/// One of `sessions`, as good as at random.
fn any_of(sessions: u64, turn: u64) -> SessionKey {
    key(((u128::from(scrambled(turn ^ 0xabcd)) * u128::from(sessions)) >> 64) as u64)
}

struct Bench {
    table: Table,
    places: Vec<Arc<Place>>,
}

impl Bench {
    fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).unwrap();
        let table = match env::var("SHARDS").ok().and_then(|shards| shards.parse().ok()) {
            Some(shards) => Table::with_shards(capacity, shards, NOW, Box::new(|_, _| {})),
            None => Table::new(capacity, NOW, Box::new(|_, _| {})),
        };
        table.set_limits("shop", Duration::from_secs(1_800), Duration::from_secs(86_400));
        let places = (0..20).map(|n| table.place("shop", &format!("server-{n}"))).collect();
        Self { table, places }
    }

    fn insert(&self, number: u64, now: UnixMillis) {
        let place = &self.places[number as usize % self.places.len()];
        black_box(self.table.restore(key(number), place, 0, NOW, now));
    }

    fn full(sessions: u64) -> Self {
        let bench = Self::new(sessions);
        (0..sessions).for_each(|n| bench.insert(n, NOW));
        bench
    }
}

// --------------------------------------------------------------------------------------------------- criterion's means

fn means(criterion: &mut Criterion, sessions: u64) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(1));
    let bench = Bench::full(sessions);
    let table = &bench.table;
    let turn = AtomicU64::new(0);
    let turns = |count: u64| {
        let from = turn.fetch_add(count, Relaxed);
        from..from + count
    };
    let at = |turn: u64| UnixMillis(NOW.0 + (turn >> 14));

    group.bench_function(BenchmarkId::new("make a key (in all below)", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| ignore(any_of(sessions, n)))));
    });
    group.bench_function(BenchmarkId::new("visit, 1 thread", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| ignore(table.visit(&any_of(sessions, n), at(n))))));
    });
    group.bench_function(BenchmarkId::new("visit, 2 threads", sessions), |b| {
        b.iter_custom(|count| {
            on_two_threads(|| turns(count).for_each(|n| ignore(table.visit(&any_of(sessions, n), at(n)))))
        });
    });
    group.bench_function(BenchmarkId::new("find", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| ignore(table.find(&any_of(sessions, n), at(n))))));
    });
    group.bench_function(BenchmarkId::new("absent", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| ignore(table.visit(&key(n | 1 << 60), at(n))))));
    });
    for threads in [1, 2] {
        let run = |work: &(dyn Fn() + Sync)| if threads == 1 { timed(work) } else { on_two_threads(work) };
        group.bench_function(BenchmarkId::new(format!("rebind, {threads} threads"), sessions), |b| {
            b.iter_custom(|count| run(&|| turns(count).for_each(|n| rebind(&bench, sessions, n))));
        });
        group.bench_function(BenchmarkId::new(format!("flood of a full table, {threads} threads"), sessions), |b| {
            b.iter_custom(|count| run(&|| turns(count).for_each(|n| bench.insert(n | 1 << 50, at(n)))));
        });
    }
    group.bench_function(BenchmarkId::new("insert where there is room", sessions), |b| {
        table.set_capacity(usize::try_from(sessions).unwrap() * 2);
        b.iter_custom(|count| {
            let fresh = turns(count);
            let took = timed(|| fresh.clone().for_each(|n| bench.insert(n | 1 << 55, at(n))));
            fresh.for_each(|n| ignore(table.end(&key(n | 1 << 55))));
            took
        });
    });
    group.finish();
}

fn rebind(bench: &Bench, sessions: u64, turn: u64) {
    let to = &bench.places[turn as usize % bench.places.len()];
    black_box(bench.table.rebind(any_of(sessions, turn), turn as u32, to, NOW, NOW));
}

fn ignore<T>(answer: T) {
    black_box(answer);
}

/// The same work on two threads at once; the slower one counts.
fn on_two_threads(work: impl Fn() + Sync) -> Duration {
    thread::scope(|scope| {
        let other = scope.spawn(|| timed(&work));
        timed(&work).max(other.join().unwrap())
    })
}

// ------------------------------------------------------------------------------------------- memory, tails, longest stalls

fn scale(rounds: usize) {
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        for sessions in [10_000, 100_000, MILLION, 10 * MILLION] {
            let one = Command::new(env::current_exe().unwrap()).arg("--scale-one").arg(sessions.to_string()).status();
            assert!(one.unwrap().success());
        }
    }
}

fn scale_one(sessions: u64) {
    println!("\n{sessions} sessions");
    memory_and_means(sessions);
    flood(sessions);
    expiry(sessions);
    machine();
}

fn memory_and_means(sessions: u64) {
    let before = resident();
    let bench = Bench::new(sessions);
    let fill = on_the_processor(|| (0..sessions).for_each(|n| bench.insert(n, NOW)));
    let at_once = resident().saturating_sub(before) as f64 / sessions as f64;
    let_the_allocator_rest();
    let bytes = resident().saturating_sub(before) as f64 / sessions as f64;
    let own = bench.table.bytes() as f64 / sessions as f64;
    println!(
        "  {:<34}{bytes:>8.1} B resident ({at_once:.1} B at once), {own:.1} B by its own account; {} shards",
        "a session takes",
        bench.table.shards()
    );
    println!("  {:<34}{:>8.1} ns", "insert, mean while filling", per(fill, sessions));

    let visits = on_the_processor(|| (0..TURNS).for_each(|n| ignore(bench.table.visit(&any_of(sessions, n), NOW))));
    let keys = on_the_processor(|| (0..TURNS).for_each(|n| ignore(any_of(sessions, n))));
    println!(
        "  {:<34}{:>8.1} ns (making the key, {:.1} ns, taken off)",
        "visit, mean on one thread",
        per(visits.saturating_sub(keys), TURNS),
        per(keys, TURNS)
    );
    memory_itself(bench.table.bytes());
}

/// So many visits make a mean.
const TURNS: u64 = 5 * MILLION;

/// Everybody who comes to the full table sends somebody else away; nobody's memory grows by it.
fn flood(sessions: u64) {
    let bench = Bench::full(sessions);
    let before = resident();
    let took = Tails::of((0..MILLION).map(|n| clocked(|| bench.insert(n | 1 << 50, UnixMillis(NOW.0 + n)))));
    took.print("hold: insert into a full table");
    let grown = resident() as f64 - before as f64;
    println!("  {:<34}{:>8.1} B a session", "memory grown by that flood", grown / sessions as f64);
    assert!((sessions - 16..=sessions).contains(&(bench.table.len() as u64)));
}

/// A million sessions expire while another thread looks others up, as fast as it can.
fn expiry(sessions: u64) {
    let bench = Bench::new(sessions + MILLION);
    let living = (0..sessions).map(|n| clocked(|| bench.insert(n, LATER)));
    let dying = (0..MILLION).map(|n| clocked(|| bench.insert(n | 1 << 50, NOW)));
    Tails::of(living.chain(dying)).print("hold: insert while growing");

    let quiet = while_others(&bench, sessions, |_| thread::sleep(Duration::from_millis(700)));
    quiet.print("visit, quiet table");
    let (mut steps, mut swept) = (Vec::new(), 0);
    let flat_out = while_others(&bench, sessions, |measuring| {
        for round in 0..6 {
            measuring.store(false, Relaxed);
            (0..MILLION).filter(|_| round > 0).for_each(|n| bench.insert(n | (round + 1) << 50, NOW));
            measuring.store(true, Relaxed);
            (0..bench.table.shards()).for_each(|_| steps.push(clocked(|| swept += bench.table.sweep_step(LATER))));
        }
    });
    assert_eq!(swept as u64, 6 * MILLION, "all the dead and nobody else");
    let mean = steps.iter().filter(|nanos| **nanos != SWITCHED).map(|nanos| u64::from(*nanos)).sum::<u64>() as f64
        / swept as f64;
    Tails::of(steps.into_iter()).print("sweep step: hold at most, as a rule less");
    println!("  {:<34}{mean:>8.1} ns", "sweep, mean for one that expires");
    flat_out.print("visit, swept by a thread flat out");
    flat_out.compare(&quiet);
    snapshots(&bench, sessions, &quiet);

    (0..MILLION).for_each(|n| bench.insert(n | 7 << 50, NOW));
    let paced = while_others(&bench, sessions, |_| {
        for _ in 0..200 {
            (0..bench.table.shards().div_ceil(200)).for_each(|_| ignore(bench.table.sweep_step(LATER)));
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(bench.table.len() as u64, sessions);
    paced.print("visit, a million swept in 2 s");
    paced.compare(&quiet);
}

/// The table is written to memory, over and over, while another thread looks others up; then it is read again.
fn snapshots(bench: &Bench, sessions: u64, quiet: &Tails) {
    let mut file = Vec::new();
    let (mut write_took, mut written) = (Duration::ZERO, 0);
    let data = SessionData::new(0, LATER, Box::new(|_| ()));
    let visits = while_others(bench, sessions, |_| {
        for _ in 0..3 {
            file.clear();
            write_took = on_the_processor(|| {
                written = write(Memory { table: &bench.table, data: &data }, LATER, &mut file).unwrap().sessions;
            });
        }
    });
    let again = Bench::new(written);
    let memory = Memory { table: &again.table, data: &data };
    let wanted = |_: &str| Wanted::Sessions;
    let load_took = on_the_processor(|| ignore(load(memory, Cursor::new(&file), LATER, &wanted).unwrap()));
    let (write_ns, load_ns) = (per(write_took, written), per(load_took, written));
    println!("  {:<34}{write_ns:>8.1} ns to write, {load_ns:.1} ns to read again", "snapshot, for each session");
    visits.print("visit, snapshots written flat out");
    visits.compare(quiet);
}

/// Visits to the living while somebody does something else, as long as it takes.
fn while_others(bench: &Bench, sessions: u64, something: impl FnOnce(&AtomicBool) + Send) -> Tails {
    let (measuring, stop) = (AtomicBool::new(true), AtomicBool::new(false));
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut took = Vec::with_capacity(20_000_000);
            for turn in (0..).take_while(|_| !stop.load(Relaxed)) {
                let key = any_of(sessions, turn);
                let nanos = clocked(|| ignore(bench.table.visit(&key, LATER)));
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

/// How long this machine stops a thread that only looks at the clock: interrupts, and whoever shares the processor.
fn machine() {
    let until = Instant::now() + Duration::from_secs(1);
    let mut gaps = Vec::with_capacity(50_000_000);
    let mut last = Instant::now();
    while last < until {
        let mut now = last;
        gaps.push(clocked(|| now = Instant::now()));
        last = now;
    }
    Tails::of(gaps.into_iter()).print("the machine itself: clock, no work");
}

/// What the memory alone takes: reads at random from as much as the table has, each as soon as the one before is there.
fn memory_itself(bytes: usize) {
    let cells: Vec<u64> = (0..bytes as u64 / 8).collect();
    let mut at = 0;
    let took = on_the_processor(|| {
        for turn in 0..TURNS {
            let next = scrambled(turn ^ at) % cells.len() as u64;
            at = cells[next as usize];
        }
    });
    black_box(at);
    println!("  {:<34}{:>8.1} ns from {} MiB", "the memory itself: one random read", per(took, TURNS), bytes >> 20);
}

fn per(time: Duration, count: u64) -> f64 {
    time.as_nanos() as f64 / count as f64
}

/// Nanoseconds in order, and how many were left out because the thread did not run all the time.
struct Tails(Vec<u32>, usize);

impl Tails {
    fn of(nanos: impl Iterator<Item = u32>) -> Self {
        let mut nanos: Vec<u32> = nanos.collect();
        let all = nanos.len();
        nanos.retain(|nanos| *nanos != SWITCHED);
        nanos.sort_unstable();
        let switched = all - nanos.len();
        Self(nanos, switched)
    }

    fn at(&self, share: f64) -> u32 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }

    fn compare(&self, quiet: &Self) {
        let times = |share| f64::from(self.at(share)) / f64::from(quiet.at(share));
        println!(
            "  {:<34}{:>8.2} times at p99, {:.2} at p99.9, {:.2} at p99.99",
            "  against the quiet table",
            times(0.99),
            times(0.999),
            times(0.9999)
        );
    }

    fn print(&self, what: &str) {
        let over = self.0.iter().rev().take_while(|nanos| **nanos > 100_000).count();
        let micros = |share: f64| f64::from(self.at(share)) / 1000.0;
        println!(
            "  {what:<34}{:>8.2} µs p50 {:>7.2} p99 {:>7.2} p99.9 {:>7.2} p99.99 {:>8.1} max, {over} of {} over 100 µs, {} left out",
            micros(0.5),
            micros(0.99),
            micros(0.999),
            micros(0.9999),
            micros(1.0),
            self.0.len(),
            self.1,
        );
    }
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
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or_default() * 1024
}
