//! A deadline of a connection that changes with every request, on one timer.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::timer::Timer;

/// The deadline; there is none until it is polled.
#[derive(Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    /// Set again from request to request.
    timer: Option<Timer>,
}

impl Deadline {
    /// The next poll sets another one.
    pub(super) fn clear(&mut self) {
        self.at = None;
    }

    /// Ready when the deadline has passed. The first poll sets it.
    pub(super) fn poll(&mut self, timeout: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.at.get_or_insert_with(|| Instant::now() + timeout);
        let timer = self.timer.get_or_insert_with(|| Timer::at(deadline));
        // Every request has a later deadline. A timer that is set too early is left as it is, and set again only when it
        // fires: once a pause, instead of once a request.
        if timer.deadline() > deadline {
            *timer = Timer::at(deadline);
        }
        loop {
            ready!(timer.poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            *timer = Timer::at(deadline);
        }
    }
}
