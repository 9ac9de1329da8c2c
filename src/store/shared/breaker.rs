//! The circuit breaker before the store: after several timeouts in a row it is open and no request waits for the store,
//! until a ping has been answered.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::Notify;

/// Timeouts in a row that open it: a single one may be a pause of the machine, and each costs a request `store.timeout`.
const THRESHOLD: u32 = 3;

/// Relaxed: a request that sees a change late waits once more, and nothing is published by it.
pub(super) struct Breaker {
    timeouts: AtomicU32,
    open: AtomicBool,
    /// Notified when the store should be pinged at once.
    pub(super) probe: Notify,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { timeouts: AtomicU32::new(0), open: AtomicBool::new(false), probe: Notify::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// The store responded in time, with success or an error.
    pub(super) fn record_response(&self) {
        if self.timeouts.load(Relaxed) > 0 {
            self.timeouts.store(0, Relaxed);
        }
    }

    /// True when this timeout opens the breaker.
    pub(super) fn record_timeout(&self) -> bool {
        let timeouts = self.timeouts.fetch_add(1, Relaxed) + 1;
        let opens = timeouts >= THRESHOLD && !self.open.swap(true, Relaxed);
        if opens {
            self.probe.notify_one();
        }
        opens
    }

    /// True when it was open.
    pub(super) fn close(&self) -> bool {
        self.timeouts.store(0, Relaxed);
        self.open.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_timeouts_in_a_row() {
        let breaker = Breaker::new();
        let timeout = || breaker.record_timeout();
        assert_eq!([timeout(), timeout()], [false, false]);
        breaker.record_response();
        assert_eq!([timeout(), timeout(), timeout()], [false, false, true]);
        assert!(breaker.is_open());
        assert!(!timeout(), "reported once");
        breaker.record_response();
        assert!(breaker.is_open(), "a late response does not close it");
        assert!(breaker.close());
        assert!(!breaker.is_open() && !breaker.close());
    }
}
