//! Counters as requests hold them: found by name once, when a snapshot is built, and by index ever after.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

/// Counters that differ in the last label only, incremented by the index of its word.
pub struct Counters(Box<[IntCounter]>);

impl Counters {
    pub(super) fn new(vec: &IntCounterVec, labels: &[&str], words: &[&str]) -> Self {
        Self(
            words
                .iter()
                .map(|word| {
                    let mut values = labels.to_vec();
                    values.push(word);
                    vec.with_label_values(&values)
                })
                .collect(),
        )
    }

    /// Counts one of the word at `index`; an index without a word counts nothing.
    pub fn inc(&self, index: usize) {
        if let Some(counter) = self.0.get(index) {
            counter.inc();
        }
    }

    /// What was counted of the word at `index`.
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, IntCounter::get)
    }
}

/// Answers by status, of one pool or one route. A status is looked up by name when it comes for the first time.
struct ByCode {
    counters: IntCounterVec,
    label: Arc<str>,
    codes: Box<[OnceLock<IntCounter>]>,
}

/// Answers of one pool, by status, and how long they took.
pub struct PoolRequests {
    answers: ByCode,
    duration: Histogram,
}

/// Answers of one route, by status.
pub struct RouteMetrics(ByCode);

/// The counters of one pool.
pub struct PoolMetrics {
    pub(super) requests: PoolRequests,
    /// Retries by [`RETRIES`](super::RETRIES).
    pub retries: Counters,
    /// Lookups by [`LOOKUPS`](super::LOOKUPS), for each source in its order.
    pub lookups: Box<[Counters]>,
    /// Outcomes by [`OUTCOMES`](super::OUTCOMES).
    pub outcomes: Counters,
    /// Moves by [`MOVES`](super::MOVES).
    pub moves: Counters,
    /// Tokens by [`TOKENS`](super::TOKENS).
    pub tokens: Counters,
    /// Session data by [`HANDOFFS`](super::HANDOFFS).
    pub handoffs: Counters,
    /// Tokens that the overflow cookie carries, since the application's cookie has no room.
    pub oversized_cookies: IntCounter,
}

/// Statuses 100 to 599 have a counter of their own.
const CODES: std::ops::Range<u16> = 100..600;

impl PoolMetrics {
    /// Counts an answer and how long it took.
    pub fn request(&self, code: u16, took: Duration) {
        self.requests.request(code, took);
    }
}

impl ByCode {
    fn new(counters: &IntCounterVec, label: &str) -> Self {
        let codes = CODES.map(|_| OnceLock::new()).collect();
        Self { counters: counters.clone(), label: Arc::from(label), codes }
    }

    /// Status 0 = the client was gone before an answer.
    fn inc(&self, code: u16) {
        let slot = code.checked_sub(CODES.start).and_then(|index| self.codes.get(usize::from(index)));
        if let Some(slot) = slot {
            slot.get_or_init(|| self.counters.with_label_values(&[&*self.label, &code.to_string()])).inc();
        }
    }
}

impl PoolRequests {
    pub(super) fn new(requests: &IntCounterVec, durations: &HistogramVec, pool: &str) -> Self {
        Self { answers: ByCode::new(requests, pool), duration: durations.with_label_values(&[pool]) }
    }

    /// Counts an answer and how long it took; status 0 = the client was gone before one.
    pub fn request(&self, code: u16, took: Duration) {
        self.answers.inc(code);
        self.duration.observe(took.as_secs_f64());
    }
}

impl RouteMetrics {
    pub(super) fn new(requests: &IntCounterVec, route: &str) -> Self {
        Self(ByCode::new(requests, route))
    }

    /// Counts an answer; status 0 = the client was gone before one.
    pub fn request(&self, code: u16) {
        self.0.inc(code);
    }
}

/// The counters of one server.
pub struct ServerMetrics {
    /// Failures by [`UPSTREAM_ERRORS`](super::UPSTREAM_ERRORS).
    pub errors: Counters,
    /// Health checks by [`CHECKS`](super::CHECKS).
    pub checks: Counters,
}
