//! The last hour in samples, for charts that need no Prometheus.

use std::collections::VecDeque;
use std::time::Duration;

/// Between two samples.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(30);
/// An hour of them.
const KEPT: usize = 120;

/// Counters of all pools since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Responses.
    pub requests: u64,
    /// Responses with a status of 500 and above.
    pub errors: u64,
    /// Requests with a session that went to its server.
    pub kept: u64,
    /// Requests with a session that did not: moved, served by a guest server, or refused.
    pub elsewhere: u64,
    /// Sessions that moved.
    pub moves: u64,
}

impl Totals {
    /// What came since then. The series of a removed pool go, and its counts with them.
    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            kept: self.kept.saturating_sub(before.kept),
            elsewhere: self.elsewhere.saturating_sub(before.elsewhere),
            moves: self.moves.saturating_sub(before.moves),
        }
    }
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Its end, in milliseconds since 1970.
    pub at: u64,
    /// What came meanwhile.
    pub counts: Totals,
    /// At its end: see [`imbalance`].
    pub imbalance: Option<f64>,
}

/// The samples of the last hour, oldest first.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    last: Option<Totals>,
}

impl History {
    /// Adds a sample. The first call is the base of the first sample.
    pub fn record(&mut self, at: u64, totals: Totals, imbalance: Option<f64>) {
        if let Some(before) = self.last.replace(totals) {
            if self.samples.len() >= KEPT {
                self.samples.pop_front();
            }
            self.samples.push_back(Sample { at, counts: totals.since(&before), imbalance });
        }
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }
}

/// How many times its fair share of the sessions the most crowded server has: 1 when all have theirs. Of each server its
/// sessions and its share of new ones; `None` for fewer than two servers with a share, and without sessions.
pub fn imbalance(servers: impl Iterator<Item = (u64, f64)> + Clone) -> Option<f64> {
    let taking = servers.filter(|(_, weight)| *weight > 0.0);
    let (sessions, weight) =
        taking.clone().fold((0, 0.0), |(sessions, sum), (own, weight)| (sessions + own, sum + weight));
    if sessions == 0 || taking.clone().count() < 2 {
        return None;
    }
    let fair = sessions as f64 / weight;
    taking.map(|(own, weight)| own as f64 / weight / fair).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_what_came_between_them_and_the_last_hour_is_kept() {
        let mut history = History::default();
        for n in 0..=200 {
            history.record(n, Totals { requests: n * n, moves: 7, ..Totals::default() }, None);
        }
        let samples: Vec<_> = history.samples().collect();
        assert_eq!(samples.len(), KEPT);
        assert_eq!((samples[0].at, samples[KEPT - 1].at), (81, 200));
        assert!(samples.iter().all(|sample| sample.counts.requests == 2 * sample.at - 1 && sample.counts.moves == 0));
    }

    #[test]
    fn counts_that_went_with_their_pool_are_no_negative_numbers() {
        let mut history = History::default();
        history.record(0, Totals { requests: 10, ..Totals::default() }, None);
        history.record(1, Totals { requests: 3, errors: 1, ..Totals::default() }, None);
        let sample = history.samples().next().unwrap();
        assert_eq!((sample.counts.requests, sample.counts.errors), (0, 1));
    }

    #[test]
    fn imbalance_is_by_weight_and_of_servers_that_take_new_sessions() {
        let of = |servers: &[(u64, f64)]| imbalance(servers.iter().copied());
        assert_eq!(of(&[(10, 1.0), (10, 1.0)]), Some(1.0));
        assert_eq!(of(&[(30, 1.0), (10, 1.0)]), Some(1.5));
        assert_eq!(of(&[(30, 3.0), (10, 1.0)]), Some(1.0), "a heavier server has more");
        assert_eq!(of(&[(90, 0.0), (10, 1.0), (10, 1.0)]), Some(1.0), "a draining server does not count");
        assert_eq!(of(&[(90, 0.0), (10, 1.0)]), None);
        assert_eq!(of(&[(0, 1.0), (0, 1.0)]), None);
    }
}
