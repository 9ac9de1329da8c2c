//! A family of series that is made at a scrape, rather than kept.

use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// A family that gets its series.
pub(super) struct Family {
    family: MetricFamily,
    /// Names of the labels.
    labels: &'static [&'static str],
}

impl Family {
    pub(super) fn new(
        kind: MetricType,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { family, labels }
    }

    #[expect(clippy::cast_precision_loss, reason = "samples are floats, exact up to 2^53")]
    pub(super) fn counter(&mut self, labels: &[&str], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        self.add(labels, |series| series.set_counter(counter));
    }

    pub(super) fn gauge(&mut self, labels: &[&str], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.add(labels, |series| series.set_gauge(gauge));
    }

    pub(super) fn histogram(&mut self, labels: &[&str], histogram: Histogram) {
        self.add(labels, |series| series.set_histogram(histogram));
    }

    fn add(&mut self, values: &[&str], set: impl FnOnce(&mut Metric)) {
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut labels: Vec<LabelPair> = self.labels.iter().zip(values).map(pair).collect();
        labels.sort();
        let mut series = Metric::from_label(labels);
        set(&mut series);
        self.family.mut_metric().push(series);
    }

    /// Appends the text, which a family without series has none of.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub(super) fn encode(self, text: &mut Vec<u8>) -> prometheus::Result<()> {
        if self.family.get_metric().is_empty() {
            return Ok(());
        }
        TextEncoder::new().encode(&[self.family], text)
    }
}
