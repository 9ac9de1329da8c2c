//! What was seen, and how it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::meter::Meter;

/// So many errors end a run: it will not be counted anyway.
const TOO_MANY_ERRORS: u64 = 1000;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Whole answers with status 200.
    pub(crate) answers: u64,
    /// … among them: by another server than the session's.
    moved: u64,
    /// … among them: with a `Set-Cookie`.
    given: u64,
    errors: BTreeMap<&'static str, u64>,
    /// Nanoseconds; four seconds and more are 4.29.
    latencies: Vec<u32>,
}

impl Tally {
    pub(crate) fn answer(&mut self, took: Duration, moved: bool, given: bool) {
        self.answers += 1;
        self.moved += u64::from(moved);
        self.given += u64::from(given);
        self.latencies.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(crate) fn error(&mut self, kind: &'static str) {
        *self.errors.entry(kind).or_default() += 1;
    }

    pub(crate) fn failed(&self) -> bool {
        self.errors.values().sum::<u64>() >= TOO_MANY_ERRORS
    }

    /// Resets the counters; keeps the memory.
    pub(crate) fn reset(&mut self) {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.clear();
        *self = Self { latencies, ..Self::default() };
    }

    pub(crate) fn json(mut self, took: Duration, meter: Meter) -> Value {
        self.latencies.sort_unstable();
        let seconds = took.as_secs_f64();
        json!({
            "requests": self.answers,
            "seconds": seconds,
            "requests_per_second": self.answers as f64 / seconds,
            "errors": self.errors,
            "moved": self.moved,
            "set_cookie": self.given,
            "latency_us": {
                "p50": self.quantile(0.5),
                "p90": self.quantile(0.9),
                "p99": self.quantile(0.99),
                "p99.9": self.quantile(0.999),
                "max": self.quantile(1.0),
            },
            "cpu_us_per_request": meter.cpu_ns as f64 / 1000.0 / self.answers as f64,
            "cpu_ns": meter.cpu_ns,
            // Of the time, what others had of the proxy's CPU.
            "others": meter.core_ns.saturating_sub(meter.cpu_ns) as f64 / 1e9 / seconds,
            "stolen": if meter.ticks == 0 { 0.0 } else { meter.stolen as f64 / meter.ticks as f64 },
        })
    }

    /// Microseconds that this share of the answers took at most (nearest rank).
    fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).map_or(0.0, |nanos| f64::from(*nanos) / 1000.0)
    }
}
