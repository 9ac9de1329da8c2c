//! Slow start: a server that comes back, or is new, gets its share of new sessions bit by bit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The whole of a server's share, in thousandths.
pub const WHOLE: u32 = 1000;
/// What it begins with.
const FIRST: u32 = WHOLE / 10;
/// It rises in steps, since the balancer builds its selection for each.
const STEP: u32 = WHOLE / 20;

/// Which part of its weight a server has for new sessions. Written by the pool's clock, read when the balancer builds its
/// selection.
pub struct Ramp {
    /// In thousandths.
    part: AtomicU32,
    phase: Mutex<Phase>,
    /// The pool's, raised with every step.
    generation: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has the whole share.
    Whole,
    /// It does not serve; once it does, its share rises.
    Pending,
    /// Its share rises.
    Rising { since: Instant },
}

impl Ramp {
    /// Of a server that has the whole share, or that begins with the first part of it.
    pub fn new(generation: Arc<AtomicU64>, pending: bool) -> Self {
        let (part, phase) = if pending { (FIRST, Phase::Pending) } else { (WHOLE, Phase::Whole) };
        Self { part: AtomicU32::new(part), phase: Mutex::new(phase), generation }
    }

    /// The part that it has now, in thousandths.
    pub fn part(&self) -> u32 {
        self.part.load(Ordering::Relaxed)
    }

    /// Time has passed. `serves`: the server does now.
    pub fn step(&self, serves: bool, now: Instant, slow_start: Duration) {
        let mut phase = self.phase.lock();
        let (next, part) = next(*phase, serves, now, slow_start);
        *phase = next;
        if self.part.swap(part, Ordering::Relaxed) != part {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn next(phase: Phase, serves: bool, now: Instant, slow_start: Duration) -> (Phase, u32) {
    if slow_start.is_zero() {
        return (Phase::Whole, WHOLE);
    }
    let since = match phase {
        _ if !serves => return (Phase::Pending, FIRST),
        Phase::Whole => return (Phase::Whole, WHOLE),
        Phase::Pending => now,
        Phase::Rising { since } => since,
    };
    let elapsed = now.saturating_duration_since(since);
    if elapsed >= slow_start {
        return (Phase::Whole, WHOLE);
    }
    let risen = elapsed.as_secs_f64() / slow_start.as_secs_f64() * f64::from(WHOLE - FIRST);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 900")]
    let risen = risen as u32;
    (Phase::Rising { since }, FIRST + risen / STEP * STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(100);

    /// The parts at these seconds, from one phase to the next.
    fn walk(mut phase: Phase, steps: &[(u64, bool)]) -> Vec<u32> {
        let start = Instant::now();
        let step = |(second, serves): &(u64, bool)| {
            let (next, part) = next(phase, *serves, start + Duration::from_secs(*second), TIME);
            phase = next;
            part
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn a_share_rises_in_a_line_from_a_tenth_to_the_whole() {
        let steps = [(0, false), (5, true), (15, true), (55, true), (104, true), (105, true), (200, true)];
        assert_eq!(walk(Phase::Whole, &steps), [100, 100, 150, 550, 950, 1000, 1000]);
    }

    #[test]
    fn a_server_that_serves_from_the_start_has_the_whole_share() {
        assert_eq!(walk(Phase::Whole, &[(0, true), (1, true)]), [1000, 1000]);
    }

    #[test]
    fn a_server_that_goes_down_while_it_rises_begins_once_more() {
        let steps = [(0, true), (50, true), (60, false), (70, true), (120, true), (170, true)];
        assert_eq!(walk(Phase::Pending, &steps), [100, 550, 100, 100, 550, 1000]);
    }

    #[test]
    fn without_slow_start_a_share_is_whole_at_once() {
        for phase in [Phase::Whole, Phase::Pending, Phase::Rising { since: Instant::now() }] {
            for serves in [true, false] {
                assert_eq!(next(phase, serves, Instant::now(), Duration::ZERO), (Phase::Whole, WHOLE));
            }
        }
    }
}
