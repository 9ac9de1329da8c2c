//! The raw configuration of certificates that come by ACME.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::secret::Secret;

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
    /// The account at the authority's own site that the proxy's account is bound to (external account binding), where the
    /// authority requires one. null = none. Needed once, when the proxy makes its account.
    #[serde(default)]
    #[schemars(extend("examples" = [{"key_id": "kid-1", "key": "${file:/run/secrets/acme-key}"}]))]
    pub(crate) external_account: Option<ExternalAccount>,
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

/// An account that the authority knows from its own site (RFC 8555, section 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// Its key's id, as the authority shows it.
    #[schemars(extend("examples" = ["kid-1"]))]
    pub key_id: String,
    /// Its key (HMAC), as the authority shows it, in base64url. Better not written here: `"${file:/run/secrets/acme-key}"` or
    /// `"${ACME_KEY}"`.
    #[schemars(extend("x-secret" = true, "examples" = ["${file:/run/secrets/acme-key}"]))]
    pub key: Secret,
}

impl ExternalAccount {
    /// The bytes of its key; `None`: they are not base64url. Padding is optional.
    pub fn decoded_key(&self) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.key.expose().trim().trim_end_matches('=');
        URL_SAFE_NO_PAD.decode(text).ok().map(Zeroizing::new)
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
