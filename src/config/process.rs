//! The checked configuration of the process: listeners, keys, store, logs.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::address::ListenAddress;
use super::raw::{AdminToken, FastPath, ListenerLimits, ListenerTimeouts, LogFormat, LogLevel, OnClientHalfClose};
use super::tls::Tls;

/// Process-wide settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Worker threads; `None` = the CPUs that this process may use.
    pub threads: Option<usize>,
    /// This proxy's name, in logs and metrics.
    pub node: String,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// Socket through which a new process takes over; `None` = none does.
    pub upgrade_socket: Option<PathBuf>,
    /// How long requests in flight may finish after TERM.
    pub shutdown_grace: Duration,
    /// Idle connections to servers kept open, per worker thread.
    pub upstream_idle_connections: usize,
    /// Whether plain HTTP/1.1 exchanges take the short way.
    pub fast_path: FastPath,
}

/// One listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: ListenAddress,
    /// Serves HTTP/1.1.
    pub http1: bool,
    /// Serves HTTP/2: with TLS by ALPN, without by prior knowledge.
    pub http2: bool,
    /// TLS; `None` = plain.
    pub tls: Option<Tls>,
    /// Trusted proxies may send a PROXY header.
    pub proxy_protocol: bool,
    /// Peers whose forwarded headers and PROXY header are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of request line and headers; more: 431.
    pub max_header_size: usize,
    /// Bytes of a request's body; more: 413; `None` = no limit.
    pub max_body_size: Option<u64>,
    /// Timeouts towards clients.
    pub timeouts: ListenerTimeouts,
    /// A client that closes its side of the connection behind its request.
    pub on_client_half_close: OnClientHalfClose,
    /// Limits of the listener and of each of its clients.
    pub limits: ListenerLimits,
}

/// The listener for the admin API, probes and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Loopback or a unix socket, unless there are tokens.
    pub address: ListenAddress,
    /// Tokens of the API; empty = open to every client that can connect.
    pub tokens: Vec<AdminToken>,
    /// `Host` names answered, lower case, without port; another: 421.
    pub allowed_hosts: Vec<String>,
    /// Keeps what operators set at run time over a restart; `None` = it ends with the process.
    pub state_file: Option<PathBuf>,
}

/// A separate listener for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsListener {
    /// Any address.
    pub address: ListenAddress,
    /// Path of the metrics.
    pub path: String,
}

/// Logs and access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// Form of the log on stderr.
    pub format: LogFormat,
    /// Where the access log goes.
    pub access: AccessLog,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    None,
    /// Standard output.
    Stdout,
    /// A file; USR1 reopens it.
    File(PathBuf),
}
