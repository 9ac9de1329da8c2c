//! A deadline of a connection that changes with every request, on one timer.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The deadline; there is none until it is polled.
#[derive(Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    /// Reset from request to request.
    timer: Option<Pin<Box<Sleep>>>,
    /// The task that the timer wakes.
    waker: Option<Waker>,
}

impl Deadline {
    /// The next poll sets another one.
    pub(super) fn clear(&mut self) {
        self.at = None;
    }

    /// Ready when the deadline has passed. The first poll sets it.
    pub(super) fn poll(&mut self, timeout: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.at.get_or_insert_with(|| Instant::now() + timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // Every request has a later deadline. A timer that is set too early is left as it is, and reset only when it fires:
        // once a pause, instead of once a request.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
            self.waker = None;
        }
        // It is already set to wake the same task at the same time or earlier.
        let is_set = self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if is_set && timer.deadline() <= deadline && !timer.is_elapsed() {
            return Poll::Pending;
        }
        self.waker = Some(context.waker().clone());
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
