//! The raw configuration of pools.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use strum::IntoStaticStr;

use super::CircuitBreaker;
use super::Discovery;
use super::Persistence;
use super::PoolLimits;
use crate::config::units::{DurationText, OptionalDurationText};

/// A group of servers that run the same application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "servers", "x-instead" = {"servers": "discovery"}))]
pub(crate) struct Pool {
    /// How new sessions are spread over the servers.
    #[serde(default = "Pool::balance")]
    pub(crate) balance: Balance,
    /// What `balance: hash` hashes: `client_ip`, `uri`, `header:NAME`, `cookie:NAME` or `query:NAME`.
    #[serde(default = "Pool::hash_on")]
    #[schemars(extend("examples" = ["header:X-Tenant"]))]
    pub(crate) hash_on: String,
    /// The servers; unless `discovery` says where they come from.
    #[schemars(length(min = 1), extend("x-stand-in" = []))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) servers: Vec<Server>,
    /// Where the servers come from, instead of `servers`. null = the file lists them.
    #[serde(default)]
    #[schemars(extend("examples" = [{"file": "servers.json"}]))]
    pub(crate) discovery: Option<Discovery>,
    /// Connections to the servers.
    #[serde(default)]
    pub(crate) connection: Connection,
    /// What becomes of open connections to a server that is found down: WebSockets, streaming responses, requests in flight.
    /// Those of a server in `maint`, or removed from the file, are ended after `proxy.shutdown_grace`.
    #[serde(default = "Pool::streams_on_down")]
    pub(crate) streams_on_down: StreamsOnDown,
    /// Active checks. null = none: servers count as up.
    #[serde(default)]
    #[schemars(extend("examples" = [{"path": "/healthz", "interval": "5s"}]))]
    pub(crate) health_check: Option<HealthCheck>,
    /// Ejects servers that fail requests. null = off; `{}` = on, with all defaults.
    #[serde(default)]
    #[schemars(extend("examples" = [{}]))]
    pub(crate) circuit_breaker: Option<CircuitBreaker>,
    /// Which requests may be retried.
    #[serde(default)]
    pub(crate) retries: Retries,
    /// Limits of requests in flight.
    #[serde(default)]
    pub(crate) limits: PoolLimits,
    /// A server that was down, in `maint` or ejected, or was added by a reload, gets its share of new sessions bit by bit: from a
    /// tenth to the whole over this time. Not at the start of the proxy, and not with `balance: hash`. 0s = at once.
    #[schemars(extend("x-maximum" = "24h", "default" = "0s"))]
    #[serde(default, with = "DurationText")]
    pub(crate) slow_start: Duration,
    /// After it, sessions that are still bound to a draining server are moved with their next request, and streams are ended:
    /// spread over a quarter of it, at least a second and at most a minute. The clock starts with the state. A server that is
    /// removed from the file drains first. null = a drain has no end, and a removed server is gone at once.
    #[serde(default, with = "OptionalDurationText")]
    #[schemars(extend("examples" = ["5m"], "x-minimum" = "1s", "x-maximum" = "30d"))]
    pub(crate) drain_deadline: Option<Duration>,
    /// Idle sessions leave crowded servers for emptier ones, as after servers were added. null = sessions stay where they are.
    #[serde(default)]
    #[schemars(extend("examples" = [{"idle_for": "5m", "per_minute": 100, "above_mean": 1.25}]))]
    pub(crate) rebalance: Option<Rebalance>,
    /// How sessions stay on their servers. null or absent = none: every request is balanced. `{}` = a sealed
    /// cookie, with all defaults.
    #[serde(default)]
    #[schemars(extend("examples" = [{}]))]
    pub(crate) persistence: Option<Persistence>,
}

impl Pool {
    pub(crate) const fn balance() -> Balance {
        Balance::RoundRobin
    }

    pub(crate) fn hash_on() -> String {
        "client_ip".to_owned()
    }

    pub(crate) const fn streams_on_down() -> StreamsOnDown {
        StreamsOnDown::End
    }
}

/// Idle sessions leave crowded servers. Off for `idle_timeout` after a start without a snapshot, while
/// `homing_sessions_complete` is 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rebalance {
    /// A session may leave at its next request when the last one is so long ago, and none is in flight.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub idle_for: Duration,
    /// This many sessions at most leave the crowded servers of the pool in a minute, evenly spaced.
    #[schemars(range(min = 1, max = 60_000))]
    pub per_minute: u32,
    /// A server is crowded when it has more than this many times its share of the sessions, by weight.
    #[schemars(range(min = 1, max = 100))]
    pub above_mean: f64,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { idle_for: Duration::from_secs(300), per_minute: 100, above_mean: 1.25 }
    }
}

/// How new sessions are spread over servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Balance {
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The server with the fewest requests in flight for its weight.
    LeastRequests,
    /// The consistent hash of `hash_on`.
    Hash,
}

/// What becomes of open connections to a server that is found down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum StreamsOnDown {
    /// They are ended at once: clients connect again, and come to another server.
    End,
    /// They stay until the server or a timeout ends them.
    Keep,
}

