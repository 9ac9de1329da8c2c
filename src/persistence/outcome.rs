//! What a request means to its session, and why a session leaves its server: the words of metrics, logs and headers.

/// Why a session left its server, in the order of `telemetry::metrics::MOVES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Found down by its checks, or without an address.
    Down,
    /// The operator set it to maint.
    Maint,
    /// It drains, and the pool says that sessions leave a draining server.
    Drain,
    /// The configuration no longer has it.
    Removed,
    /// It took no connection.
    ConnectFailure,
}

impl Reason {
    /// The word for metrics, logs and the `Homing-Session-Moved` header.
    pub fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Maint => "maint",
            Self::Drain => "drain",
            Self::Removed => "removed",
            Self::ConnectFailure => "connect_failure",
        }
    }
}

/// Where a request went, seen from its session, in the order of `telemetry::metrics::OUTCOMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::Moved => "moved",
            Self::Borrowed => "borrowed",
            Self::Refused => "refused",
            Self::Balanced => "balanced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::binding::Lookup;
    use crate::store::EndReason;
    use crate::telemetry::metrics::{ENDS, LOOKUPS, MOVES, OUTCOMES};

    #[test]
    fn words_stand_where_the_metrics_expect_them() {
        use Outcome::{Balanced, Borrowed, Kept, Moved, New, Refused};
        for outcome in [New, Kept, Moved, Borrowed, Refused, Balanced] {
            assert_eq!(OUTCOMES[outcome as usize], outcome.label());
        }
        for reason in [Reason::Down, Reason::Maint, Reason::Drain, Reason::Removed, Reason::ConnectFailure] {
            assert_eq!(MOVES[reason as usize], reason.label());
        }
        for (lookup, word) in [
            (Lookup::None, "none"),
            (Lookup::Hit, "hit"),
            (Lookup::Restored, "restored"),
            (Lookup::Unknown, "unknown"),
            (Lookup::ExpiredIdle, "expired_idle"),
            (Lookup::ExpiredAbsolute, "expired_absolute"),
            (Lookup::Forged, "forged"),
            (Lookup::Ended, "ended"),
            (Lookup::UnknownServer, "unknown_server"),
            (Lookup::StoreError, "store_error"),
        ] {
            assert_eq!((LOOKUPS[lookup as usize], lookup.label()), (word, word));
        }
        for end in EndReason::ALL {
            assert_eq!(ENDS[end as usize], end.label());
        }
    }
}
