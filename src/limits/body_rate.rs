//! How fast the body of a request arrives, while the proxy waits for it.

use std::time::Duration;

/// A body may be slower than its rate for so long.
pub const GRACE: Duration = Duration::from_secs(5);
/// Waiting is noted at least this often. Of a longer pause no more is counted: the proxy was busy elsewhere meanwhile, with a
/// slow server perhaps.
pub const STEP: Duration = Duration::from_millis(500);

/// What has arrived, and how long the proxy has waited for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct BodyRate {
    received: u64,
    waited: Duration,
}

impl BodyRate {
    /// Bytes have arrived.
    pub fn receive(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// The proxy has waited for bytes.
    pub fn wait(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time.min(STEP));
    }

    /// How long the proxy still waits for the next byte, at this rate of bytes a second; zero: the body is too slow.
    pub fn left(&self, rate: u64) -> Duration {
        let due = u64::try_from(u128::from(self.received) * 1000 / u128::from(rate.max(1))).unwrap_or(u64::MAX);
        Duration::from_millis(due).max(GRACE).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes after every half second of waiting; after how many of them the body is too slow.
    fn steps_until_slow(bytes: u64, rate: u64) -> Option<u32> {
        let mut body = BodyRate::default();
        (1..1000).find(|_| {
            body.wait(STEP);
            if body.left(rate).is_zero() {
                return true;
            }
            body.receive(bytes);
            false
        })
    }

    #[test]
    fn a_body_may_be_slow_for_five_seconds() {
        assert_eq!(steps_until_slow(0, 1000), Some(10));
        assert_eq!(steps_until_slow(499, 1000), Some(10));
        assert_eq!(steps_until_slow(600, 1000), None, "fast enough");
    }

    #[test]
    fn a_body_that_was_fast_may_pause_for_as_long_as_its_bytes_are_worth() {
        let mut body = BodyRate::default();
        body.receive(20_000);
        assert_eq!(body.left(1000), Duration::from_secs(20));
        body.wait(Duration::from_secs(3600));
        assert_eq!(body.left(1000), Duration::from_millis(19_500), "the proxy was not waiting");
        assert!(BodyRate { received: u64::MAX, ..body }.left(1) > Duration::from_secs(1 << 40));
        assert_eq!(BodyRate::default().left(u64::MAX), GRACE);
    }
}
