//! The raw configuration: every key of the file with its type, default and range. The doc comments are the manual.
//!
//! These types become the JSON Schema (`homing config schema`), the schema is what a file is checked against, and
//! `docs/configuration.md` is written from it: one source of truth. Extensions of the schema used here:
//! `x-restart` (a reload does not change it), `x-secret` (never shown), `x-minimum` and `x-maximum` (of durations and sizes),
//! `x-hidden` (taken, but not in the manual),
//! `x-shorthand` (the key that a bare value in place of the mapping is most likely meant for), `x-stand-in` (what stands in
//! for a required key that is missing or wrong, so that the rest of its mapping is checked), `x-instead` (by required key, the
//! key that may be written instead of it).

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use strum::IntoStaticStr;

mod acme;
mod circuit_breaker;
mod discovery;
mod limits;
mod listeners;
mod persistence;
mod pool;
mod route;
mod store;

pub(crate) use acme::Acme;
pub use acme::{AcmeChallenge, ExternalAccount};
pub use circuit_breaker::CircuitBreaker;
pub use discovery::RecordType;
pub(crate) use discovery::{Discovery, DnsDiscovery};
pub use limits::{ListenerLimits, PoolLimits};
pub(crate) use listeners::{
    Admin, Listener, ListenerCertificate, ListenerProtocol, ListenerTls, Metrics, ProxyProtocol,
};
pub use listeners::{AdminToken, ClientAuth, ListenerTimeouts, OnClientHalfClose, Role, TlsVersion};
pub use persistence::{
    GuestCookies, Handoff, Issue, NewSessionHint, OnForged, OnServerDown, OnServerDrain, Persistence,
};
pub use pool::{Balance, Connection, ConnectionTls, Rebalance, ServerState, StreamsOnDown, UpstreamProtocol};
pub(crate) use pool::{HealthCheck, HealthCheckType, Pool, RetryOn, Server};
pub use route::{Redirect, Scheme, Share};
pub(crate) use route::{RequestHeaders, Route};
pub(crate) use store::{Snapshot, Store};

use super::secret::Secret;
use super::units::DurationText;

/// The configuration of homing. Durations have a unit: 250ms, 30s, 5m, 8h, 1h30m. Sizes too: 512B, 64KiB, 8MiB. In any
/// value, `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${file:/path}` are replaced; `$${` is a literal `${`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "homing")]
pub(crate) struct Root {
    /// Version of this format. Always 1.
    #[schemars(extend("const" = 1, "examples" = [1]))]
    pub(crate) version: u32,
    /// Process-wide settings. They take effect at a restart; a reload that changes one logs that and keeps the old value.
    #[serde(default)]
    #[schemars(extend("x-restart" = true))]
    pub(crate) proxy: Proxy,
    /// Where clients connect. A listener that is added or removed takes effect at a restart.
    #[schemars(length(min = 1))]
    pub(crate) listeners: Vec<Listener>,
    /// Which pool serves which request. Of several matching routes, an exact host is preferred to a wildcard, a longer
    /// wildcard to a shorter, and that to any host; then the longest path prefix wins, then the most headers. The order
    /// in the file has no meaning. A single pool needs no routes: it takes every request.
    #[serde(default)]
    pub(crate) routes: Vec<Route>,
    /// Groups of servers that run the same application, by name.
    #[schemars(extend("minProperties" = 1, "x-key" = "NAME"))]
    pub(crate) pools: BTreeMap<String, Pool>,
    /// Keys of session tokens: the first one seals, every one opens. To rotate, put a new key first and keep the old one
    /// until `absolute_timeout` has passed. Without keys a random one is made at start: sessions then end with the process, and
    /// two proxies do not accept each other's tokens.
    #[serde(default)]
    pub(crate) keys: Vec<Key>,
    /// Where bindings of sessions to servers are stored.
    #[serde(default)]
    pub(crate) store: Store,
    /// Probes and metrics for this machine. null = none.
    #[serde(default = "Admin::standard")]
    #[schemars(extend("x-restart" = true))]
    pub(crate) admin: Option<Admin>,
    /// A separate listener for Prometheus, on any address. null = none.
    #[serde(default)]
    #[schemars(extend("x-restart" = true, "examples" = [{"address": "0.0.0.0:9901", "path": "/metrics"}]))]
    pub(crate) metrics: Option<Metrics>,
    /// Log and access log.
    #[serde(default)]
    pub(crate) log: Log,
    /// Distributed tracing.
    #[serde(default)]
    pub(crate) tracing: Tracing,
}

