//! Limits how often one kind of log line is written.

use parking_lot::Mutex;

/// Admits a few lines in each period; the others are counted, and the next line says how many there were. A lock, since lines
/// that need a limit are rare.
pub struct LogLimit {
    lines: u32,
    period_seconds: u64,
    state: Mutex<State>,
}

struct State {
    period: u64,
    written: u32,
    suppressed: u64,
}

impl LogLimit {
    /// At most `lines` in a period.
    pub const fn new(lines: u32, period_seconds: u64) -> Self {
        Self { lines, period_seconds, state: Mutex::new(State { period: 0, written: 0, suppressed: 0 }) }
    }

    /// Whether a line may be written at this second, and how many were suppressed since the one before.
    pub fn admit(&self, second: u64) -> Option<u64> {
        let period = second.checked_div(self.period_seconds).unwrap_or(second);
        let mut state = self.state.lock();
        if state.period != period {
            (state.period, state.written) = (period, 0);
        }
        if state.written >= self.lines {
            state.suppressed += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_period_has_a_few_lines_and_the_next_one_says_how_many_are_missing() {
        let limit = LogLimit::new(2, 10);
        assert_eq!([10, 11, 12, 19].map(|second| limit.admit(second)), [Some(0), Some(0), None, None]);
        assert_eq!([20, 21, 22].map(|second| limit.admit(second)), [Some(2), Some(0), None]);
    }

    proptest! {
        #[test]
        fn every_line_is_written_or_counted(seconds in prop::collection::vec(0u64..100, 0..60)) {
            let limit = LogLimit::new(3, 7);
            let results: Vec<_> = seconds.iter().map(|second| limit.admit(*second)).collect();
            let written = results.iter().flatten().count() as u64;
            let told: u64 = results.iter().flatten().sum();
            let untold = limit.state.lock().suppressed;
            prop_assert_eq!(written + told + untold, seconds.len() as u64);
        }
    }
}
