//! How far the body of an HTTP/2 request has come, and how long the next piece of it may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pingora::http::RequestHeader;
use tokio::time::Instant;

/// How far the body of a request has come: written by its hooks, read from outside of them.
#[derive(Debug, Clone)]
pub(crate) struct BodyProgress(Arc<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    /// The request's head, for the log: when the request is dropped, its own is gone.
    head: RequestHeader,
    dropped: AtomicBool,
    /// Milliseconds from `begun` until the request is dropped; `u64::MAX`: it is not.
    deadline: AtomicU64,
    /// Milliseconds that the next piece of the body may take.
    timeout: AtomicU64,
}

impl BodyProgress {
    /// Of a request with this head, whose body was not asked for yet.
    pub(crate) fn new(head: RequestHeader) -> Self {
        let never = || AtomicU64::new(u64::MAX);
        let (begun, dropped) = (Instant::now(), AtomicBool::new(false));
        Self(Arc::new(State { begun, head, dropped, deadline: never(), timeout: never() }))
    }

    /// The request is dropped, since the next piece of its body did not arrive in time.
    pub(crate) fn drop_request(&self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }

    /// Its head, when it was dropped.
    pub(crate) fn dropped(&self) -> Option<&RequestHeader> {
        self.0.dropped.load(Ordering::Relaxed).then_some(&self.0.head)
    }

    /// How long each piece of the body may take, from when it is asked for.
    pub(crate) fn limit(&self, timeout: Duration) {
        self.0.timeout.store(millis(timeout), Ordering::Relaxed);
    }

    /// The next piece of the body is asked for.
    pub(crate) fn await_piece(&self) {
        let timeout = self.0.timeout.load(Ordering::Relaxed);
        self.0.deadline.store(self.now().saturating_add(timeout), Ordering::Relaxed);
    }

    /// The body is complete, or its client may take its time: it gets a response meanwhile.
    pub(crate) fn await_nothing(&self) {
        self.0.deadline.store(u64::MAX, Ordering::Relaxed);
    }

    /// The response was sent; the rest of the body is only read so that the client can read the response.
    pub(crate) fn end_within(&self, limit: Duration) {
        self.0.deadline.store(self.now().saturating_add(millis(limit)), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        millis(self.0.begun.elapsed())
    }

    /// How long until the request is dropped.
    pub(crate) fn left(&self) -> Duration {
        Duration::from_millis(self.0.deadline.load(Ordering::Relaxed).saturating_sub(self.now()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_long_as_long_as_it_moves() {
        let head = RequestHeader::build("POST", b"/", None).unwrap();
        let progress = BodyProgress::new(head);
        progress.limit(Duration::from_secs(2));
        assert!(progress.left() > Duration::from_secs(1000), "before it is asked for");
        for _ in 0..5 {
            progress.await_piece();
            tokio::time::advance(Duration::from_millis(1900)).await;
            assert!(!progress.left().is_zero());
        }
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(progress.left().is_zero());
        progress.await_nothing();
        assert!(!progress.left().is_zero());
        progress.end_within(Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert!(progress.left().is_zero());
    }
}
