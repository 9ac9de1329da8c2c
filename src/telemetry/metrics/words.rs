//! The words that labels may take, so that no label is ever unbounded: those of an enum, or a list for an enum of another
//! part. A counter is found by the index of its word.

use strum::{IntoStaticStr, VariantNames};

/// Label `pool` of requests that no route took.
pub const NO_POOL: &str = "-";

/// Words of `homing_session_lookups_total{result}`, in the order of `session::binding::Lookup`.
pub const LOOKUPS: &[&str] = &[
    "none",
    "hit",
    "restored",
    "unknown",
    "expired_idle",
    "expired_absolute",
    "forged",
    "ended",
    "unknown_server",
    "store_error",
];
/// Words of `homing_session_outcomes_total{outcome}`, in the order of `failover::Outcome`.
pub const OUTCOMES: &[&str] = &["new", "kept", "moved", "borrowed", "refused", "balanced"];
/// Words of `homing_session_moves_total{reason}`, in the order of `failover::Reason`.
pub const MOVES: &[&str] = &["down", "maint", "drain", "removed", "connect_failure"];
/// Words of `homing_tokens_issued_total{reason}`.
pub const TOKENS: &[&str] = TokenReason::VARIANTS;

/// Why a client was given a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantNames, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum TokenReason {
    /// Its session is new.
    New,
    /// Its session moved.
    Moved,
    /// A quarter of the idle time was gone.
    Refreshed,
    /// Another key seals now.
    KeyRotated,
}

/// Words of `homing_handoff_total{result}`.
pub const HANDOFFS: &[&str] = Handoff::VARIANTS;

/// What became of data that a server handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantNames, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Handoff {
    /// It is kept.
    Taken,
    /// The server said that there is none any more.
    Forgotten,
    /// It was given to another server, with one request.
    Given,
    /// More than `handoff.max_size`.
    RefusedSize,
    /// On several lines.
    RefusedLines,
    /// The client has no session, or only its address.
    RefusedNobody,
    /// The session had moved on since that server was asked.
    Late,
    /// There was no room; this of the longest idle went.
    Evicted,
}

/// Words of `homing_sessions_ended_total{reason}`.
pub const ENDS: &[&str] = &["idle", "absolute", "evicted", "ended"];
/// Words of `homing_retries_total{result}`.
pub const RETRIES: &[&str] = Retry::VARIANTS;

/// What became of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantNames, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Retry {
    /// It was sent.
    Sent,
    /// It was not, since `retries.budget_percent` was spent.
    BudgetExhausted,
    /// It was not, since `retries.attempts` were spent.
    AttemptsExhausted,
}

/// Words of `homing_upstream_errors_total{kind}`.
pub const UPSTREAM_ERRORS: &[&str] = UpstreamError::VARIANTS;
/// How a server failed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantNames, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum UpstreamError {
    /// It refused the connection.
    ConnectRefused,
    /// It did not take the connection in time.
    ConnectTimeout,
    /// No connection came about for another reason.
    ConnectError,
    /// It closed the connection before the answer began.
    ResetBeforeResponse,
    /// It fell silent for longer than `connection.read_timeout`, or took no bytes for `connection.write_timeout`.
    Timeout,
    /// It broke off in the middle of its answer.
    ResetMidResponse,
    /// What it sent is not HTTP.
    InvalidResponse,
}

impl UpstreamError {
    /// For logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// Words of `homing_health_checks_total{result}`, in the order of `pool::health::Finding`.
pub const CHECKS: &[&str] = &["success", "drain", "failure"];
/// Words of `homing_requests_rejected_total{reason}`.
pub const REJECTIONS: &[&str] = Rejection::VARIANTS;

/// Why the proxy itself refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantNames, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Rejection {
    /// It is not HTTP as the RFCs have it: 400.
    Malformed,
    /// More than `max_header_size`: 431.
    HeaderTooLarge,
    /// More than `max_body_size`: 413.
    BodyTooLarge,
    /// Its headers took longer than `request_header`: 408.
    HeaderTimeout,
    /// No route takes it: 404.
    NoRoute,
    /// A method that is not proxied: 405.
    Method,
    /// A protocol that its listener does not speak: 505.
    Protocol,
    /// Its token does not open, and the pool refuses such: 400.
    ForgedToken,
    /// A PROXY header that is broken, or of a peer that is not trusted: the connection is closed.
    ProxyHeader,
    /// A TLS handshake that failed: the connection is closed.
    TlsHandshake,
    /// Only the shared store knows its session, and it does not answer: 503.
    StoreUnavailable,
}

impl Rejection {
    /// For the access log.
    pub fn label(self) -> &'static str {
        self.into()
    }
}
