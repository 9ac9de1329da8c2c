//! The pauses between attempts to connect.

use std::time::Duration;

/// Pauses that double, up to two seconds.
pub(in crate::store) struct Backoff {
    next: Duration,
}

const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

impl Backoff {
    pub(in crate::store) const fn new() -> Self {
        Self { next: MIN_PAUSE }
    }

    /// A connection has lasted: the next pause is the shortest again.
    pub(in crate::store) const fn reset(&mut self) {
        *self = Self::new();
    }

    /// The next pause. Half of it is random, so that proxies do not reconnect all at once.
    pub(in crate::store) fn pause(&mut self) -> Duration {
        self.pause_at(rand::random())
    }

    /// `random` is from 0 to 1.
    fn pause_at(&mut self, random: f64) -> Duration {
        let pause = self.next.mul_f64(0.5 + random / 2.0);
        self.next = (self.next * 2).min(MAX_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_two_seconds_until_a_connection_has_lasted() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause_at(1.0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.pause_at(0.0), MAX_PAUSE / 2);
        backoff.reset();
        let pause = backoff.pause();
        assert!((MIN_PAUSE / 2..=MIN_PAUSE).contains(&pause), "{pause:?}");
    }
}
