//! The circuit breaker before the store: after a few answers in a row that did not come in time, nobody waits for it any
//! more until it has answered a ping.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::Notify;

/// So many in a row: one alone may be a pause of the machine, and each costs a request the whole timeout.
const TOO_MANY: u32 = 3;

/// Open to requests, or shut. Relaxed: who passes a moment too late waits once more, and nothing is published by it.
pub(super) struct Gate {
    late: AtomicU32,
    shut: AtomicBool,
    /// Woken when it is time to find out whether the store answers.
    pub(super) doubts: Notify,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { late: AtomicU32::new(0), shut: AtomicBool::new(false), doubts: Notify::new() }
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Relaxed)
    }

    /// The store answered in time, whatever it said.
    pub(super) fn answered(&self) {
        if self.late.load(Relaxed) > 0 {
            self.late.store(0, Relaxed);
        }
    }

    /// It did not answer in time. True when that shuts the gate.
    pub(super) fn timed_out(&self) -> bool {
        let late = self.late.fetch_add(1, Relaxed) + 1;
        let shuts = late >= TOO_MANY && !self.shut.swap(true, Relaxed);
        if shuts {
            self.doubts.notify_one();
        }
        shuts
    }

    /// It answers again. True when that opens the gate.
    pub(super) fn open(&self) -> bool {
        self.late.store(0, Relaxed);
        self.shut.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shuts_after_three_answers_in_a_row_that_did_not_come() {
        let gate = Gate::new();
        assert_eq!([gate.timed_out(), gate.timed_out()], [false, false]);
        gate.answered();
        assert_eq!([gate.timed_out(), gate.timed_out(), gate.timed_out()], [false, false, true]);
        assert!(gate.is_shut());
        assert!(!gate.timed_out(), "it is told once");
        gate.answered();
        assert!(gate.is_shut(), "an answer that was still under way does not open it");
        assert!(gate.open());
        assert!(!gate.is_shut() && !gate.open());
    }
}
