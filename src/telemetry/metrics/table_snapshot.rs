//! Metrics of the table's snapshot on disk (`store.snapshot`).

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGauge};

use super::registrar::Registrar;

/// Writes of the snapshot.
pub struct TableSnapshotMetrics {
    successes: IntCounter,
    failures: IntCounter,
    last_success: Gauge,
    sessions: IntGauge,
    duration: Gauge,
}

impl TableSnapshotMetrics {
    pub(super) fn new(make: &Registrar) -> prometheus::Result<Self> {
        let writes =
            make.counters("homing_snapshot_writes_total", "Writes of the table to disk, by result.", &["result"])?;
        Ok(Self {
            successes: writes.with_label_values(&["success"]),
            failures: writes.with_label_values(&["failure"]),
            last_success: make.add(Gauge::new(
                "homing_snapshot_last_success_timestamp_seconds",
                "Time of the last successful write, in seconds since 1970; 0 = none yet.",
            ))?,
            sessions: make.gauge("homing_snapshot_sessions", "Sessions in the snapshot on disk.")?,
            duration: make
                .add(Gauge::new("homing_snapshot_duration_seconds", "Duration of the last successful write."))?,
        })
    }

    /// Records a write at `at`, since 1970.
    pub fn succeeded(&self, sessions: u64, took: Duration, at: Duration) {
        self.sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
        self.duration.set(took.as_secs_f64());
        self.last_success.set(at.as_secs_f64());
        self.successes.inc();
    }

    /// Records a failed write.
    pub fn failed(&self) {
        self.failures.inc();
    }
}
