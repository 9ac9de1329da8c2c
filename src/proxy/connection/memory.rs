//! Memory of closed connections goes back to the system.
//!
//! A thread keeps the memory that it has allocated until it allocates again, whichever thread has freed it. When clients leave
//! nothing allocates, so the threads that served them are made to. The allocator tidies up every ten thousand allocations of
//! a thread. What it gives up then, it returns to the system a second later, when a thread next gets or frees pages.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

// The allocator belongs to the process, and so do these.
/// The executor whose threads serve connections. Set by the first connection.
static EXECUTOR: OnceLock<Handle> = OnceLock::new();
/// Rounds that are left. Set when a connection closes, counted down by [`return_unused`].
static ROUNDS: AtomicU8 = AtomicU8::new(0);
/// The number of this round, and how many threads have tidied up in it.
static ROUND: AtomicUsize = AtomicUsize::new(0);
static REACHED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The last round in which this thread tidied up.
    static TIDIED: Cell<usize> = const { Cell::new(0) };
}

/// A thread that is busy when its turn comes frees more memory afterwards.
const ROUNDS_AFTER_CLOSE: u8 = 3;
/// Which thread takes a task is up to the executor: an idle one may take those of all. So tasks are spawned until each
/// thread has had one, or so many times.
const TRIES: usize = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
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

/// Called every few seconds, by one task.
pub async fn return_unused() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE_BLOCK)));
    let left = ROUNDS.load(Ordering::Relaxed);
    let Some(executor) = EXECUTOR.get().filter(|_| left > 0) else { return };
    ROUNDS.store(left - 1, Ordering::Relaxed);
    let round = ROUND.fetch_add(1, Ordering::Relaxed) + 1;
    REACHED.store(0, Ordering::Relaxed);
    let threads = executor.metrics().num_workers();
    for _ in 0..TRIES {
        for _ in 0..threads {
            executor.spawn(async move { tidy_up(round) });
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
        if REACHED.load(Ordering::Relaxed) >= threads {
            return;
        }
    }
}

/// Once a round and thread. Less than a millisecond.
fn tidy_up(round: usize) {
    if TIDIED.replace(round) == round {
        return;
    }
    for _ in 0..ALLOCATIONS {
        drop(black_box(Vec::<u8>::with_capacity(BLOCK)));
    }
    REACHED.fetch_add(1, Ordering::Relaxed);
}
