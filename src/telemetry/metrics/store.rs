//! Metrics of the store that several proxies share (`homing_store_*`).

use prometheus::{Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntGauge};
use strum::VariantNames;

use super::Maker;
use super::handles::Counters;

/// What the store was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum StoreOperation {
    /// Where is this session bound?
    Lookup,
    /// It is bound here, if nobody was first.
    Bind,
    /// It moves, or is over.
    Move,
    /// It was here.
    Touch,
    /// What did its last server hand over?
    DataGet,
    /// Its server hands this over.
    DataPut,
    /// Its data is worth nothing any more.
    Forget,
    /// Does the store answer?
    Ping,
}

/// `op` of `homing_store_operations_total`.
pub const STORE_OPERATIONS: &[&str] = StoreOperation::VARIANTS;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum StoreResult {
    /// Done.
    Ok,
    /// Another proxy was first; its record stands.
    Lost,
    /// No answer in time.
    Timeout,
    /// No connection.
    Unreachable,
    /// The store will not.
    Refused,
    /// Nobody can read what it says.
    Unreadable,
    /// Not asked, since it did not answer before.
    Suspended,
    /// Not kept for later, since too much is kept already.
    Dropped,
}

/// `result` of `homing_store_operations_total`.
pub const STORE_RESULTS: &[&str] = StoreResult::VARIANTS;

/// From a tenth of a millisecond (the same machine) to a second (far more than `store.timeout` allows by default).
const BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// What the store was asked, and what came of it. Without a shared store nothing is ever counted.
pub struct StoreMetrics {
    up: IntGauge,
    pending: IntGauge,
    operations: Box<[Counters]>,
    durations: Box<[Histogram]>,
    /// Moves and ends that other proxies have announced.
    pub announcements: IntCounter,
}

impl StoreMetrics {
    pub(super) fn new(make: &Maker) -> prometheus::Result<Self> {
        let operations = make.counters(
            "homing_store_operations_total",
            "Times that the shared store was asked, by operation and result.",
            &["op", "result"],
        )?;
        let durations = make.add(HistogramVec::new(
            HistogramOpts::new("homing_store_operation_duration_seconds", "How long the shared store took to answer.")
                .buckets(BUCKETS.to_vec()),
            &["op"],
        ))?;
        let up = make.gauge("homing_store_up", "1 while the shared store answers, and where there is none.")?;
        up.set(1);
        Ok(Self {
            up,
            pending: make.gauge(
                "homing_store_pending_writes",
                "Decisions that the shared store does not know yet, since it did not answer.",
            )?,
            operations: STORE_OPERATIONS.iter().map(|op| Counters::new(&operations, &[op], STORE_RESULTS)).collect(),
            durations: STORE_OPERATIONS.iter().map(|op| durations.with_label_values(&[op])).collect(),
            announcements: make.counter(
                "homing_store_announcements_total",
                "Moves and ends of sessions that proxies have announced through the shared store, this one's too.",
            )?,
        })
    }

    /// The store answers, or does not.
    pub fn set_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    /// So many decisions wait to be written.
    pub fn set_pending(&self, pending: usize) {
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// The store was asked.
    pub fn count(&self, operation: StoreOperation, result: StoreResult) {
        if let Some(results) = self.operations.get(operation as usize) {
            results.inc(result as usize);
        }
    }

    /// Measures until it is dropped.
    pub fn timer(&self, operation: StoreOperation) -> Option<HistogramTimer> {
        self.durations.get(operation as usize).map(Histogram::start_timer)
    }
}