/// Process-wide settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Proxy {
    /// Worker threads. auto = the CPUs that this process may use.
    pub(crate) threads: Threads,
    /// This proxy's name in logs and metrics. Absent: the variable HOSTNAME, or else `edge`.
    #[schemars(extend("examples" = ["edge-1"]))]
    pub(crate) node: Option<String>,
    /// File for the process id.
    #[schemars(extend("examples" = ["/run/homing/homing.pid"]))]
    pub(crate) pid_file: Option<String>,
    /// Socket through which a new process, started with `--upgrade`, takes over the listeners and the sessions of this one:
    /// `homing upgrade`. Only the user of the process may write to its directory. null = no binary upgrade.
    #[schemars(extend("examples" = ["/run/homing/upgrade.sock"]))]
    pub(crate) upgrade_socket: Option<String>,
    /// How long requests in flight may take after a stop. The process ends earlier when none is left.
    #[schemars(extend("x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub(crate) shutdown_grace: Duration,
    /// Idle connections to servers that are kept open, per worker thread. With fewer than a thread has requests in flight,
    /// connections are closed and opened all the time, which more than doubles the CPU time.
    #[schemars(range(min = 0, max = 100_000))]
    pub(crate) upstream_idle_connections: usize,
    /// Plain HTTP/1.1 exchanges take a short way through the proxy, which costs less CPU time. Clients and
    /// servers see no difference. off = every request takes the full path.
    pub(crate) fast_path: FastPath,
}

/// The short way of plain HTTP/1.1 exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum FastPath {
    /// Taken by every request that it serves.
    Auto,
    /// Not taken.
    Off,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            threads: Threads::Auto(Auto::Auto),
            node: None,
            pid_file: None,
            upgrade_socket: None,
            shutdown_grace: Duration::from_secs(30),
            upstream_idle_connections: 128,
            fast_path: FastPath::Auto,
        }
    }
}

/// Worker threads: `auto` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Threads {
    /// One per CPU that this process may use.
    Auto(Auto),
    /// This number.
    Count(#[schemars(range(min = 1, max = 1024))] usize),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Auto {
    /// Chosen by homing.
    Auto,
}

/// A sealing key. `homing keys generate` prints one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name: letters, digits, `_`, `.`, `-`, at most 64. Unique.
    #[schemars(extend("examples" = ["k1"]))]
    pub id: String,
    /// The secret, at least 16 characters. Better not written here: `"${file:/run/secrets/k1}"` or `"${HOMING_K1}"`.
    #[schemars(extend("x-secret" = true, "examples" = ["${file:/run/secrets/homing-k1}"]))]
    pub secret: Secret,
}

/// Log and access log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "level"))]
pub(crate) struct Log {
    /// The lowest severity that is logged.
    pub(crate) level: LogLevel,
    /// Format of the log on standard error.
    #[schemars(extend("x-restart" = true))]
    pub(crate) format: LogFormat,
    /// Access log: `none`, `stdout` or the absolute path of a file. One JSON object per line; USR1 reopens the file.
    #[schemars(extend("examples" = ["/var/log/homing/access.log"]))]
    pub(crate) access: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text, access: "none".to_owned() }
    }
}

/// Severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something needs attention.
    Warn,
    /// What changed.
    Info,
    /// Why.
    Debug,
    /// Everything.
    Trace,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Distributed tracing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tracing {
    /// Trace headers of requests (W3C Trace Context).
    pub(crate) propagate: Propagate,
    /// A collector that gets a span of each recorded request, by OTLP over HTTP. null = none; then traces that begin at the proxy
    /// are marked as not recorded.
    #[schemars(extend("examples" = [{"endpoint": "http://127.0.0.1:4318", "sample": 0.01}]))]
    pub(crate) otlp: Option<Otlp>,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { propagate: Propagate::W3c, otlp: None }
    }
}

/// A collector of spans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Otlp {
    /// The collector's base address; `/v1/traces` is appended. With https:// its certificate is verified by the authorities that the
    /// system trusts.
    #[schemars(extend("examples" = ["http://127.0.0.1:4318"]))]
    pub(crate) endpoint: String,
    /// The share of the traces that begin at the proxy that are recorded, from 0 to 1. For a trace that a client began, the
    /// client's decision stands.
    #[serde(default = "Otlp::everything")]
    #[schemars(range(min = 0, max = 1))]
    pub(crate) sample: f64,
}

impl Otlp {
    fn everything() -> f64 {
        1.0
    }
}

/// Trace headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Propagate {
    /// A valid `traceparent` is passed on with the proxy's span as the parent, and `tracestate` with it; otherwise a trace begins
    /// here, without `tracestate`. The access log has the trace's id.
    W3c,
    /// Both are left as they are, and the access log has no id.
    None,
}
