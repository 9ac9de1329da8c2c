//! The client certificate of a TLS connection: read once, after the handshake.

use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use pingora::listeners::TlsAccept;
use pingora::protocols::tls::{SslDigest, TlsRef};
use ring::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::proxy::context::ClientCertificate;

use super::distinguished_name::rfc4514;

/// Reads the certificate that a client has presented; the connection's [`SslDigest`] keeps it.
pub(super) struct CertificateReader;

/// What a client has presented.
pub(super) struct PresentedCertificate {
    certificate: Arc<ClientCertificate>,
    /// The end of its validity, in seconds since 1970.
    not_after: i64,
}

#[async_trait]
impl TlsAccept for CertificateReader {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        // One that cannot be read is kept as such: the client did not come without.
        Some(Arc::new(read(tls.peer_certificate_der()?)))
    }
}

/// Whether the connection may go on. In a session that is resumed no certificate is verified again, and one may have expired
/// meanwhile.
pub(super) fn is_acceptable(digest: &SslDigest, now: i64) -> bool {
    match digest.extension.get::<Option<PresentedCertificate>>() {
        None => true,
        Some(presented) => presented.as_ref().is_some_and(|presented| presented.not_after >= now),
    }
}

/// The certificate of the connection's client.
pub(crate) fn presented(digest: &SslDigest) -> Option<&Arc<ClientCertificate>> {
    digest.extension.get::<Option<PresentedCertificate>>()?.as_ref().map(|presented| &presented.certificate)
}

/// `None`: it cannot be read, though it was verified.
fn read(der: &[u8]) -> Option<PresentedCertificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let digest: [u8; 32] = digest(&SHA256, der).as_ref().try_into().ok()?;
    let mut fingerprint = String::with_capacity(64);
    for byte in digest {
        let _ = write!(fingerprint, "{byte:02x}");
    }
    let subject = Some(rfc4514(parsed.subject())).filter(|subject| !subject.is_empty());
    let certificate = ClientCertificate {
        subject: subject.map(HeaderValue::try_from).transpose().ok()?,
        fingerprint: HeaderValue::try_from(fingerprint).ok()?,
        // A byte sequence of structured fields (RFC 9440, section 2.1).
        encoded: HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok()?,
        digest,
    };
    Some(PresentedCertificate {
        certificate: Arc::new(certificate),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_without_a_subject_is_known_by_its_fingerprint() {
        let mut params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let PresentedCertificate { certificate, .. } = read(&der).unwrap();
        assert_eq!(certificate.subject, None);
        assert_eq!(certificate.fingerprint.len(), 64);
        let encoded = certificate.encoded.to_str().unwrap();
        let inner = encoded.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).unwrap();
        assert_eq!(STANDARD.decode(inner).unwrap(), der);
    }

    #[test]
    fn what_is_no_certificate_cannot_be_read() {
        assert!(read(b"not DER").is_none());
    }
}
