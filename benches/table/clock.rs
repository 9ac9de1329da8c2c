//! How long something takes, on a machine that others use too.

use std::cell::Cell;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// By the clock.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The duration; or [`SWITCHED`], if the kernel switched to another process meanwhile.
pub(crate) fn clocked(work: impl FnOnce()) -> u32 {
    let start = Instant::now();
    work();
    let nanos = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX - 1);
    // To ask is slow, and a switch takes longer than this.
    if nanos < 10_000 {
        return nanos;
    }
    let (_, turns) = scheduled();
    let switched = TURNS_ON_CPU.replace(turns) != turns;
    if switched { SWITCHED } else { nanos }
}

/// Instead of a time.
pub(crate) const SWITCHED: u32 = u32::MAX;

thread_local! {
    /// How often this thread had been given a processor when it last asked.
    static TURNS_ON_CPU: Cell<u64> = const { Cell::new(0) };
}

/// How long this thread has run, in nanoseconds, and how often it was given a processor to do so.
fn scheduled() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut fields = text.split_whitespace().map(|field| field.parse().unwrap_or_default());
    (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default())
}

/// What it took of the processor's time, on a busy machine less than by the clock; of what is too short for the kernel's
/// accounting, by the clock.
pub(crate) fn on_the_processor(work: impl FnOnce()) -> Duration {
    let (before, _) = scheduled();
    let by_the_clock = timed(work);
    let on_it = Duration::from_nanos(scheduled().0 - before);
    if by_the_clock < Duration::from_millis(50) { by_the_clock } else { on_it }
}

/// The same work on two threads at once; the slower one counts.
pub(crate) fn on_two_threads(work: impl Fn() + Sync) -> Duration {
    thread::scope(|scope| {
        let other = scope.spawn(|| on_the_processor(&work));
        on_the_processor(&work).max(other.join().unwrap())
    })
}

/// Nanoseconds for one of `count`.
pub(crate) fn per(time: Duration, count: u64) -> f64 {
    time.as_nanos() as f64 / count as f64
}
