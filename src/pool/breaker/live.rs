//! The circuit breaker of a live server, shared by its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Breaker, BreakerState, Ticket};

/// The circuit breaker of a live server. While it is closed and nothing fails, a request loads one word and writes none.
pub struct LiveBreaker {
    machine: Mutex<Breaker>,
    /// What the machine says, for reading without the lock: the epoch in the upper half, below it the flags.
    word: AtomicU64,
    /// The pool's, raised whenever the server begins or ceases to get requests, so that the balancer updates its selection.
    generation: Arc<AtomicU64>,
}

const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
/// The server gets no further request now.
const EXCLUDED: u64 = 4;
/// There were failures since the last success.
const FAILING: u64 = 8;
const FLAGS: u64 = OPEN | HALF_OPEN | EXCLUDED | FAILING;

impl LiveBreaker {
    /// A closed breaker of a server in the pool with this generation.
    pub fn new(generation: Arc<AtomicU64>) -> Self {
        Self { machine: Mutex::default(), word: AtomicU64::new(0), generation }
    }

    /// The state.
    pub fn state(&self) -> BreakerState {
        match self.word.load(Ordering::Acquire) & (OPEN | HALF_OPEN) {
            0 => BreakerState::Closed,
            OPEN => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// The server gets no request now.
    pub fn excludes(&self) -> bool {
        self.word.load(Ordering::Relaxed) & EXCLUDED != 0
    }

    /// Begins an attempt; `None`: the server gets no request now.
    pub fn begin(&self) -> Option<Ticket> {
        let word = self.word.load(Ordering::Relaxed);
        if word & (OPEN | HALF_OPEN) == 0 {
            let epoch = u32::try_from(word >> u32::BITS).unwrap_or_default();
            return Some(Ticket { epoch, probe: false });
        }
        self.change(Breaker::begin)
    }

    /// Closed and without failures: a success changes nothing.
    pub fn is_quiet(&self) -> bool {
        self.word.load(Ordering::Relaxed) & FLAGS == 0
    }

    /// Changes the state machine, and publishes what it says then.
    pub fn change<T>(&self, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut machine = self.machine.lock();
        let result = change(&mut machine);
        let word = word_of(&machine);
        let before = self.word.swap(word, Ordering::AcqRel);
        if (before ^ word) & EXCLUDED != 0 {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        result
    }
}

fn word_of(machine: &Breaker) -> u64 {
    let state = match machine.state() {
        BreakerState::Closed => 0,
        BreakerState::Open => OPEN,
        BreakerState::HalfOpen => HALF_OPEN,
    };
    let excluded = if machine.excludes() { EXCLUDED } else { 0 };
    let failing = if machine.failures() > 0 { FAILING } else { 0 };
    (u64::from(machine.epoch) << u32::BITS) | state | excluded | failing
}
