//! The least speed of a request's body over HTTP/1, where the connection shows when the proxy waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::limits::body_rate::{BodyRate, STEP};

use super::timer::Timer;

/// Set beside the rate: the client waits for `100 Continue`, so its time counts from the first byte of its body.
const AFTER_FIRST_BYTE: u64 = 1 << 63;

/// The rate that holds for a body, and how it has arrived.
#[derive(Default)]
pub(super) struct SlowBody {
    /// Bytes a second; 0 = no limit. Set through a shared reference when the request head was read, and when the response
    /// begins; read by the task that reads the body.
    rate: AtomicU64,
    /// `None` until the proxy has waited for a byte.
    progress: Option<Box<Progress>>,
}

#[derive(Default)]
struct Progress {
    body: BodyRate,
    /// Since when, or since when it was last noted, the proxy waits.
    waits_since: Option<Instant>,
    timer: Option<Timer>,
}

impl SlowBody {
    /// The body of the request must arrive at this rate.
    pub(super) fn limit(&self, rate: u64, expects_continue: bool) {
        let wait = if expects_continue { AFTER_FIRST_BYTE } else { 0 };
        self.rate.store(rate.min(AFTER_FIRST_BYTE - 1) | wait, Ordering::Relaxed);
    }

    /// The client may take its time: its response has begun.
    pub(super) fn lift(&self) {
        self.rate.store(0, Ordering::Relaxed);
    }

    /// The next request begins.
    pub(super) fn reset(&mut self) {
        *self.rate.get_mut() = 0;
        self.progress = None;
    }

    /// Bytes of the body have arrived.
    pub(super) fn receive(&mut self, bytes: usize) {
        let rate = self.rate.get_mut();
        if *rate == 0 {
            return;
        }
        *rate &= !AFTER_FIRST_BYTE;
        let progress = self.progress.get_or_insert_default();
        if let Some(since) = progress.waits_since.take() {
            progress.body.wait(since.elapsed());
        }
        progress.body.receive(bytes as u64);
    }

    /// The proxy asks for bytes of the body, and there are none. Ready when it has arrived too slowly.
    pub(super) fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let rate = *self.rate.get_mut();
        if rate == 0 || rate & AFTER_FIRST_BYTE != 0 {
            return Poll::Pending;
        }
        let progress = self.progress.get_or_insert_default();
        loop {
            let now = Instant::now();
            // While the proxy waits it is here again after a step at the latest. If not, it was not waiting meanwhile.
            if let Some(since) = progress.waits_since.replace(now) {
                progress.body.wait(now.saturating_duration_since(since));
            }
            let left = progress.body.left(rate);
            if left.is_zero() {
                return Poll::Ready(());
            }
            let next = now + left.min(STEP);
            let timer = match &mut progress.timer {
                Some(timer) if timer.deadline() > now && timer.deadline() <= next => timer,
                timer => timer.insert(Timer::at(next)),
            };
            if timer.poll(context).is_pending() {
                return Poll::Pending;
            }
            progress.timer = None;
        }
    }
}
