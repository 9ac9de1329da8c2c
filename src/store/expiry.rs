//! When a session is over: the table's clock, the limits of a pool, and how fast to look for the expired.
//!
//! Times inside the table are ticks of 100 ms in 32 bits, which halves a record. They count from a base two years
//! before the table was made, so that a session restored from a token keeps its true age (a token lives 400 days at
//! most), and they last for eleven years after it. Outside of that range they saturate.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use strum::{IntoStaticStr, VariantNames};

use crate::session::token::UnixMillis;

/// A moment on the table's clock, in ticks.
pub(super) type Tick = u32;

/// The table's clock: wall-clock times to ticks and back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    /// Tick 0, in Unix milliseconds. Never changes after construction.
    base: u64,
}

impl Ticks {
    const MILLIS: u64 = 100;
    const BEFORE_START: u64 = 2 * 366 * 24 * 60 * 60 * 1000;

    pub(super) fn starting(now: UnixMillis) -> Self {
        Self { base: now.0.saturating_sub(Self::BEFORE_START) }
    }

    pub(super) fn at(self, time: UnixMillis) -> Tick {
        let ticks = time.0.saturating_sub(self.base) / Self::MILLIS;
        Tick::try_from(ticks).unwrap_or(Tick::MAX)
    }

    pub(super) fn millis(self, tick: Tick) -> UnixMillis {
        UnixMillis(self.base.saturating_add(u64::from(tick) * Self::MILLIS))
    }

    /// Ticks as a duration.
    fn span(ticks: u32) -> Duration {
        Duration::from_millis(u64::from(ticks) * Self::MILLIS)
    }

    /// A length of time in ticks, rounded up: a session is never ended before its time.
    fn length(time: Duration) -> u32 {
        let ticks = time.as_millis().div_ceil(u128::from(Self::MILLIS));
        u32::try_from(ticks).unwrap_or(Limits::NONE)
    }
}

/// How long the sessions of one pool may live. Shared by all targets of the pool.
#[derive(Debug)]
pub(super) struct Limits {
    /// In ticks. Read by every visit and sweep, written by a reload; relaxed, because each is a value of its own and a
    /// visit that still sees the old limit for a moment does no harm.
    idle: AtomicU32,
    /// As `idle`.
    absolute: AtomicU32,
}

impl Limits {
    /// No limit: what a pool has before one is set.
    const NONE: u32 = u32::MAX;

    pub(super) fn none() -> Self {
        Self { idle: AtomicU32::new(Self::NONE), absolute: AtomicU32::new(Self::NONE) }
    }

    pub(super) fn set(&self, idle: Duration, absolute: Duration) {
        self.idle.store(Ticks::length(idle), Relaxed);
        self.absolute.store(Ticks::length(absolute), Relaxed);
    }

    /// Whether a session is over, and why. Age decides first: no visit can renew it. A time from the future (a clock
    /// was set back) counts as now.
    #[inline]
    pub(super) fn verdict(&self, created: Tick, last_seen: Tick, now: Tick) -> Option<EndReason> {
        if now.saturating_sub(created) > self.absolute.load(Relaxed) {
            Some(EndReason::Absolute)
        } else if now.saturating_sub(last_seen) > self.idle.load(Relaxed) {
            Some(EndReason::Idle)
        } else {
            None
        }
    }

    /// How long a session may stay away, to the tenth of a second; thirteen years by default.
    pub(super) fn idle(&self) -> Duration {
        Ticks::span(self.idle.load(Relaxed))
    }

    /// How long a session may exist.
    pub(super) fn absolute(&self) -> Duration {
        Ticks::span(self.absolute.load(Relaxed))
    }

    /// The shorter of both limits, or none.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let ticks = self.idle.load(Relaxed).min(self.absolute.load(Relaxed));
        (ticks != Self::NONE).then(|| Ticks::span(ticks))
    }
}

/// How fast the background task must sweep: so many steps, every so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The pause between two bursts of steps.
    pub every: Duration,
    /// How many steps to take after each pause.
    pub steps: NonZeroUsize,
}

