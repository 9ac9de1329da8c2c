//! How a draining server empties: which sessions leave it when its `drain_deadline` is over, and how far it has come. Pure.
//!
//! After the deadline sessions leave at their next request, not all at one instant: each has its own moment within a window,
//! by a hash of its key, so that all proxies agree. Sessions have the first half of the window and open streams the second,
//! so that the client of a stream that was ended comes back to another server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;

/// The window is a quarter of the deadline, within these limits.
const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// When sessions and streams leave a draining server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainSchedule {
    /// The deadline.
    pub deadline: UnixMillis,
    window: Duration,
}

impl DrainSchedule {
    /// For a drain that started then, with this `drain_deadline`.
    pub fn new(started: UnixMillis, drain_deadline: Duration) -> Self {
        Self { deadline: started.plus(drain_deadline), window: (drain_deadline / 4).clamp(WINDOW.0, WINDOW.1) }
    }

    /// Whether the session leaves at a request of now.
    pub fn is_session_due(&self, key: SessionKey, now: UnixMillis) -> bool {
        now >= self.moment(fold(key), 0)
    }

    /// Whether a stream of this number is ended now.
    pub fn is_stream_due(&self, number: u64, now: UnixMillis) -> bool {
        now >= self.moment(number, 1)
    }

    /// Whether the window is over: no session has a reason to be there.
    pub fn is_over(&self, now: UnixMillis) -> bool {
        now >= self.deadline.plus(self.window)
    }

    /// The moment of a number in a half of the window.
    fn moment(&self, number: u64, half: u64) -> UnixMillis {
        let length = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX) / 2;
        let offset = (u128::from(mix(number)) * u128::from(length)) >> u64::BITS;
        UnixMillis(self.deadline.0 + half * length + u64::try_from(offset).unwrap_or(length))
    }
}

/// Both halves of a key.
fn fold(key: SessionKey) -> u64 {
    let low = u64::try_from(key.0 & u128::from(u64::MAX)).unwrap_or_default();
    low ^ u64::try_from(key.0 >> u64::BITS).unwrap_or_default()
}

/// As splitmix64 does: the ring uses the key as it is, and neighbours on the ring should not leave together.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What a server's live state knows of its drain. Relaxed: nothing is published by it.
#[derive(Debug, Default)]
pub struct LiveDrain {
    /// When it started, in Unix milliseconds; 0 = it does not drain.
    started: AtomicU64,
    /// When the last token that names the server was issued; 0 = none.
    last_token: AtomicU64,
}

impl LiveDrain {
    /// When the drain started; `None` = the server does not drain, or was not seen draining yet.
    pub fn started(&self) -> Option<UnixMillis> {
        at(&self.started)
    }

    /// Notes whether the server drains now. `set_at`: when an operator set it to, which may be before this process started.
    pub fn observe(&self, drains: bool, set_at: Option<UnixMillis>, now: UnixMillis) {
        let before = self.started();
        if drains && before.is_none() {
            self.started.store(set_at.map_or(now, |set_at| set_at.min(now)).0, Ordering::Relaxed);
        } else if !drains && before.is_some() {
            self.started.store(0, Ordering::Relaxed);
        }
    }

    /// A token that names the server is given to a client.
    pub fn token_issued(&self, now: UnixMillis) {
        self.last_token.store(now.0, Ordering::Relaxed);
    }

    /// When that was last.
    pub fn last_token(&self) -> Option<UnixMillis> {
        at(&self.last_token)
    }
}

fn at(time: &AtomicU64) -> Option<UnixMillis> {
    Some(UnixMillis(time.load(Ordering::Relaxed))).filter(|time| time.0 > 0)
}

/// What is known of a draining server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainFacts {
    /// When the drain started.
    pub started: UnixMillis,
    /// The pool's `drain_deadline`.
    pub drain_deadline: Option<Duration>,
    /// Sessions in the table that are bound to the server.
    pub bound: u64,
    /// The pool's `idle_timeout`; `None` = it keeps no sessions.
    pub idle_timeout: Option<Duration>,
    /// When the last token that names the server was issued by this process.
    pub last_token: Option<UnixMillis>,
    /// The same by an earlier process, at the latest, where the table does not have the session; `None` = it has all.
    pub last_earlier_token: Option<UnixMillis>,
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainProgress {
    /// When it started.
    pub started: UnixMillis,
    /// When the sessions that are left begin to move.
    pub deadline: Option<UnixMillis>,
    /// Sessions in the table that are bound to the server.
    pub bound: u64,
    /// Until then a client with a token that the table does not know may still come; `None` = none can.
    pub silent_until: Option<UnixMillis>,
    /// Nothing is bound and no client can still come.
    pub empty: bool,
}

