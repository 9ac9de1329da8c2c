//! Handles of counters: looked up by name once, when a runtime is built, and then incremented by index.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::labels::LabelIndex;
use super::lifetimes::{Lifetimes, Subject};

/// Counters that differ in the last label only.
pub struct Counters(Box<[IntCounter]>);

impl Counters {
    pub(super) fn new(vec: &IntCounterVec, labels: &[&str], last: &[&str]) -> Self {
        Self(
            last.iter()
                .map(|value| {
                    let mut values = labels.to_vec();
                    values.push(value);
                    vec.with_label_values(&values)
                })
                .collect(),
        )
    }

    /// Adds to the counter of a label's value.
    pub fn add(&self, label: impl LabelIndex, count: u64) {
        if let Some(counter) = self.0.get(label.index()) {
            counter.inc_by(count);
        }
    }

    /// Increments the counter of a label's value.
    pub fn inc(&self, label: impl LabelIndex) {
        if let Some(counter) = self.0.get(label.index()) {
            counter.inc();
        }
    }

    /// The count of a label's value.
    pub fn get(&self, label: impl LabelIndex) -> u64 {
        self.0.get(label.index()).map_or(0, IntCounter::get)
    }
}

/// Responses by status, of one pool or one route. The counter of a status is looked up by name at its first use.
struct ByCode {
    lifetimes: Arc<Lifetimes>,
    subject: fn(&str) -> Subject<'_>,
    counters: IntCounterVec,
    label: Arc<str>,
    codes: Box<[OnceLock<Option<IntCounter>>]>,
}

/// Responses of one pool, by status, and their duration.
pub struct PoolRequests {
    responses: ByCode,
    duration: Histogram,
}

/// Responses of one route, by status.
pub struct RouteMetrics(ByCode);

/// The counters of one pool.
pub struct PoolMetrics {
    pub(super) requests: PoolRequests,
    /// By [`Retry`](super::Retry).
    pub retries: Counters,
    /// By [`LOOKUPS`](super::LOOKUPS), for each source in its order.
    pub lookups: Box<[Counters]>,
    /// By [`OUTCOMES`](super::OUTCOMES).
    pub outcomes: Counters,
    /// By [`MOVES`](super::MOVES).
    pub moves: Counters,
    /// The same by servers.
    pub server_moves: ServerMoves,
    /// Bytes of bodies, by [`Direction`](super::Direction).
    pub bytes: Counters,
    /// By [`TokenReason`](super::TokenReason).
    pub tokens: Counters,
    /// By [`Handoff`](super::Handoff).
    pub handoffs: Counters,
    /// Tokens that the overflow cookie carries, since the application's cookie has no room.
    pub oversized_cookies: IntCounter,
    /// Cookies of guest servers that were held back.
    pub guest_cookies_held: IntCounter,
}

/// Moves of one pool's sessions between its servers. Looked up by name, since a move is rare, and most pairs have none.
pub struct ServerMoves {
    lifetimes: Arc<Lifetimes>,
    moves: IntCounterVec,
    pool: Arc<str>,
}

impl ServerMoves {
    pub(super) fn new(lifetimes: &Arc<Lifetimes>, moves: &IntCounterVec, pool: &str) -> Self {
        Self { lifetimes: Arc::clone(lifetimes), moves: moves.clone(), pool: Arc::from(pool) }
    }

    /// Counts a move. A server whose series are removed is `unknown`: sessions come back to it for as long as they live.
    pub fn inc(&self, from: &str, to: &str) {
        self.lifetimes.count_servers(&self.pool, [from, to], |[from, to]| {
            self.moves.with_label_values(&[&*self.pool, from, to]).inc();
        });
    }
}

/// How many of a kind are open.
pub struct OpenCount(pub(super) IntGauge);

impl OpenCount {
    /// Counts one more, until the guard is dropped.
    pub fn begin(&self) -> OpenGuard {
        self.0.inc();
        OpenGuard(self.0.clone())
    }

    /// How many there are.
    pub fn count(&self) -> i64 {
        self.0.get()
    }
}

/// One that is open.
pub struct OpenGuard(IntGauge);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Statuses that are counted.
const CODES: std::ops::Range<u16> = 100..600;

impl PoolMetrics {
    /// Counts a response and its duration.
    pub fn request(&self, code: u16, took: Duration) {
        self.requests.request(code, took);
    }
}

impl ByCode {
    fn new(
        lifetimes: &Arc<Lifetimes>,
        subject: fn(&str) -> Subject<'_>,
        counters: &IntCounterVec,
        label: &str,
    ) -> Self {
        let codes = CODES.map(|_| OnceLock::new()).collect();
        Self { lifetimes: Arc::clone(lifetimes), subject, counters: counters.clone(), label: Arc::from(label), codes }
    }

    /// Status 0 = the client disconnected before a response.
    fn inc(&self, code: u16) {
        let slot = code.checked_sub(CODES.start).and_then(|index| self.codes.get(usize::from(index)));
        if let Some(counter) = slot.and_then(|slot| slot.get_or_init(|| self.counter(code)).as_ref()) {
            counter.inc();
        }
    }

    /// `None` for a request that ends long after a reload took its pool or route away.
    fn counter(&self, code: u16) -> Option<IntCounter> {
        let counter = || self.counters.with_label_values(&[&*self.label, &code.to_string()]);
        self.lifetimes.count((self.subject)(&self.label), counter)
    }
}

impl PoolRequests {
    pub(super) fn new(
        lifetimes: &Arc<Lifetimes>,
        requests: &IntCounterVec,
        durations: &HistogramVec,
        pool: &str,
    ) -> Self {
        let responses = ByCode::new(lifetimes, |pool| Subject::Pool(pool), requests, pool);
        Self { responses, duration: durations.with_label_values(&[pool]) }
    }

    /// Counts a response and its duration; status 0 = the client disconnected before one.
    pub fn request(&self, code: u16, took: Duration) {
        self.responses.inc(code);
        self.duration.observe(took.as_secs_f64());
    }
}

impl RouteMetrics {
    pub(super) fn new(lifetimes: &Arc<Lifetimes>, requests: &IntCounterVec, route: &str) -> Self {
        Self(ByCode::new(lifetimes, |route| Subject::Route(route), requests, route))
    }

    /// Counts a response; status 0 = the client disconnected before one.
    pub fn request(&self, code: u16) {
        self.0.inc(code);
    }
}
