//! The circuit breaker of a server: requests show that it fails, and it gets none for some time.
//!
//! - `closed`: the server gets requests. Failures in a row are counted; enough of them eject it.
//! - `open`: it was ejected and gets no request until the ejection is over.
//! - `half_open`: it gets one request at a time, a probe. A success closes the breaker, a failure ejects the server again, for
//!   twice the time. A probe without a result (its client left) makes room for the next one.
//!
//! [`Breaker`] is the state machine, which is given the time. [`LiveBreaker`] is the breaker of a live server: the machine
//! behind a lock, and what the usual request needs of it in one word.

use std::time::{Duration, Instant};

use crate::config::CircuitBreaker as Settings;

pub use self::live::LiveBreaker;

mod live;

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum BreakerState {
    /// The server gets requests.
    Closed,
    /// It gets none.
    Open,
    /// It gets one at a time.
    HalfOpen,
}

impl BreakerState {
    /// For logs, metrics and the admin API.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// What an attempt is to the breaker: its result counts only in the period in which it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    epoch: u32,
    probe: bool,
}

impl Ticket {
    /// The attempt is the probe of a half-open breaker.
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

/// The state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// Ejections so far without a pause between two that would end the series.
    ejections: u32,
    /// Rises whenever the breaker opens or closes.
    epoch: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// `since`: it was open before.
    Closed {
        failures: u32,
        since: Option<Instant>,
    },
    Open {
        since: Instant,
    },
    HalfOpen {
        probing: bool,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self { phase: Phase::Closed { failures: 0, since: None }, ejections: 0, epoch: 0 }
    }
}

impl Breaker {
    /// The state.
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        match self.phase {
            Phase::Closed { failures, .. } => failures,
            Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        }
    }

    /// The server gets no further request now: its breaker is open, or the probe is under way.
    pub fn excludes(&self) -> bool {
        matches!(self.phase, Phase::Open { .. } | Phase::HalfOpen { probing: true })
    }

    /// Begins an attempt; `None`: the server gets no request now.
    pub fn begin(&mut self) -> Option<Ticket> {
        let probe = match &mut self.phase {
            Phase::Closed { .. } => false,
            Phase::HalfOpen { probing } if !*probing => {
                *probing = true;
                true
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => return None,
        };
        Some(Ticket { epoch: self.epoch, probe })
    }

    /// The server has responded as it should.
    pub fn succeed(&mut self, ticket: Ticket, now: Instant) {
        match &mut self.phase {
            _ if ticket.epoch != self.epoch => {}
            Phase::Closed { failures, .. } => *failures = 0,
            Phase::HalfOpen { .. } if ticket.probe => self.close(now),
            Phase::Open { .. } | Phase::HalfOpen { .. } => {}
        }
    }

    /// The server has failed an attempt. `may_eject`: asked when that is enough to eject it.
    pub fn fail(&mut self, ticket: Ticket, now: Instant, settings: &Settings, may_eject: impl FnOnce() -> bool) {
        match &mut self.phase {
            _ if ticket.epoch != self.epoch => {}
            Phase::Closed { failures, since } => {
                *failures = failures.saturating_add(1);
                if *failures < settings.consecutive_failures || !may_eject() {
                    return;
                }
                let closed_for = since.map(|since| now.saturating_duration_since(since));
                if closed_for.is_some_and(|closed_for| closed_for >= self.ejection(settings)) {
                    self.ejections = 0;
                }
                self.open(now);
            }
            Phase::HalfOpen { .. } if ticket.probe => self.open(now),
            Phase::Open { .. } | Phase::HalfOpen { .. } => {}
        }
    }

    /// An attempt has ended without a result.
    pub fn abandon(&mut self, ticket: Ticket) {
        if ticket.probe && ticket.epoch == self.epoch && matches!(self.phase, Phase::HalfOpen { .. }) {
            self.phase = Phase::HalfOpen { probing: false };
        }
    }

    /// Time has passed: an ejection that is over makes the breaker half-open.
    pub fn tick(&mut self, now: Instant, settings: &Settings) {
        if let Phase::Open { since } = self.phase
            && now.saturating_duration_since(since) >= self.ejection(settings)
        {
            self.phase = Phase::HalfOpen { probing: false };
        }
    }

    /// Closes it, whatever attempts show.
    pub fn close(&mut self, now: Instant) {
        if self.state() != BreakerState::Closed {
            self.phase = Phase::Closed { failures: 0, since: Some(now) };
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    /// Forgets everything: the pool has no breaker any more.
    pub fn reset(&mut self) {
        *self = Self { epoch: self.epoch.wrapping_add(1), ..Self::default() };
    }

    /// When it opened; `None` while it is not open.
    pub fn opened_at(&self) -> Option<Instant> {
        if let Phase::Open { since } = self.phase { Some(since) } else { None }
    }

    /// How long the last ejection lasts.
    pub fn ejection(&self, settings: &Settings) -> Duration {
        // 2³¹ times a millisecond is more than the longest that can be configured.
        let factor = 1_u32 << self.ejections.saturating_sub(1).min(31);
        settings.ejection_time.saturating_mul(factor).min(settings.max_ejection_time)
    }

    fn open(&mut self, now: Instant) {
        self.ejections = self.ejections.saturating_add(1);
        self.phase = Phase::Open { since: now };
        self.epoch = self.epoch.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
