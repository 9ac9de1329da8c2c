//! Whether a server accepts requests: one rule over the operator's state, the health checks, the circuit breaker, the
//! limit of requests in flight and the resolved address.

use crate::config::ServerState;

/// The result of a server's health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::FromRepr, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[repr(u8)]
pub enum Health {
    /// Not checked yet.
    Unknown = 0,
    /// Healthy, or without health checks.
    Up = 1,
    /// Healthy, and declines new sessions (`drain_status`).
    Draining = 2,
    /// Failed its checks.
    Down = 3,
}

impl Health {
    /// From the number in an atomic.
    pub fn from_u8(number: u8) -> Self {
        Self::from_repr(number).unwrap_or(Self::Unknown)
    }

    /// For logs and errors.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// Which requests a server accepts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// New and bound sessions.
    Accepting,
    /// The same, once it has room: it has as many requests in flight as it may have, and the next one waits.
    Full,
    /// Bound sessions only: draining, set by the operator or by the server itself.
    BoundOnly,
    /// None: `maint`, set by the operator.
    Maint,
    /// None: it failed its checks, is not checked yet, or its host name has no address.
    Down,
    /// None: its circuit breaker is open, or half-open with a probe under way.
    Ejected,
}

impl Condition {
    /// Applies the rule. `ejected`: the circuit breaker lets no request pass now. `full`: no more requests may be in flight.
    pub fn of(state: ServerState, health: Health, ejected: bool, full: bool, has_address: bool) -> Self {
        match (state, health) {
            (ServerState::Maint, _) => Self::Maint,
            (_, Health::Unknown | Health::Down) => Self::Down,
            _ if !has_address => Self::Down,
            _ if ejected => Self::Ejected,
            (ServerState::Drain, _) | (_, Health::Draining) => Self::BoundOnly,
            (ServerState::Ready, Health::Up) if full => Self::Full,
            (ServerState::Ready, Health::Up) => Self::Accepting,
        }
    }

    /// Accepts requests of sessions that are bound to it, though they may have to wait.
    pub fn accepts_bound(self) -> bool {
        matches!(self, Self::Accepting | Self::Full | Self::BoundOnly)
    }

    /// Accepts new sessions, if it has a weight.
    pub fn accepts_new(self) -> bool {
        self == Self::Accepting
    }

    /// Accepts them, though they may have to wait.
    pub fn takes_new(self) -> bool {
        matches!(self, Self::Accepting | Self::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_maint_beats_every_check() {
        for health in [Health::Unknown, Health::Up, Health::Draining, Health::Down] {
            assert_eq!(Condition::of(ServerState::Maint, health, false, false, true), Condition::Maint);
            assert_eq!(Condition::of(ServerState::Maint, health, true, false, true), Condition::Maint);
        }
    }

    #[test]
    fn a_draining_server_keeps_its_sessions_and_accepts_no_new_ones() {
        for (state, health) in [(ServerState::Drain, Health::Up), (ServerState::Ready, Health::Draining)] {
            let condition = Condition::of(state, health, false, false, true);
            assert!(condition.accepts_bound() && !condition.accepts_new(), "{state:?} {health:?}");
        }
    }

    #[test]
    fn a_server_that_is_down_unchecked_or_without_address_accepts_no_request() {
        assert_eq!(Condition::of(ServerState::Ready, Health::Down, false, false, true), Condition::Down);
        assert_eq!(Condition::of(ServerState::Drain, Health::Down, false, false, true), Condition::Down);
        assert_eq!(Condition::of(ServerState::Ready, Health::Unknown, false, false, true), Condition::Down);
        assert_eq!(Condition::of(ServerState::Ready, Health::Up, false, false, false), Condition::Down);
    }

    #[test]
    fn an_ejected_server_accepts_no_request_and_health_checks_come_first() {
        for (state, health) in
            [(ServerState::Ready, Health::Up), (ServerState::Drain, Health::Up), (ServerState::Ready, Health::Draining)]
        {
            assert_eq!(Condition::of(state, health, true, false, true), Condition::Ejected, "{state:?} {health:?}");
        }
        assert_eq!(Condition::of(ServerState::Ready, Health::Down, true, false, true), Condition::Down);
    }

    #[test]
    fn a_full_server_keeps_its_sessions_and_may_still_be_draining_or_down() {
        let full = |state, health| Condition::of(state, health, false, true, true);
        let condition = full(ServerState::Ready, Health::Up);
        assert!(condition.accepts_bound() && condition.takes_new() && !condition.accepts_new());
        assert_eq!(full(ServerState::Drain, Health::Up), Condition::BoundOnly);
        assert_eq!(full(ServerState::Ready, Health::Down), Condition::Down);
    }

    #[test]
    fn health_survives_the_conversion_to_a_number() {
        for health in [Health::Unknown, Health::Up, Health::Draining, Health::Down] {
            assert_eq!(Health::from_u8(health as u8), health);
        }
    }
}
