//! What keeps a connection: connects, watches, and connects again, for as long as it is let live.
//!
//! A server that is frozen or cut off gives no error by itself, so both connections are asked every second. One that breaks
//! soon after it came is waited for longer and longer, up to two seconds, so that a server in trouble is not stormed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::sleep;
use tracing::debug;

use super::cluster::Node;
use super::dial::Dial;
use super::keys::Keys;
use super::link::Link;
use super::rebind;
use super::target::Target;
use super::topology;
use crate::store::engine::{Capabilities, Event, OnEvent, StoreError};

/// The first wait, which doubles.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What the operations and the supervisor share.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) keys: Keys,
    pub(super) dial: Dial,
    /// The supervisor writes it.
    state: ArcSwap<State>,
    /// Of the last server that answered; the supervisor writes it.
    known: ArcSwap<Capabilities>,
    /// Of a cluster, those that were found; the supervisor writes it.
    pub(super) nodes: ArcSwap<Vec<Node>>,
    on_event: OnEvent,
    /// Set once, by whoever ends the engine: the supervisor may be in the middle of a step.
    stopped: AtomicBool,
}

/// Whether there is a connection.
enum State {
    Up(Arc<Link>),
    /// And why not.
    Down(StoreError),
}

impl Shared {
    pub(super) fn new(target: Target, keys: Keys, dial: Dial, on_event: OnEvent) -> Self {
        let unknown =
            Capabilities { server: "unknown".to_owned(), compare_and_set: "script", announces: true, list: true };
        let down = State::Down(StoreError::Unreachable("there is no connection yet".to_owned()));
        Self {
            target,
            keys,
            dial,
            state: ArcSwap::from_pointee(down),
            known: ArcSwap::from_pointee(unknown),
            nodes: ArcSwap::default(),
            on_event,
            stopped: AtomicBool::new(false),
        }
    }

    /// No operation goes anywhere from now on, and nothing is told.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.withdraw(stopping());
    }

    /// The connection that stands now; waits for none.
    pub(super) fn link(&self) -> Result<Arc<Link>, StoreError> {
        match &**self.state.load() {
            _ if self.stopped.load(Ordering::Acquire) => Err(stopping()),
            State::Up(link) => Ok(Arc::clone(link)),
            State::Down(why) => Err(why.clone()),
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        let known = Capabilities::clone(&self.known.load());
        match self.link() {
            Ok(link) => Capabilities { compare_and_set: rebind::way(&link), ..known },
            Err(_) => known,
        }
    }

    pub(super) fn tell(&self, event: Event) {
        if !self.stopped.load(Ordering::Acquire) {
            (self.on_event)(event);
        }
    }

    /// From now on operations go this way.
    pub(super) fn publish(&self, link: Arc<Link>) {
        self.known.store(Arc::new(Capabilities {
            server: link.server.label.clone(),
            compare_and_set: rebind::way(&link),
            announces: link.announces,
            list: true,
        }));
        self.state.store(Arc::new(State::Up(link)));
    }

    /// From now on operations fail at once.
    pub(super) fn withdraw(&self, why: StoreError) {
        self.state.store(Arc::new(State::Down(why)));
    }
}

/// Whoever is told knows that it is lost.
fn reason(lost: StoreError) -> String {
    match lost {
        StoreError::Unreachable(reason) | StoreError::Refused(reason) | StoreError::Unreadable(reason) => reason,
        other => other.to_string(),
    }
}

fn stopping() -> StoreError {
    StoreError::Unreachable("the proxy is stopping".to_owned())
}

/// Keeps a connection until the task is ended.
pub(super) async fn supervise(shared: Arc<Shared>) {
    let mut told_lost = false;
    let mut attempt = 0;
    loop {
        let why = match topology::connect(&shared).await {
            Ok(standing) => {
                debug!(server = %standing.link.server.label, at = %standing.address, "connected to the store");
                told_lost = false;
                let steady = AtomicBool::new(false);
                shared.publish(Arc::clone(&standing.link));
                shared.tell(Event::Reconnected);
                let why = topology::watch(&shared, standing, &steady).await;
                if steady.into_inner() {
                    attempt = 0;
                }
                StoreError::Unreachable(why)
            }
            Err(failure) => failure.error,
        };
        shared.withdraw(why.clone());
        if !told_lost {
            shared.tell(Event::Lost(reason(why)));
            told_lost = true;
        }
        if attempt > 0 {
            sleep(wait(attempt, rand::random())).await;
        }
        attempt = attempt.saturating_add(1);
    }
}

/// How long to wait before the attempt after this many in vain: between half and all of a wait that doubles.
/// `random` is from 0 to 1.
fn wait(attempt: u32, random: f64) -> Duration {
    let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// The connection has been of use for a while.
pub(super) fn is_steady(steady: &AtomicBool) {
    steady.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_two_seconds() {
        let waits: Vec<_> = (1..=8).map(|attempt| wait(attempt, 1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_two_seconds_or_shorter_than_half_the_first(attempt: u32, random in 0.0..=1.0_f64) {
            let wait = wait(attempt, random);
            prop_assert!(wait <= LONGEST_WAIT && wait >= FIRST_WAIT / 2, "{wait:?}");
        }
    }
}
