//! A certificate that an authority has issued by ACME, with its key: one text, so that a file or a store has both or none.

use std::sync::Arc;

use instant_acme::CertificateIdentifier;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, Der, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// A certificate of one host, ready for handshakes.
#[derive(Debug)]
pub(crate) struct IssuedCertificate {
    /// For handshakes.
    pub(crate) certified: Arc<CertifiedKey>,
    /// Begin of its validity, in seconds since 1970.
    pub(crate) not_before: i64,
    /// End of its validity.
    pub(crate) not_after: i64,
    /// What the authority knows it by; `None`: it names no authority's key.
    pub(crate) identifier: Option<CertificateIdentifier<'static>>,
    /// The key, the certificate, and those that vouch for it.
    pub(crate) pem: Zeroizing<String>,
}

impl IssuedCertificate {
    /// Reads the text. An error: why it is no certificate of that host.
    pub(crate) fn parse(host: &str, pem: &str) -> Result<Self, String> {
        let private_key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_error| "it has no key".to_owned())?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|_error| "a certificate is damaged".to_owned())?;
        let own = chain.first().ok_or_else(|| "it has no certificate".to_owned())?;
        let (_, parsed) = X509Certificate::from_der(own).map_err(|_error| "the certificate is damaged".to_owned())?;
        if !is_for(&parsed, host) {
            return Err(format!("the certificate is not for {host}"));
        }
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let identifier = identifier(&parsed);
        drop(parsed);
        let signing = any_supported_type(&private_key).map_err(|error| error.to_string())?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_error| "the key does not fit the certificate".to_owned())?;
        let pem = Zeroizing::new(pem.to_owned());
        Ok(Self { certified: Arc::new(certified), not_before, not_after, identifier, pem })
    }

    /// Whether it was issued after another one.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        (self.not_before, self.not_after) > (other.not_before, other.not_after)
    }
}

fn is_for(certificate: &X509Certificate<'_>, host: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(name) => name.eq_ignore_ascii_case(host),
        _ => false,
    })
}

/// RFC 9773, section 4.1.
fn identifier(certificate: &X509Certificate<'_>) -> Option<CertificateIdentifier<'static>> {
    let authority = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref().map(|key| key.0),
        _ => None,
    })?;
    let serial = Der::from_slice(certificate.raw_serial());
    Some(CertificateIdentifier::new(Der::from_slice(authority), serial).into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate signed by itself, as text.
    pub(in crate::app::acme) fn pem(host: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
        format!("{}{}", key.serialize_pem(), certificate.pem())
    }

    #[test]
    fn key_and_certificate_of_the_host_are_read() {
        let issued = IssuedCertificate::parse("a.example", &pem("A.example")).unwrap();
        assert!(issued.not_before < issued.not_after && issued.certified.cert.len() == 1);
    }

    #[test]
    fn what_is_damaged_or_another_hosts_is_refused_with_the_reason() {
        let (whole, other) = (pem("a.example"), pem("a.example"));
        let (key, certificate) = whole.split_at(whole.find("-----BEGIN CERTIFICATE").unwrap());
        let (other_key, _) = other.split_at(other.find("-----BEGIN CERTIFICATE").unwrap());
        for (text, why) in [
            ("", "it has no key"),
            (key, "it has no certificate"),
            (whole.get(..whole.len() - 40).unwrap(), "a certificate is damaged"),
            (certificate, "it has no key"),
            (&pem("b.example"), "the certificate is not for a.example"),
            (&format!("{other_key}{certificate}"), "the key does not fit the certificate"),
        ] {
            assert_eq!(IssuedCertificate::parse("a.example", text).unwrap_err(), why, "{text}");
        }
    }
}
