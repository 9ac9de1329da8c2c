//! Memory of closed connections goes back to the system.
//!
//! A thread keeps the memory that it has allocated until it allocates again, whichever thread has freed it. When clients leave
//! nothing allocates, so the threads that served them are made to. The allocator tidies up every ten thousand allocations of
//! a thread. What it gives up then, it returns to the system a second later, when a thread next gets or frees pages.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::runtime::Handle;

// The allocator belongs to the process, and so do these.
/// The executor whose threads serve connections. Set by the first connection.
static EXECUTOR: OnceLock<Handle> = OnceLock::new();
/// Rounds that are left. Set when a connection closes, counted down by [`return_unused`].
static ROUNDS: AtomicU8 = AtomicU8::new(0);

/// Which thread takes a task is up to the executor. After so many rounds every thread has had one.
const ROUNDS_AFTER_CLOSE: u8 = 4;
const ALLOCATIONS: usize = 10_000;
/// Smaller blocks are taken from a list that does not count.
const BLOCK: usize = 2 << 10;
/// A block that gets pages of its own. It is never written, so it takes no memory.
const LARGE_BLOCK: usize = 8 << 20;

pub(super) fn connection_opened() {
    if EXECUTOR.get().is_none() {
        let _ = EXECUTOR.set(Handle::current());
    }
}

pub(super) fn connection_closed() {
    ROUNDS.store(ROUNDS_AFTER_CLOSE, Ordering::Relaxed);
}

/// Called every few seconds.
pub fn return_unused() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE_BLOCK)));
    let left = ROUNDS.load(Ordering::Relaxed);
    let Some(executor) = EXECUTOR.get().filter(|_| left > 0) else { return };
    ROUNDS.store(left - 1, Ordering::Relaxed);
    for _ in 0..executor.metrics().num_workers() {
        executor.spawn(async { tidy_up() });
    }
}

/// Less than a millisecond.
fn tidy_up() {
    for _ in 0..ALLOCATIONS {
        drop(black_box(Vec::<u8>::with_capacity(BLOCK)));
    }
}
