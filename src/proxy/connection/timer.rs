//! A timer on Pingora's clock, accurate to 10 ms.
//!
//! With one of Tokio's set, the runtime reads the clock twice more each time it waits for events, and looks for the timer
//! that is due next: some 600 instructions a request, for a deadline that hardly ever passes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pingora::time::sleep;

/// Wakes the task that polled it last.
pub(super) struct Timer {
    deadline: Instant,
    /// `None` when it has fired.
    sleep: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Timer {
    pub(super) fn at(deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(Instant::now());
        Self { deadline, sleep: Some(Box::pin(sleep(left))) }
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Ready when the deadline has passed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}
