//! Makes and registers metrics.

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::lifetimes::FamilyList;

/// Registers every metric that it makes.
#[derive(Default)]
pub(super) struct Registrar {
    pub(super) registry: Registry,
    /// Those with labels, whose series may be removed.
    pub(super) families: FamilyList,
}

impl Registrar {
    pub(super) fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let metric = made?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn add_family<T: MetricVecBuilder + 'static>(
        &self,
        made: prometheus::Result<MetricVec<T>>,
        labels: &[&str],
    ) -> prometheus::Result<MetricVec<T>> {
        let family = self.add(made)?;
        self.families.add(&family, labels);
        Ok(family)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add_family(IntCounterVec::new(Opts::new(name, help), labels), labels)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.add_family(IntGaugeVec::new(Opts::new(name, help), labels), labels)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        self.add_family(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels), labels)
    }
}

/// A count as the value of a gauge.
pub(super) fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