impl DrainProgress {
    /// From what is known now.
    pub fn of(facts: &DrainFacts, now: UnixMillis) -> Self {
        let schedule = facts.drain_deadline.map(|after| DrainSchedule::new(facts.started, after));
        let is_over = schedule.is_some_and(|schedule| schedule.is_over(now));
        let silent_until = facts.idle_timeout.filter(|_| !is_over).and_then(|idle| {
            let last = facts.last_token.max(facts.last_earlier_token)?;
            Some(last.plus(idle)).filter(|until| *until > now)
        });
        Self {
            started: facts.started,
            deadline: schedule.map(|schedule| schedule.deadline),
            bound: facts.bound,
            silent_until,
            empty: facts.bound == 0 && silent_until.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixMillis = UnixMillis(1_790_000_000_000);

    fn after(seconds: f64) -> UnixMillis {
        START.plus(Duration::from_secs_f64(seconds))
    }

    proptest! {
        #[test]
        fn before_the_deadline_nothing_leaves_and_after_the_window_everything_has_left(
            key: u128,
            number: u64,
            deadline in 1_u64..100_000,
        ) {
            let deadline = Duration::from_secs(deadline);
            let schedule = DrainSchedule::new(START, deadline);
            let window = (deadline / 4).clamp(Duration::from_secs(1), Duration::from_secs(60));
            let just_before = UnixMillis(schedule.deadline.0 - 1);
            prop_assert!(!schedule.is_session_due(SessionKey(key), just_before));
            prop_assert!(!schedule.is_stream_due(number, just_before));
            prop_assert!(!schedule.is_over(just_before));
            let half = START.plus(deadline + window / 2);
            prop_assert!(schedule.is_session_due(SessionKey(key), half), "before its streams are ended");
            prop_assert!(!schedule.is_stream_due(number, UnixMillis(half.0 - 1)));
            let end = START.plus(deadline + window);
            prop_assert!(schedule.is_stream_due(number, end) && schedule.is_over(end));
        }

        #[test]
        fn what_is_due_stays_due(key: u128, first in 0_u64..200_000, later in 0_u64..200_000) {
            let schedule = DrainSchedule::new(START, Duration::from_secs(60));
            let (first, later) = (first.min(later), first.max(later));
            let due = |at: u64| schedule.is_session_due(SessionKey(key), UnixMillis(START.0 + at));
            prop_assert!(!due(first) || due(later));
        }
    }

    #[test]
    fn sessions_leave_evenly_over_their_half_of_the_window() {
        let schedule = DrainSchedule::new(START, Duration::from_secs(240));
        let due = |seconds: f64| {
            let key = |n: u128| SessionKey(n << 64);
            (0..1000).filter(|n| schedule.is_session_due(key(*n), after(seconds))).count()
        };
        assert_eq!((due(240.0), due(270.0)), (0, 1000));
        for (seconds, share) in [(247.5, 250), (255.0, 500), (262.5, 750)] {
            assert!(due(seconds).abs_diff(share) < 60, "{} after {seconds} s", due(seconds));
        }
    }

    #[test]
    fn the_clock_starts_with_the_state_and_not_again() {
        let drain = LiveDrain::default();
        drain.observe(false, None, START);
        assert_eq!(drain.started(), None);
        drain.observe(true, None, after(1.0));
        drain.observe(true, Some(after(2.0)), after(3.0));
        assert_eq!(drain.started(), Some(after(1.0)));
        drain.observe(false, None, after(4.0));
        assert_eq!(drain.started(), None);
        drain.observe(true, Some(after(2.0)), after(5.0));
        assert_eq!(drain.started(), Some(after(2.0)), "set before this process started");
        drain.observe(false, None, after(6.0));
        drain.observe(true, Some(after(60.0)), after(7.0));
        assert_eq!(drain.started(), Some(after(7.0)), "by a clock that is ahead");
    }

    const FACTS: DrainFacts = DrainFacts {
        started: START,
        drain_deadline: None,
        bound: 0,
        idle_timeout: Some(Duration::from_secs(30)),
        last_token: None,
        last_earlier_token: None,
    };

    #[test]
    fn a_server_is_empty_once_nothing_is_bound_and_no_client_with_a_token_can_come() {
        let progress = |facts: DrainFacts, seconds| DrainProgress::of(&facts, after(seconds));
        assert!(progress(FACTS, 0.0).empty);
        assert!(!progress(DrainFacts { bound: 1, ..FACTS }, 1e6).empty);
        let token = DrainFacts { last_token: Some(START), ..FACTS };
        assert_eq!(progress(token, 29.0).silent_until, Some(after(30.0)));
        assert!(!progress(token, 29.0).empty && progress(token, 30.0).empty);
        let restarted = DrainFacts { last_earlier_token: Some(after(5.0)), ..token };
        assert_eq!(progress(restarted, 30.0).silent_until, Some(after(35.0)));
        assert!(progress(DrainFacts { idle_timeout: None, ..restarted }, 0.0).empty, "without sessions");
    }

    #[test]
    fn after_the_deadline_no_client_can_come_any_more() {
        let facts = DrainFacts { drain_deadline: Some(Duration::from_secs(8)), last_token: Some(START), ..FACTS };
        let progress = |seconds| DrainProgress::of(&facts, after(seconds));
        assert_eq!(progress(1.0).deadline, Some(after(8.0)));
        assert!(!progress(9.9).empty, "within the window the last ones still come");
        assert!(progress(10.0).empty);
    }
}
