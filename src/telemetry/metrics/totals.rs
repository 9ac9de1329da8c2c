//! Sums over all pools, for the history.

use prometheus::IntCounterVec;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;

use crate::telemetry::history::Totals;

use super::Metrics;

impl Metrics {
    /// The counters of all pools, summed up.
    pub fn totals(&self) -> Totals {
        let outcome =
            |wanted: &'static [&'static str]| sum(&self.outcomes, "outcome", move |value| wanted.contains(&value));
        Totals {
            requests: sum(&self.requests, "code", |_| true),
            errors: sum(&self.requests, "code", |code| code.starts_with('5')),
            kept: outcome(&["kept"]),
            elsewhere: outcome(&["moved", "borrowed", "refused"]),
            moves: sum(&self.moves, "reason", |_| true),
        }
    }
}

/// The sum of the samples whose label has such a value.
fn sum(family: &IntCounterVec, label: &str, fits: impl Fn(&str) -> bool) -> u64 {
    let families = family.collect();
    let samples = families.iter().flat_map(MetricFamily::get_metric);
    let wanted =
        samples.filter(|sample| sample.get_label().iter().any(|pair| pair.name() == label && fits(pair.value())));
    // Counters are whole numbers.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, exact up to 2^53")]
    wanted.map(|sample| sample.get_counter().get_value() as u64).sum()
}
