//! May this server take this request? The one rule, over what the operator wants, what checks say, and what is known
//! of its address.

use crate::config::ServerState;

/// What checks say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// No verdict yet.
    Unknown = 0,
    /// Well, or not checked at all.
    Up = 1,
    /// Alive, and asks for no new sessions (`drain_status`).
    Draining = 2,
    /// Found down.
    Down = 3,
}

impl Health {
    /// From the number that an atomic holds.
    pub fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Up,
            2 => Self::Draining,
            3 => Self::Down,
            _ => Self::Unknown,
        }
    }

    /// For logs and errors.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// Whom a server takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// New sessions and bound ones.
    Open,
    /// Bound sessions only: draining, by the operator's wish or its own.
    BoundOnly,
    /// Nobody, since the operator said so.
    Maint,
    /// Nobody, since checks say so, no check has said anything yet, or its name has no address.
    Down,
}

impl Condition {
    /// The rule.
    pub fn of(state: ServerState, health: Health, has_address: bool) -> Self {
        match (state, health) {
            (ServerState::Maint, _) => Self::Maint,
            (_, Health::Unknown | Health::Down) => Self::Down,
            _ if !has_address => Self::Down,
            (ServerState::Drain, _) | (_, Health::Draining) => Self::BoundOnly,
            (ServerState::Ready, Health::Up) => Self::Open,
        }
    }

    /// It may serve the sessions that are bound to it.
    pub fn takes_bound(self) -> bool {
        matches!(self, Self::Open | Self::BoundOnly)
    }

    /// It may take new sessions, weight permitting.
    pub fn takes_new(self) -> bool {
        self == Self::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_maint_beats_every_check() {
        for health in [Health::Unknown, Health::Up, Health::Draining, Health::Down] {
            assert_eq!(Condition::of(ServerState::Maint, health, true), Condition::Maint);
        }
    }

    #[test]
    fn a_draining_server_keeps_its_own_and_takes_no_new() {
        for (state, health) in [(ServerState::Drain, Health::Up), (ServerState::Ready, Health::Draining)] {
            let condition = Condition::of(state, health, true);
            assert!(condition.takes_bound() && !condition.takes_new(), "{state:?} {health:?}");
        }
    }

    #[test]
    fn a_server_that_is_down_unchecked_or_without_address_takes_nobody() {
        assert_eq!(Condition::of(ServerState::Ready, Health::Down, true), Condition::Down);
        assert_eq!(Condition::of(ServerState::Drain, Health::Down, true), Condition::Down);
        assert_eq!(Condition::of(ServerState::Ready, Health::Unknown, true), Condition::Down);
        assert_eq!(Condition::of(ServerState::Ready, Health::Up, false), Condition::Down);
    }

    #[test]
    fn health_survives_its_number() {
        for health in [Health::Unknown, Health::Up, Health::Draining, Health::Down] {
            assert_eq!(Health::from_u8(health as u8), health);
        }
    }
}
