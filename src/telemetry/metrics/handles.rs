//! Handles of counters: looked up by name once, when a runtime is built, and then incremented by index.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::labels::LabelIndex;
use super::lifetimes::{Lifetimes, Subject};

/// Counters that differ in the last label only.
#[derive(Clone)]
pub struct Counters(Arc<[IntCounter]>);

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

/// Responses by status, of one pool or one route. The counter of a status is looked up by name at its first use, and that of an
/// unusual status every time: there may be ten thousand routes, and a handle for each status takes 8 KB.
struct ByCode {
    lifetimes: Arc<Lifetimes>,
    subject: fn(&str) -> Subject<'_>,
    counters: IntCounterVec,
    label: Arc<str>,
    usual: [OnceLock<IntCounter>; USUAL],
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
/// How many statuses have a handle.
const USUAL: usize = 24;

/// Where the handle of a usual status stands. The compiler makes a table of it.
const fn handle(code: u16) -> Option<usize> {
    Some(match code {
        200 => 0,
        201 => 1,
        202 => 2,
        204 => 3,
        206 => 4,
        301 => 5,
        302 => 6,
        303 => 7,
        304 => 8,
        307 => 9,
        308 => 10,
        400 => 11,
        401 => 12,
        403 => 13,
        404 => 14,
        405 => 15,
        409 => 16,
        422 => 17,
        429 => 18,
        500 => 19,
        502 => 20,
        503 => 21,
        504 => 22,
        101 => 23,
        _ => return None,
    })
}

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
        let usual = [const { OnceLock::new() }; USUAL];
        Self { lifetimes: Arc::clone(lifetimes), subject, counters: counters.clone(), label: Arc::from(label), usual }
    }

    /// Status 0 = the client disconnected before a response.
    fn inc(&self, code: u16) {
        let handle = handle(code).and_then(|index| self.usual.get(index));
        match handle.and_then(OnceLock::get) {
            Some(counter) => counter.inc(),
            None => self.inc_by_name(code, handle),
        }
    }

    /// Counts nothing for a request that ends long after a reload took its pool or route away.
    #[cold]
    fn inc_by_name(&self, code: u16, handle: Option<&OnceLock<IntCounter>>) {
        if !CODES.contains(&code) {
            return;
        }
        let counter = || self.counters.with_label_values(&[&*self.label, &code.to_string()]);
        let Some(counter) = self.lifetimes.count((self.subject)(&self.label), counter) else { return };
        counter.inc();
        if let Some(handle) = handle {
            // Another thread may have set the same.
            drop(handle.set(counter));
        }
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
