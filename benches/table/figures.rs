//! What the bench found out: printed for people as it comes, and as JSON at the end.

use serde_json::{Map, Value, json};

use crate::clock::SWITCHED;

/// The figures of one part at one size.
#[derive(Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    /// One figure. Its `name` ends with its unit.
    pub(crate) fn note(&mut self, name: &str, what: &str, value: f64) {
        let unit = match name.rsplit('_').next() {
            Some("ns") => "ns",
            Some("bytes") => "B",
            Some("ms") => "ms",
            Some("ratio") => "times",
            _ => "",
        };
        let digits = if value.abs() < 10.0 { 2 } else { 1 };
        println!("  {what:<42}{value:>9.digits$} {unit}");
        self.0.insert(name.to_owned(), json!(value));
    }

    /// How long each of many took.
    pub(crate) fn tails(&mut self, name: &str, what: &str, tails: &Tails) {
        tails.print(what);
        for (share, is_at) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999), ("max", 1.0)] {
            self.0.insert(format!("{name}_{share}_ns"), json!(tails.at(is_at)));
        }
        self.0.insert(format!("{name}_over_100us"), json!(tails.over(100_000)));
        self.0.insert(format!("{name}_count"), json!(tails.nanos.len()));
    }

    /// How much longer the longest took than on a `quiet` table.
    pub(crate) fn compare(&mut self, name: &str, tails: &Tails, quiet: &Tails) {
        for (share, is_at) in [("p99", 0.99), ("p9999", 0.9999)] {
            let times = f64::from(tails.at(is_at)) / f64::from(quiet.at(is_at).max(1));
            self.note(&format!("{name}_{share}_ratio"), &format!("  to the quiet table's {share}"), times);
        }
    }

    pub(crate) fn json(self) -> Value {
        Value::Object(self.0)
    }
}

/// Sorted nanoseconds, and the number of samples dropped because the thread was interrupted.
pub(crate) struct Tails {
    nanos: Vec<u32>,
    switched: usize,
}

impl Tails {
    pub(crate) fn of(nanos: impl Iterator<Item = u32>) -> Self {
        let mut nanos: Vec<u32> = nanos.collect();
        let all = nanos.len();
        nanos.retain(|nanos| *nanos != SWITCHED);
        nanos.sort_unstable();
        let switched = all - nanos.len();
        Self { nanos, switched }
    }

    fn at(&self, share: f64) -> u32 {
        let last = self.nanos.len().saturating_sub(1);
        self.nanos.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.nanos.iter().map(|nanos| u64::from(*nanos)).sum()
    }

    fn over(&self, nanos: u32) -> usize {
        self.nanos.iter().rev().take_while(|took| **took > nanos).count()
    }

    fn print(&self, what: &str) {
        let micros = |share: f64| f64::from(self.at(share)) / 1000.0;
        println!(
            "  {what:<42}{:>9.2} µs p50 {:>7.2} p99 {:>7.2} p99.9 {:>7.2} p99.99 {:>8.1} max, {} of {} over 100 µs, {} left out",
            micros(0.5),
            micros(0.99),
            micros(0.999),
            micros(0.9999),
            micros(1.0),
            self.over(100_000),
            self.nanos.len(),
            self.switched,
        );
    }
}
