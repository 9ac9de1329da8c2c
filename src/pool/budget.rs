//! How many retries a pool may send: a share of its requests, so that retries cannot double the load of servers that
//! fail because they are overloaded.
//!
//! A token bucket as in Finagle's `RetryBudget`: every request pays in a share of a retry, every retry takes one out.
//! A small reserve grows with time, so that a quiet pool may retry too.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// One retry, in units of the bucket.
const RETRY: i64 = 1_000;
/// The bucket's capacity.
const CAPACITY: i64 = 100 * RETRY;
/// Time alone fills the bucket up to this, at one retry a second.
const RESERVE: i64 = 10 * RETRY;

/// The retries of a pool. Written by all its requests; relaxed, since one retry more or less does not matter.
pub struct RetryBudget {
    share: i64,
    balance: AtomicI64,
    refilled_at_second: AtomicU64,
}

impl RetryBudget {
    /// A budget of `percent` retries in a hundred requests; 0 = no retries at all.
    pub fn new(percent: u32) -> Self {
        let share = i64::from(percent.min(100)) * RETRY / 100;
        Self {
            share,
            balance: AtomicI64::new(if share == 0 { 0 } else { RESERVE }),
            refilled_at_second: AtomicU64::new(0),
        }
    }

    /// Pays in for a request.
    pub fn pay_in(&self) {
        if self.balance.load(Ordering::Relaxed) < CAPACITY {
            self.balance.fetch_add(self.share, Ordering::Relaxed);
        }
    }

    /// Takes one retry out; false when there is none. `second` is any clock that counts seconds.
    pub fn take(&self, second: u64) -> bool {
        if self.share == 0 {
            return false;
        }
        let before = self.refilled_at_second.swap(second, Ordering::Relaxed);
        let elapsed = i64::try_from(second.saturating_sub(before)).unwrap_or(i64::MAX);
        let room = (RESERVE - self.balance.load(Ordering::Relaxed)).max(0);
        self.balance.fetch_add(elapsed.saturating_mul(RETRY).min(room), Ordering::Relaxed);
        if self.balance.fetch_sub(RETRY, Ordering::Relaxed) >= RETRY {
            return true;
        }
        self.balance.fetch_add(RETRY, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let budget = RetryBudget::new(20);
        while budget.take(1) {}
        for _ in 0..100 {
            budget.pay_in();
        }
        let retries = std::iter::repeat_with(|| budget.take(1)).take_while(|sent| *sent).count();
        assert_eq!(retries, 20);
    }

    #[test]
    fn a_quiet_pool_may_retry_again_after_a_while_but_not_without_end() {
        let budget = RetryBudget::new(20);
        while budget.take(1) {}
        assert!(budget.take(2) && !budget.take(2), "one retry a second");
        let retries = std::iter::repeat_with(|| budget.take(10_000)).take_while(|sent| *sent).count();
        assert_eq!(retries, 10, "no more than the reserve");
    }

    #[test]
    fn nothing_is_retried_with_a_budget_of_nothing() {
        let budget = RetryBudget::new(0);
        budget.pay_in();
        assert!(!budget.take(1) && !budget.take(1_000));
    }

    #[test]
    fn a_busy_pool_does_not_save_retries_without_bound() {
        let budget = RetryBudget::new(100);
        for _ in 0..1_000_000 {
            budget.pay_in();
        }
        let retries = std::iter::repeat_with(|| budget.take(1)).take_while(|sent| *sent).count();
        assert!(retries <= 101, "{retries}");
    }
}
