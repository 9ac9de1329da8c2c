//! Metrics of the store that several proxies share (`homing_store_*`).

use prometheus::{Histogram, HistogramTimer, IntCounter, IntGauge};
use strum::{IntoStaticStr, VariantNames};

use super::handles::Counters;
use super::registrar::Registrar;

/// `op` of `homing_store_operations_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum StoreOperation {
    /// Reads a session's binding.
    Lookup,
    /// Binds a session, unless it is bound already.
    Bind,
    /// Moves or ends a session.
    Move,
    /// Records that a session was used.
    Touch,
    /// Reads a session's handoff data.
    DataGet,
    /// Writes a session's handoff data.
    DataPut,
    /// Removes a session's handoff data.
    Forget,
    /// Checks the connection.
    Ping,
}

/// `result` of `homing_store_operations_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum StoreResult {
    /// Done.
    Ok,
    /// Another proxy was first, and its record stands.
    Lost,
    /// No response in time.
    Timeout,
    /// No connection.
    Unreachable,
    /// The store refused.
    Refused,
    /// The response or the record is not readable.
    Unreadable,
    /// Not sent: the breaker is open.
    Suspended,
    /// Not queued for later: the queue is full.
    Dropped,
}

/// From 0.1 ms (the same machine) to 1 s (far above the default of `store.timeout`).
const BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Operations of the shared store. Without one nothing is counted.
pub struct StoreMetrics {
    up: IntGauge,
    pending: IntGauge,
    operations: Box<[Counters]>,
    durations: Box<[Histogram]>,
    /// Moves and ends that proxies have announced.
    pub announcements: IntCounter,
}

impl StoreMetrics {
    pub(super) fn new(make: &Registrar) -> prometheus::Result<Self> {
        let operations = make.counters(
            "homing_store_operations_total",
            "Operations of the shared store, by operation and result.",
            &["op", "result"],
        )?;
        let durations = make.histograms(
            "homing_store_operation_duration_seconds",
            "Duration of operations of the shared store.",
            BUCKETS,
            &["op"],
        )?;
        let up = make.gauge("homing_store_up", "1 while the shared store answers, and without a shared store.")?;
        up.set(1);
        Ok(Self {
            up,
            pending: make
                .gauge("homing_store_pending_writes", "Decisions that are not yet written to the shared store.")?,
            operations: StoreOperation::VARIANTS
                .iter()
                .map(|op| Counters::new(&operations, &[op], StoreResult::VARIANTS))
                .collect(),
            durations: StoreOperation::VARIANTS.iter().map(|op| durations.with_label_values(&[op])).collect(),
            announcements: make.counter(
                "homing_store_announcements_total",
                "Moves and ends of sessions announced through the shared store, including this proxy's.",
            )?,
        })
    }

    /// Whether the store answers.
    pub fn set_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    /// How many decisions are not yet written.
    pub fn set_pending(&self, pending: usize) {
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// Counts an operation.
    pub fn count(&self, operation: StoreOperation, result: StoreResult) {
        if let Some(results) = self.operations.get(operation as usize) {
            results.inc(result as usize);
        }
    }

    /// Measures an operation until it is dropped.
    pub fn timer(&self, operation: StoreOperation) -> Option<HistogramTimer> {
        self.durations.get(operation as usize).map(Histogram::start_timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_names() {
        assert_eq!(
            StoreOperation::VARIANTS,
            ["lookup", "bind", "move", "touch", "data_get", "data_put", "forget", "ping"]
        );
        assert_eq!(
            StoreResult::VARIANTS,
            ["ok", "lost", "timeout", "unreachable", "refused", "unreadable", "suspended", "dropped"]
        );
    }
}