impl Pace {
    /// A whole round takes a quarter of the shortest limit, so that the dead take at most that much longer to leave,
    /// and never more than half a minute.
    const LONGEST_ROUND: Duration = Duration::from_secs(30);
    /// Tests and demonstrations use limits of a second; sweeping faster than this has no use.
    const SHORTEST_ROUND: Duration = Duration::from_millis(250);
    /// Waking up more often costs more than the steps do.
    const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

    pub(super) fn of(shortest_limit: Option<Duration>, steps_per_round: usize) -> Self {
        let round = shortest_limit.map_or(Self::LONGEST_ROUND, |limit| limit / 4);
        let round = round.clamp(Self::SHORTEST_ROUND, Self::LONGEST_ROUND);
        let steps_per_round = u32::try_from(steps_per_round).unwrap_or(u32::MAX).max(1);
        let every = (round / steps_per_round).max(Self::SHORTEST_PAUSE);
        let pauses = (round.as_nanos() / every.as_nanos()).max(1);
        let steps = u128::from(steps_per_round).div_ceil(pauses);
        Self { every, steps: usize::try_from(steps).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN) }
    }
}

/// Why a session left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum EndReason {
    /// Not seen for longer than its pool's idle limit.
    Idle,
    /// Older than its pool's absolute limit.
    Absolute,
    /// The table was full, and this session had been idle the longest of a sample.
    Evicted,
    /// Ended by its server.
    Ended,
    /// Ended by an operator.
    Admin,
}

impl EndReason {
    /// The word for metrics and logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    #[test]
    fn a_time_survives_the_tables_clock_to_the_tenth_of_a_second() {
        let ticks = Ticks::starting(NOW);
        for offset in [0_u64, 99, 100, 86_400_000, 10 * 365 * 86_400_000] {
            let time = UnixMillis(NOW.0 + offset);
            let back = ticks.millis(ticks.at(time));
            assert!(back <= time && time.0 - back.0 < 100, "{time:?} came back as {back:?}");
        }
    }

    #[test]
    fn a_session_of_four_hundred_days_keeps_its_age() {
        let ticks = Ticks::starting(NOW);
        let created = UnixMillis(NOW.0 - 400 * 86_400_000);
        assert_eq!(ticks.millis(ticks.at(created)), created);
    }

    #[test]
    fn absurd_times_saturate_both_ways() {
        let ticks = Ticks::starting(NOW);
        assert_eq!(ticks.at(UnixMillis(0)), 0);
        assert_eq!(ticks.at(UnixMillis(u64::MAX)), Tick::MAX);
        assert_eq!(Ticks::starting(UnixMillis(0)).at(UnixMillis(0)), 0);
    }

    #[test]
    fn a_limit_is_reached_only_after_it_has_passed() {
        let limits = Limits::none();
        limits.set(Duration::from_millis(1_001), Duration::from_secs(60));
        assert_eq!(limits.verdict(0, 0, 11), None, "1,001 ms are rounded up to 11 ticks");
        assert_eq!(limits.verdict(0, 0, 12), Some(EndReason::Idle));
        assert_eq!(limits.verdict(0, 600, 601), Some(EndReason::Absolute), "age decides even if it was just here");
        assert_eq!(limits.verdict(700, 700, 1), None, "a time from the future is now");
    }

    #[test]
    fn no_limits_never_end_a_session() {
        assert_eq!(Limits::none().verdict(0, 0, Tick::MAX), None);
        assert_eq!(Limits::none().shortest(), None);
    }

    #[test]
    fn a_round_of_sweeping_takes_a_quarter_of_the_limit_and_half_a_minute_at_most() {
        for (limit, shards, round) in [
            (Some(Duration::from_secs(1800)), 32_768_usize, 30.0_f64),
            (Some(Duration::from_secs(1800)), 2, 30.0),
            (Some(Duration::from_secs(8)), 4_096, 2.0),
            (Some(Duration::from_millis(1)), 64, 0.25),
            (None, 1 << 20, 30.0),
        ] {
            let pace = Pace::of(limit, shards);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let takes = (shards as f64 / pace.steps.get() as f64).ceil() * pace.every.as_secs_f64();
            assert!(takes <= round * 1.05, "{shards} shards take {takes} s, allowed {round}");
            assert!(pace.every >= Pace::SHORTEST_PAUSE);
        }
    }
}
