//! What a request means to its session, and why a session leaves its server: the words of metrics, logs and headers.

use strum::{IntoStaticStr, VariantNames};

/// Why a session left its server, in the order of `telemetry::metrics::MOVES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Found down by its checks, or without an address.
    Down,
    /// The operator set it to maint.
    Maint,
    /// It drains, and the pool says that sessions leave a draining server.
    Drain,
    /// The configuration no longer has it.
    Removed,
    /// Its circuit breaker is open.
    Ejected,
    /// It took no connection.
    ConnectFailure,
    /// It is crowded, and the session was idle.
    Rebalance,
    /// An operator moved it.
    Admin,
}

impl Reason {
    /// The word for metrics, logs and the `Homing-Session-Moved` header.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// Where a request went, seen from its session, in the order of `telemetry::metrics::OUTCOMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// A new session was begun.
    New,
    /// To its server.
    Kept,
    /// To another server, for good.
    Moved,
    /// To another server, this once.
    Borrowed,
    /// Nowhere, since the pool says so.
    Refused,
    /// Anywhere: the pool keeps no sessions, or gives none out.
    Balanced,
}

impl Outcome {
    /// The word for metrics and logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::binding::Lookup;
    use crate::store::EndReason;
    use crate::telemetry::metrics::{ENDS, LOOKUPS, MOVES, OUTCOMES};

    #[test]
    fn words_and_their_order_are_those_of_the_metrics() {
        assert_eq!(Outcome::VARIANTS, OUTCOMES);
        assert_eq!(Reason::VARIANTS, MOVES);
        assert_eq!(Lookup::VARIANTS, LOOKUPS);
        assert_eq!(EndReason::VARIANTS, ENDS);
        assert_eq!((Outcome::New.label(), Reason::ConnectFailure.label()), ("new", "connect_failure"));
        assert_eq!((Lookup::ExpiredIdle.label(), EndReason::Evicted.label()), ("expired_idle", "evicted"));
    }
}
