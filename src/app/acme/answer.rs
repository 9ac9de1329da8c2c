//! The answers to challenges, whichever of the proxies with one store has placed the order.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::app::state::AppState;
use crate::config::AcmeChallenge;

use super::shared::SharedNotes;

impl AppState {
    /// The response to a request of the challenge http-01, if there is such a challenge.
    pub async fn acme_response(&self, token: &str) -> Option<String> {
        self.acme_authorization(AcmeChallenge::Http01, token).await
    }

    /// The settings of a handshake for the challenge tls-alpn-01, if there is such a challenge for the host.
    pub async fn acme_handshake(&self, host: &str) -> Option<Arc<ServerConfig>> {
        let authorization = self.acme_authorization(AcmeChallenge::TlsAlpn01, host).await?;
        let config = handshake(host, &authorization);
        config.inspect_err(|why| tracing::error!(host, why, "the challenge tls-alpn-01 cannot be answered")).ok()
    }

    async fn acme_authorization(&self, kind: AcmeChallenge, subject: &str) -> Option<String> {
        if let Some(own) = self.acme.challenges.authorization(kind, subject) {
            return Some(own);
        }
        let store = self.sessions.shared.as_ref()?;
        let _permit = self.acme.lookups.try_acquire().ok()?;
        let runtime = self.current.load_full();
        let notes = SharedNotes::new(store, &runtime.config, "");
        notes.authorization(kind, subject).await.ok().flatten().map(|text| text.as_str().to_owned())
    }
}

/// A certificate that is signed by itself and has a hash of the key authorization.
fn handshake(host: &str, authorization: &str) -> Result<Arc<ServerConfig>, String> {
    let hash = ring::digest::digest(&ring::digest::SHA256, authorization.as_bytes());
    let make = || {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
        let key = KeyPair::generate()?;
        Ok((params.self_signed(&key)?.der().clone(), key))
    };
    let (certificate, key) = make().map_err(|error: rcgen::Error| error.to_string())?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_no_client_auth();
    let signing = any_supported_type(&key).map_err(|error| error.to_string())?;
    // Not verified against each other: the extension is critical, and rustls does not know it.
    let certified = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], signing));
    let mut config = builder.with_cert_resolver(Arc::new(certified));
    config.alpn_protocols = vec![AcmeChallenge::ALPN.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_for_a_challenge_can_be_made() {
        let config = handshake("a.example", "token.thumbprint").unwrap();
        assert_eq!(config.alpn_protocols, [AcmeChallenge::ALPN]);
    }
}
