//! The raw configuration of listeners, admin and metrics.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::NotSupported;
use crate::config::units::{DurationText, Size};

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "address"))]
pub(crate) struct Listener {
    /// `IP:port`, `[IPv6]:port` or `unix:/path`. Port 0 takes any free port.
    #[schemars(extend("x-restart" = true, "examples" = ["0.0.0.0:8080", "[::]:8080", "unix:/run/homing/http.sock"], "x-stand-in" = ""))]
    pub(crate) address: String,
    /// What is spoken here. Absent or null: `[http1, h2]` with `tls`, `[http1, h2c]` without.
    #[serde(default)]
    #[schemars(length(min = 1), extend("x-restart" = true, "uniqueItems" = true, "examples" = [["http1"]]))]
    pub(crate) protocols: Option<Vec<ListenerProtocol>>,
    /// Whether a connection may begin with a PROXY header, version 1 or 2, that says who the client is.
    #[serde(default)]
    pub(crate) proxy_protocol: ProxyProtocol,
    /// Networks whose `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `Forwarded` and PROXY header are
    /// believed. The client is the rightmost address that is not in them.
    #[serde(default)]
    #[schemars(extend("examples" = [["10.0.0.0/8", "fd00::/8"]]))]
    pub(crate) trusted_proxies: Vec<String>,
    /// Most bytes of request line and headers. More is answered with 431.
    #[serde(default = "Listener::max_header_size")]
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "1MiB"))]
    pub(crate) max_header_size: Size,
    /// Most bytes of a request's body. More is answered with 413. null = no limit.
    #[serde(default)]
    #[schemars(extend("examples" = ["8MiB"]))]
    pub(crate) max_body_size: Option<Size>,
    /// Timeouts towards clients.
    #[serde(default)]
    pub(crate) timeouts: ListenerTimeouts,
    /// What happens to a request whose client has sent all of it and then closes its side of the connection.
    #[serde(default)]
    pub(crate) on_client_half_close: OnClientHalfClose,
    /// TLS on this listener. null = none. Whether a listener has TLS changes at a restart, all else of it by a reload,
    /// which reads the files again.
    #[serde(default)]
    #[schemars(extend("examples" = [{"certificates": [{"cert": "tls/shop.pem", "key": "tls/shop.key"}]}]))]
    pub(crate) tls: Option<ListenerTls>,
}

impl Listener {
    pub(crate) const fn max_header_size() -> Size {
        Size(64 * 1024)
    }
}

/// What happens to a request whose client closes its side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnClientHalfClose {
    /// The response is still sent. A client that is gone is noticed when it resets the connection, or by a failed write.
    #[default]
    Finish,
    /// The request is cancelled.
    Cancel,
}

/// Protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum ListenerProtocol {
    /// HTTP/1.1, with WebSocket.
    Http1,
    /// HTTP/2 with TLS, which asks for it by ALPN.
    H2,
    /// HTTP/2 without TLS (prior knowledge).
    H2c,
}

/// Whether a connection may begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum ProxyProtocol {
    /// It may not: such a header is a malformed request.
    #[default]
    None,
    /// A peer in `trusted_proxies` may send one. From others it ends the connection.
    Accept,
}

/// TLS on a listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerTls {
    /// Oldest version of TLS that is spoken, in quotes.
    #[serde(default)]
    pub(crate) min_version: TlsVersion,
    /// Certificates. A client is shown the one for the host that it asks for: an exact name goes before a wildcard. A
    /// client that names no host, or one that is not here, is shown the first.
    #[schemars(length(min = 1))]
    pub(crate) certificates: Vec<ListenerCertificate>,
    /// PEM file of certificate authorities. When set, every client must show a certificate that one of them has signed.
    #[serde(default)]
    #[schemars(extend("examples" = ["tls/clients-ca.pem"]))]
    pub(crate) client_ca: Option<String>,
}

/// Version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    Tls13,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerCertificate {
    /// PEM file with the host's certificate, then those that vouch for it. A relative path begins at the folder of the
    /// configuration file.
    #[schemars(extend("examples" = ["tls/shop.pem"]))]
    pub(crate) cert: String,
    /// PEM file with its private key: PKCS#8, SEC1 or PKCS#1, not encrypted.
    #[schemars(extend("examples" = ["tls/shop.key"]))]
    pub(crate) key: String,
    /// Host names that it is shown for, exact or like `*.example.org`, which stands for one label. Empty: the names in
    /// the certificate.
    #[serde(default)]
    #[schemars(extend("examples" = [["shop.example.org"]]))]
    pub(crate) hosts: Vec<String>,
}

/// Timeouts towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTimeouts {
    /// To the end of a request's headers. As long again, each, for a PROXY header and for a TLS handshake before them.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub request_header: Duration,
    /// Between two reads of a request's body.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub request_body: Duration,
    /// How long an idle connection is kept for the next request.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub keepalive: Duration,
    /// How long one write to the client may block.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "24h"))]
    #[serde(with = "DurationText")]
    pub write: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            request_header: Duration::from_secs(10),
            request_body: Duration::from_secs(60),
            keepalive: Duration::from_secs(75),
            write: Duration::from_secs(60),
        }
    }
}

/// Probes and metrics for this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "address"))]
pub(crate) struct Admin {
    /// A loopback address with port, or `unix:/path`.
    pub(crate) address: String,
    /// Who may use the API.
    #[serde(skip_serializing_if = "NotSupported::always")]
    #[schemars(extend("default" = [], "x-not-in-this-version" = "remove it; the admin door of this version is for this machine only"))]
    pub(crate) tokens: NotSupported,
    /// `Host` names that are answered, without port. Another gets 421, so that no web page reaches the door by DNS
    /// rebinding.
    pub(crate) allowed_hosts: Vec<String>,
    /// Where server states set at run time are kept.
    #[serde(skip_serializing_if = "NotSupported::always")]
    #[schemars(extend("default" = null, "x-not-in-this-version" = "remove it; states are set in this file: pools.NAME.servers[].state"))]
    pub(crate) state_file: NotSupported,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:9900".to_owned(),
            tokens: NotSupported,
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec(),
            state_file: NotSupported,
        }
    }
}

impl Admin {
    #[expect(clippy::unnecessary_wraps, reason = "the default of a key that may be null")]
    pub(crate) fn standard() -> Option<Self> {
        Some(Self::default())
    }
}

/// A door of its own for Prometheus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "address"))]
pub(crate) struct Metrics {
    /// `IP:port`, `[IPv6]:port` or `unix:/path`.
    #[schemars(extend("examples" = ["0.0.0.0:9901"]))]
    pub(crate) address: String,
    /// Path of the metrics, beginning with `/`.
    #[serde(default = "Metrics::path")]
    pub(crate) path: String,
}

impl Metrics {
    pub(crate) fn path() -> String {
        "/metrics".to_owned()
    }
}
