//! The values that each label may have, so that no label is unbounded. A counter is found by the index of its value.

use strum::{IntoStaticStr, VariantNames};

/// A value of a label, as an index into the counters of that label.
pub trait LabelIndex {
    /// The index.
    fn index(self) -> usize;
}

/// For enums of other folders; their order is the list's.
impl LabelIndex for usize {
    fn index(self) -> usize {
        self
    }
}

macro_rules! label {
    ($($name:ty),*) => {
        $(impl LabelIndex for $name {
            fn index(self) -> usize {
                self as usize
            }
        })*
    };
}

label!(
    TokenReason,
    Handoff,
    Retry,
    UpstreamError,
    ProbeResult,
    Rejection,
    LocalResource,
    Direction,
    Limit,
    FullPathReason,
    SpanResult
);

/// Label `pool` of requests that no route matched.
pub const NO_POOL: &str = "-";

/// Label `server` of requests that wait for any server.
pub(super) const ANY_SERVER: &str = "-";

/// `result` of `homing_session_lookups_total`, in the order of `session::binding::Lookup`.
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
    "other_client",
];
/// `outcome` of `homing_session_outcomes_total`, in the order of `persistence::Outcome`.
pub const OUTCOMES: &[&str] = &["new", "kept", "moved", "borrowed", "refused", "balanced"];
/// `reason` of `homing_session_moves_total`, in the order of `persistence::Reason`.
pub const MOVES: &[&str] = &["down", "maint", "drain", "removed", "ejected", "connect_failure", "rebalance", "admin"];
/// `class` of `homing_server_responses_total`: by the first digit of the status.
pub(super) const CLASSES: &[&str] = &["1xx", "2xx", "3xx", "4xx", "5xx"];
/// `reason` of `homing_sessions_ended_total`, in the order of `store::EndReason`.
pub const ENDS: &[&str] = &["idle", "absolute", "evicted", "ended", "admin"];
/// `reason` of `homing_requests_rejected_total`.
pub const REJECTIONS: &[&str] = Rejection::VARIANTS;

/// `reason` of `homing_tokens_issued_total`: why a token was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum TokenReason {
    /// The session is new.
    New,
    /// The session moved.
    Moved,
    /// A quarter of the idle timeout has passed.
    Refreshed,
    /// Another key seals now.
    KeyRotated,
}

/// `reason` of `homing_requests_by_path_total`: why a request has not taken the fast path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum FullPathReason {
    /// `proxy.fast_path: off`.
    Off,
    /// HTTP/2.
    Http2,
    /// The head is not valid or cut off, or has more fields than usual.
    Head,
    /// Another version of HTTP than 1.1.
    Version,
    /// An unusual method.
    Method,
    /// The target is a URL, or has unusual characters.
    Target,
    /// It has a body that is long, chunked, or not there with its head.
    Body,
    /// It has fields about its connection.
    Connection,
    /// It authenticates its connection, or is on one that is authenticated.
    Authentication,
    /// The proxy refuses it.
    Refused,
    /// Its route redirects, its pool is not served by the fast path, or it may be of a certificate authority.
    Configuration,
    /// The shared store must be asked.
    Store,
    /// No server could be selected at once.
    NoServer,
    /// An attempt has failed.
    Failure,
}

/// `result` of `homing_handoff_total`: what became of a server's handoff data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Handoff {
    /// Stored.
    Taken,
    /// Removed by the server.
    Forgotten,
    /// Sent to another server, with one request.
    Given,
    /// Larger than `handoff.max_size`.
    RefusedSize,
    /// In several header fields.
    RefusedLines,
    /// The request has no session, or only a client address.
    RefusedNobody,
    /// The session had moved before the response came.
    Late,
    /// Evicted to make room.
    Evicted,
}

/// `result` of `homing_retries_total`: what became of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Retry {
    /// Sent.
    Sent,
    /// Not sent: `retries.budget_percent` is exhausted.
    BudgetExhausted,
    /// Not sent: `retries.attempts` are exhausted.
    AttemptsExhausted,
}

/// `kind` of `homing_upstream_errors_total`: how a request failed at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum UpstreamError {
    /// The server refused the connection.
    ConnectRefused,
    /// The server did not accept the connection in time.
    ConnectTimeout,
    /// The connection failed for another reason.
    ConnectError,
    /// The server closed the connection before its response.
    ResetBeforeResponse,
    /// No bytes from it for `connection.read_timeout`, or none accepted for `connection.write_timeout`.
    Timeout,
    /// The server closed the connection during its response.
    ResetMidResponse,
    /// The response is not valid HTTP.
    InvalidResponse,
    /// No trusted authority has signed the server's certificate.
    CertificateUntrusted,
    /// The server's certificate has expired, or is not valid yet.
    CertificateExpired,
    /// The server's certificate is for another name.
    CertificateName,
    /// The TLS handshake with the server failed for another reason.
    TlsHandshake,
    /// The server does not agree to HTTP/2.
    NoHttp2,
}

impl UpstreamError {
    /// No connection was established, so nothing was sent.
    pub fn is_connect_failure(self) -> bool {
        matches!(self, Self::ConnectRefused | Self::ConnectTimeout | Self::ConnectError) || self.is_of_tls()
    }

    /// The server accepted a connection, and then there was no TLS on it that the pool accepts.
    pub fn is_of_tls(self) -> bool {
        matches!(
            self,
            Self::CertificateUntrusted
                | Self::CertificateExpired
                | Self::CertificateName
                | Self::TlsHandshake
                | Self::NoHttp2
        )
    }

    /// For logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// `direction` of `homing_bytes_total`, as the proxy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Direction {
    /// From clients.
    In,
    /// To clients.
    Out,
}

