//! A histogram of times in one block of memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Bucket, Histogram};

/// Times, counted by buckets.
pub(super) struct Timings<const N: usize> {
    /// Upper bounds of the buckets, in seconds.
    bounds: &'static [f64; N],
    /// Times in each bucket that are in none before it.
    buckets: [AtomicU64; N],
    /// Times above all bounds.
    above: AtomicU64,
    /// Their sum.
    nanos: AtomicU64,
}

impl<const N: usize> Timings<N> {
    pub(super) fn new(bounds: &'static [f64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::default());
        Self { bounds, buckets, above: AtomicU64::default(), nanos: AtomicU64::default() }
    }

    /// Counts a time.
    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let index = self.bounds.iter().position(|bound| seconds <= *bound);
        let bucket = index.and_then(|index| self.buckets.get(index)).unwrap_or(&self.above);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// As Prometheus has it: the count of a bucket includes those below.
    pub(super) fn histogram(&self) -> Histogram {
        let mut count = 0;
        let mut cumulative = |bucket: &AtomicU64| {
            count += bucket.load(Ordering::Relaxed);
            count
        };
        let buckets = self.bounds.iter().zip(&self.buckets).map(|(bound, in_it)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative(in_it));
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(cumulative(&self.above));
        histogram.set_sample_sum(Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64());
        histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: [f64; 3] = [0.001, 0.01, 1.0];

    proptest! {
        #[test]
        fn times_are_counted_as_by_the_histogram_of_the_library(times in proptest::collection::vec(0_u64..3_000_000_000, 0..50)) {
            let timings = Timings::new(&BOUNDS);
            let library = prometheus::Histogram::with_opts(HistogramOpts::new("a", "a").buckets(BOUNDS.to_vec())).unwrap();
            let edges = [0, 1_000_000, 1_000_001, 10_000_000, 1_000_000_000, 1_000_000_001];
            for time in times.into_iter().chain(edges).map(Duration::from_nanos) {
                timings.observe(time);
                library.observe(time.as_secs_f64());
            }
            let (ours, theirs) = (timings.histogram(), prometheus::core::Metric::metric(&library));
            let theirs = theirs.get_histogram();
            prop_assert_eq!(ours.get_bucket(), theirs.get_bucket());
            prop_assert_eq!(ours.get_sample_count(), theirs.get_sample_count());
            prop_assert!((ours.get_sample_sum() - theirs.get_sample_sum()).abs() < 1e-6);
        }
    }
}
