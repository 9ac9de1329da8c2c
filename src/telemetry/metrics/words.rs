//! The words that labels may take: a list per label, so that no label is ever unbounded, and an enum where nobody else has
//! one. A counter is found by the index of its word.

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
/// Words of `homing_tokens_issued_total{reason}`, in the order of [`TokenReason`].
pub const TOKENS: &[&str] = &["new", "moved", "refreshed", "key_rotated"];

/// Why a client was given a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Words of `homing_handoff_total{result}`, in the order of [`Handoff`].
pub const HANDOFFS: &[&str] =
    &["taken", "forgotten", "given", "refused_size", "refused_lines", "refused_nobody", "late", "evicted"];

/// What became of data that a server handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
/// Words of `homing_retries_total{result}`, in the order of [`Retry`].
pub const RETRIES: &[&str] = &["sent", "budget_exhausted", "attempts_exhausted"];

/// What became of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It was sent.
    Sent,
    /// It was not, since `retries.budget_percent` was spent.
    BudgetExhausted,
    /// It was not, since `retries.attempts` were spent.
    AttemptsExhausted,
}

/// Words of `homing_upstream_errors_total{kind}`, in the order of [`UpstreamError`].
pub const UPSTREAM_ERRORS: &[&str] = &[
    "connect_refused",
    "connect_timeout",
    "connect_error",
    "reset_before_response",
    "timeout",
    "reset_mid_response",
    "invalid_response",
];
/// How a server failed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        UPSTREAM_ERRORS.get(self as usize).copied().unwrap_or("unknown")
    }
}

/// Words of `homing_health_checks_total{result}`, in the order of `pool::health::Finding`.
pub const CHECKS: &[&str] = &["success", "drain", "failure"];
/// Words of `homing_requests_rejected_total{reason}`, in the order of [`Rejection`].
pub const REJECTIONS: &[&str] = &[
    "malformed",
    "header_too_large",
    "body_too_large",
    "header_timeout",
    "no_route",
    "method",
    "protocol",
    "forged_token",
    "proxy_header",
    "tls_handshake",
    "store_unavailable",
];

/// Why the proxy itself refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        REJECTIONS.get(self as usize).copied().unwrap_or("unknown")
    }
}