/// `result` of `homing_health_checks_total`: the result of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ProbeResult {
    /// Healthy.
    Success,
    /// Healthy, and declines new sessions.
    Drain,
    /// Unhealthy.
    Failure,
    /// Not carried out, for lack of a local resource: it says nothing about the server.
    LocalError,
}

/// `operation` of `homing_resource_exhausted_total`: what could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ResourceUser {
    /// Accepting a client's connection.
    Accept,
    /// Connecting to a server for a request.
    Connect,
    /// Checking a server's health.
    HealthCheck,
}

/// `resource` of `homing_resource_exhausted_total`: what this process or machine was short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum LocalResource {
    /// File descriptors of this process.
    Descriptors,
    /// File descriptors of the whole system.
    SystemDescriptors,
    /// Buffers of the kernel.
    Buffers,
    /// Local ports towards the address of a server.
    Ports,
    /// Memory.
    Memory,
}

impl LocalResource {
    /// For logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// `result` of `homing_trace_spans_total`: what became of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum SpanResult {
    /// The collector took it.
    Exported,
    /// The queue is full.
    QueueFull,
    /// The collector could not be reached, or refused it.
    Failed,
}

/// `reason` of `homing_requests_rejected_total`: why the proxy itself rejected a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Rejection {
    /// Not valid HTTP: 400.
    Malformed,
    /// More than `max_header_size`: 431.
    HeaderTooLarge,
    /// More than `max_body_size`: 413.
    BodyTooLarge,
    /// Its headers took longer than `request_header`: 408.
    HeaderTimeout,
    /// A piece of its body took longer than `request_body`, over HTTP/2: the stream is reset.
    BodyTimeout,
    /// No route matches: 404.
    NoRoute,
    /// A method that is not proxied: 405.
    Method,
    /// An HTTP version that its listener does not support: 505.
    Protocol,
    /// An invalid token, in a pool that refuses those: 400.
    ForgedToken,
    /// A malformed PROXY header, or one from an untrusted peer: the connection is closed.
    ProxyHeader,
    /// The TLS handshake failed: the connection is closed.
    TlsHandshake,
    /// Only the shared store knows its session, and the store does not answer: 503.
    StoreUnavailable,
    /// File descriptors run out: 503.
    Descriptors,
    /// A target longer than `max_uri_length`: 414.
    MaxUriLength,
    /// More header fields than `max_headers`: 431.
    MaxHeaders,
    /// Its client asks more than `requests_per_second`: 429.
    RequestsPerSecond,
    /// Its client begins more than `new_sessions_per_second`: 429.
    NewSessionsPerSecond,
    /// Its body arrives slower than `min_body_rate`: 408.
    MinBodyRate,
    /// Its HTTP/2 connection has too many requests that are not finished: its stream is refused.
    Streams,
}

/// `limit` of `homing_limited_total`: the limit of a listener by which a connection or request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Limit {
    /// The listener's connections: closed.
    Connections,
    /// The client's connections: closed.
    ConnectionsPerClient,
    /// The client's requests: 429.
    RequestsPerSecond,
    /// The sessions that the client begins: 429.
    NewSessionsPerSecond,
    /// The length of the target: 414.
    MaxUriLength,
    /// The number of header fields: 431.
    MaxHeaders,
    /// The speed of the body: 408.
    MinBodyRate,
}

impl Limit {
    /// For logs.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

impl Rejection {
    /// For the access log.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_names() {
        assert_eq!(TokenReason::VARIANTS, ["new", "moved", "refreshed", "key_rotated"]);
        assert_eq!(
            Handoff::VARIANTS,
            ["taken", "forgotten", "given", "refused_size", "refused_lines", "refused_nobody", "late", "evicted"]
        );
        assert_eq!(Retry::VARIANTS, ["sent", "budget_exhausted", "attempts_exhausted"]);
        assert_eq!(
            UpstreamError::VARIANTS,
            [
                "connect_refused",
                "connect_timeout",
                "connect_error",
                "reset_before_response",
                "timeout",
                "reset_mid_response",
                "invalid_response",
                "certificate_untrusted",
                "certificate_expired",
                "certificate_name",
                "tls_handshake",
                "no_http2"
            ]
        );
        assert_eq!(SpanResult::VARIANTS, ["exported", "queue_full", "failed"]);
        assert_eq!(ProbeResult::VARIANTS, ["success", "drain", "failure", "local_error"]);
        assert_eq!(
            Rejection::VARIANTS,
            [
                "malformed",
                "header_too_large",
                "body_too_large",
                "header_timeout",
                "body_timeout",
                "no_route",
                "method",
                "protocol",
                "forged_token",
                "proxy_header",
                "tls_handshake",
                "store_unavailable",
                "descriptors",
                "max_uri_length",
                "max_headers",
                "requests_per_second",
                "new_sessions_per_second",
                "min_body_rate",
                "streams"
            ]
        );
        assert_eq!(ResourceUser::VARIANTS, ["accept", "connect", "health_check"]);
        assert_eq!(LocalResource::VARIANTS, ["descriptors", "system_descriptors", "buffers", "ports", "memory"]);
        assert_eq!((Rejection::TlsHandshake.index(), Rejection::TlsHandshake.label()), (10, "tls_handshake"));
    }

    #[test]
    fn limits_keep_their_names() {
        assert_eq!(
            Limit::VARIANTS,
            [
                "connections",
                "connections_per_client",
                "requests_per_second",
                "new_sessions_per_second",
                "max_uri_length",
                "max_headers",
                "min_body_rate"
            ]
        );
    }
}
