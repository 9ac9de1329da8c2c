//! The raw configuration of certificates that come by ACME.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Certificates from a certificate authority by ACME.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acme {
    /// The authority's directory, an `https` URL. Its terms of service are agreed to. Let's Encrypt:
    /// `https://acme-v02.api.letsencrypt.org/directory`; to try things, without its rate limits and not trusted by browsers:
    /// `https://acme-staging-v02.api.letsencrypt.org/directory`.
    #[schemars(extend("examples" = ["https://acme-v02.api.letsencrypt.org/directory"], "x-stand-in" = ""))]
    pub(crate) directory: String,
    /// PEM file of certificate authorities that the directory's own certificate is verified by. null = those that the system
    /// trusts.
    #[serde(default)]
    #[schemars(extend("examples" = ["tls/private-ca.pem"]))]
    pub(crate) ca: Option<String>,
    /// Where the authority may send mail about certificates, as `mailto:` URLs.
    #[serde(default)]
    #[schemars(extend("examples" = [["mailto:ops@example.org"]]))]
    pub(crate) contact: Vec<String>,
    /// Host names; each gets a certificate of its own, and clients that ask for the host are shown it. No wildcards: they need
    /// the challenge dns-01.
    #[schemars(length(min = 1), extend("examples" = [["shop.example.org"]]))]
    pub(crate) hosts: Vec<String>,
    /// Directory for the account and the certificates, with their keys: an absolute path, made when it is missing, for the
    /// user of the proxy only. Keep it over restarts and upgrades.
    #[serde(default = "Acme::storage")]
    pub(crate) storage: String,
    /// How the authority sees that the host is served here.
    #[serde(default)]
    pub(crate) challenge: AcmeChallenge,
}

impl Acme {
    fn storage() -> String {
        "/var/lib/homing/acme".to_owned()
    }
}

/// How a certificate authority sees that a host is served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AcmeChallenge {
    /// It requests `/.well-known/acme-challenge/TOKEN` on port 80 of the host. Every listener without TLS answers, before routes.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// It connects by TLS to port 443 of the host. The listener answers before any request.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl AcmeChallenge {
    /// What the authority's handshakes for tls-alpn-01 offer by ALPN, and nothing else (RFC 8737).
    pub const ALPN: &[u8] = b"acme-tls/1";
}