/// An application server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "address"))]
pub(crate) struct Server {
    /// The server's identity in tokens, metrics and logs: letters, digits, `_`, `.`, `-`, at most 64. Unique in its
    /// pool. A server may change its address and keep its sessions, but not its name.
    #[schemars(extend("examples" = ["a"], "x-stand-in" = "-"))]
    pub(crate) name: String,
    /// `IP:port`, `[IPv6]:port`, `name:port` (resolved again when it changes) or `unix:/path`.
    #[schemars(extend("examples" = ["10.0.0.11:8080", "app-1.internal:8080", "unix:/run/app.sock"]))]
    pub(crate) address: String,
    /// Share of new sessions. 0 = takes no new session; bound ones stay.
    #[serde(default = "Server::weight")]
    pub(crate) weight: u16,
    /// The administrative state.
    #[serde(default = "Server::state")]
    pub(crate) state: ServerState,
    /// The route id in the session ids of the server's application, for the source `route` (Tomcat's `jvmRoute`).
    /// null = the server's name.
    #[serde(default)]
    #[schemars(extend("examples" = ["app1"]))]
    pub(crate) route: Option<String>,
    /// Takes new sessions only while no other server can.
    #[serde(default)]
    pub(crate) backup: bool,
}

impl Server {
    pub(crate) const fn weight() -> u16 {
        1
    }

    pub(crate) const fn state() -> ServerState {
        ServerState::Ready
    }
}

/// The administrative state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ServerState {
    /// Takes every request.
    Ready,
    /// Takes bound sessions only.
    Drain,
    /// Takes no request.
    Maint,
}

/// Connections to the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// TLS to the servers, health checks included. `{}` = with the authorities that the system trusts. null = none.
    #[schemars(extend("examples" = [{"ca": "tls/ca.pem"}]))]
    pub tls: Option<ConnectionTls>,
    /// The protocol.
    pub protocol: UpstreamProtocol,
    /// To establish a connection.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    #[serde(with = "DurationText")]
    pub connect_timeout: Duration,
    /// Between two reads from a server. WebSocket and event streams need it longer than their longest silence.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "30d"))]
    #[serde(with = "DurationText")]
    pub read_timeout: Duration,
    /// For one write to a server.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "30d"))]
    #[serde(with = "DurationText")]
    pub write_timeout: Duration,
    /// How long an idle connection is kept: less than the server's own timeout. 0s = connections are not reused.
    #[schemars(extend("x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub idle_timeout: Duration,
    /// Names of headers are passed on as HTTP/1 peers wrote them, in both directions. Otherwise they are in lower case, as
    /// always in HTTP/2. The case has no meaning (RFC 9110, section 5.1); this is for applications that depend on it, and
    /// costs time.
    pub preserve_header_case: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            tls: None,
            protocol: UpstreamProtocol::Http1,
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(30),
            preserve_header_case: false,
        }
    }
}

/// TLS to the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionTls {
    /// Host name or IP address that the servers' certificates are for; a host name is also sent to them (SNI). null = as written
    /// in each server's address.
    #[schemars(extend("examples" = ["app.internal"]))]
    pub sni: Option<String>,
    /// PEM file of the authorities that sign the servers' certificates. A relative path is relative to the directory of the
    /// configuration file. null = those that the system trusts.
    #[schemars(extend("examples" = ["tls/ca.pem"]))]
    pub ca: Option<String>,
    /// Servers' certificates are verified. false = connections are encrypted, to whatever server answers.
    pub verify: bool,
    /// PEM file with the proxy's own certificate, for servers that require one; with `key`.
    #[schemars(extend("examples" = ["tls/edge.pem"]))]
    pub cert: Option<String>,
    /// PEM file with its private key.
    #[schemars(extend("examples" = ["tls/edge.key"]))]
    pub key: Option<String>,
}

impl Default for ConnectionTls {
    fn default() -> Self {
        Self { sni: None, ca: None, verify: true, cert: None, key: None }
    }
}

/// The protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: without TLS by prior knowledge; with TLS a server that does not agree to it (ALPN) is not used.
    H2,
    /// With TLS what the server prefers (ALPN); without, HTTP/1.1.
    Auto,
}

/// Active checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "path"))]
pub(crate) struct HealthCheck {
    /// The kind of check.
    pub(crate) r#type: HealthCheckType,
    /// Path and query of the request, with `type: http`.
    #[schemars(extend("examples" = ["/healthz"]))]
    pub(crate) path: String,
    /// Statuses of a healthy server.
    #[schemars(length(min = 1), inner(range(min = 100, max = 599)), extend("uniqueItems" = true))]
    pub(crate) expect_status: Vec<u16>,
    /// Statuses of a healthy server that takes no new sessions.
    #[schemars(inner(range(min = 100, max = 599)), extend("uniqueItems" = true, "examples" = [[404]]))]
    pub(crate) drain_status: Vec<u16>,
    /// Between two checks of a server, with 10 % jitter.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub(crate) interval: Duration,
    /// For one check. The next one begins `interval` after its end.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub(crate) timeout: Duration,
    /// Successes in a row that bring a server up.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) rise: u32,
    /// Failures in a row that take a server down.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) fall: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            r#type: HealthCheckType::Http,
            path: "/healthz".to_owned(),
            expect_status: vec![200],
            drain_status: Vec::new(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }
    }
}

/// The kind of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum HealthCheckType {
    /// `GET` of `path`.
    Http,
    /// A connection is established.
    Tcp,
}

/// Which requests may be retried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retries {
    /// Retries of one request.
    #[schemars(range(min = 0, max = 10))]
    pub(crate) attempts: u32,
    /// When to retry.
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) retry_on: Vec<RetryOn>,
    /// Limit of retries after a connection was established, in percent of requests, so that a failing pool is not
    /// overloaded.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) budget_percent: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 2, retry_on: vec![RetryOn::ConnectFailure, RetryOn::ResetBeforeResponse], budget_percent: 20 }
    }
}

/// When to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RetryOn {
    /// The connection failed: nothing was sent, so a request of any method may go to another server.
    ConnectFailure,
    /// The connection broke before the response began: idempotent methods only.
    ResetBeforeResponse,
}
