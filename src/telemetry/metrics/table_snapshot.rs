//! Metrics of the table on disk (`store.snapshot`).

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGauge};

use super::Maker;

/// What became of writing the table to disk.
pub struct TableSnapshotMetrics {
    successes: IntCounter,
    failures: IntCounter,
    last_success: Gauge,
    sessions: IntGauge,
    duration: Gauge,
}

impl TableSnapshotMetrics {
    pub(super) fn new(make: &Maker) -> prometheus::Result<Self> {
        let writes = make.counters(
            "homing_snapshot_writes_total",
            "Times that the table was to be written to disk, by result.",
            &["result"],
        )?;
        Ok(Self {
            successes: writes.with_label_values(&["success"]),
            failures: writes.with_label_values(&["failure"]),
            last_success: make.add(Gauge::new(
                "homing_snapshot_last_success_timestamp_seconds",
                "When the table was last written to disk, in seconds since 1970; 0 = not yet.",
            ))?,
            sessions: make.gauge("homing_snapshot_sessions", "Sessions in the table on disk.")?,
            duration: make.add(Gauge::new(
                "homing_snapshot_duration_seconds",
                "How long it took to write the table to disk the last time.",
            ))?,
        })
    }

    /// The table was written at `at`, since 1970.
    pub fn succeeded(&self, sessions: u64, took: Duration, at: Duration) {
        self.sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
        self.duration.set(took.as_secs_f64());
        self.last_success.set(at.as_secs_f64());
        self.successes.inc();
    }

    /// It could not be written.
    pub fn failed(&self) {
        self.failures.inc();
    }
}
