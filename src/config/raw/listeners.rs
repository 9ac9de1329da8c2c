//! The raw configuration of listeners, admin and metrics.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use strum::IntoStaticStr;

use super::{Acme, ListenerLimits};
use crate::config::secret::Secret;
use crate::config::units::{DurationText, Size};

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "address"))]
pub(crate) struct Listener {
    /// `IP:port`, `[IPv6]:port` or `unix:/path`. Port 0 takes any free port.
    #[schemars(extend("x-restart" = true, "examples" = ["0.0.0.0:8080", "[::]:8080", "unix:/run/homing/http.sock"], "x-stand-in" = ""))]
    pub(crate) address: String,
    /// Protocols. Absent or null: `[http1, h2]` with `tls`, `[http1, h2c]` without.
    #[serde(default)]
    #[schemars(length(min = 1), extend("x-restart" = true, "uniqueItems" = true, "examples" = [["http1"]]))]
    pub(crate) protocols: Option<Vec<ListenerProtocol>>,
    /// Whether a connection may begin with a PROXY header, version 1 or 2, with the client's address.
    #[serde(default)]
    pub(crate) proxy_protocol: ProxyProtocol,
    /// Networks whose `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `Forwarded` and PROXY header are
    /// trusted. The client is the rightmost address that is not in them.
    #[serde(default)]
    #[schemars(extend("examples" = [["10.0.0.0/8", "fd00::/8"]]))]
    pub(crate) trusted_proxies: Vec<String>,
    /// Limit of request line and headers. A larger request gets 431.
    #[serde(default = "Listener::max_header_size")]
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "1MiB"))]
    pub(crate) max_header_size: Size,
    /// Limit of a request's body. A larger one gets 413. null = no limit.
    #[serde(default)]
    #[schemars(extend("examples" = ["8MiB"]))]
    pub(crate) max_body_size: Option<Size>,
    /// Timeouts towards clients.
    #[serde(default)]
    pub(crate) timeouts: ListenerTimeouts,
    /// What happens to a complete request when its client then closes its side of the connection.
    #[serde(default)]
    pub(crate) on_client_half_close: OnClientHalfClose,
    /// Limits of this listener and of each of its clients.
    #[serde(default)]
    pub(crate) limits: ListenerLimits,
    /// TLS on this listener. null = none. Enabling or disabling it needs a restart; everything else is reloaded,
    /// with the files.
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
    /// HTTP/2 with TLS, negotiated by ALPN.
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
    /// Oldest version of TLS that is accepted, in quotes.
    #[serde(default)]
    pub(crate) min_version: TlsVersion,
    /// Certificates. A client is shown the one for the host in its SNI; an exact name wins over a wildcard.
    /// Without SNI, or for an unknown host, it gets the first. May be empty only with `acme`, whose certificates are preferred
    /// for its hosts.
    #[serde(default)]
    pub(crate) certificates: Vec<ListenerCertificate>,
    /// PEM file of certificate authorities. When set, clients present a certificate signed by one of them, which servers get
    /// in `X-Client-Cert-Subject`, `X-Client-Cert-Fingerprint` and `Client-Cert`.
    #[serde(default)]
    #[schemars(extend("examples" = ["tls/clients-ca.pem"]))]
    pub(crate) client_ca: Option<String>,
    /// Whether a client may come without a certificate. With `client_ca`.
    #[serde(default)]
    pub(crate) client_auth: ClientAuth,
    /// Certificates from a certificate authority by ACME, renewed when the authority says so (ARI) or when a third of their
    /// life is left. Until a host has one, `certificates` serve; if there are none, its handshakes are refused. With a shared
    /// `store`, one proxy orders at a time, and certificates and challenges are in the store, sealed by `keys`.
    #[serde(default)]
    #[schemars(extend("examples" = [{"directory": "https://acme-v02.api.letsencrypt.org/directory", "hosts": ["shop.example.org"]}]))]
    pub(crate) acme: Option<Acme>,
}

/// Whether a client may come without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ClientAuth {
    /// It may not: its handshake fails.
    #[default]
    Required,
    /// It may. A certificate that it presents must be valid all the same.
    Optional,
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
    /// PEM file with the host's certificate, then its intermediates. A relative path is relative to the directory of the
    /// configuration file.
    #[schemars(extend("examples" = ["tls/shop.pem"]))]
    pub(crate) cert: String,
    /// PEM file with its private key: PKCS#8, SEC1 or PKCS#1, not encrypted.
    #[schemars(extend("examples" = ["tls/shop.key"]))]
    pub(crate) key: String,
    /// Host names that it is used for, exact or like `*.example.org`, where `*` is one label. Empty: the names in the
    /// certificate.
    #[serde(default)]
    #[schemars(extend("examples" = [["shop.example.org"]]))]
    pub(crate) hosts: Vec<String>,
}

/// Timeouts towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTimeouts {
    /// To receive a request's headers. The same time again for a PROXY header and for a TLS handshake before them.
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
    /// `IP:port`, `[IPv6]:port` or `unix:/path`. Anything but a loopback address and a unix socket needs `tokens`.
    pub(crate) address: String,
    /// Tokens that may use the API, as `Authorization: Bearer SECRET`. Without tokens the API is open to every client that can connect.
    pub(crate) tokens: Vec<AdminToken>,
    /// Accepted `Host` names, without port. Any other gets 421, so that no web page reaches this listener by DNS
    /// rebinding.
    pub(crate) allowed_hosts: Vec<String>,
    /// File that keeps over a restart the states and weights that operators set at run time, and which removed servers drain
    /// (`drain_deadline`): an absolute path. Without it they end with the process. A file that cannot be read is put aside
    /// with a warning.
    #[schemars(extend("examples" = ["/var/lib/homing/servers.json"]))]
    pub(crate) state_file: Option<String>,
}

/// A token of the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminToken {
    /// Its name, which the event list shows: letters, digits, `_`, `.`, `-`, at most 64. Unique.
    #[schemars(extend("examples" = ["ops"]))]
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The secret, at least 16 characters. Better not written here: `"${file:/run/secrets/admin}"` or `"${ADMIN_TOKEN}"`.
    #[schemars(extend("x-secret" = true, "examples" = ["${ADMIN_TOKEN}"]))]
    pub secret: Secret,
}

/// What a token of the admin API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:9900".to_owned(),
            tokens: Vec::new(),
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec(),
            state_file: None,
        }
    }
}

impl Admin {
    #[expect(clippy::unnecessary_wraps, reason = "the default of a key that may be null")]
    pub(crate) fn standard() -> Option<Self> {
        Some(Self::default())
    }
}

/// A separate listener for Prometheus.
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
