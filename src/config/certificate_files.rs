//! Files with certificates and keys: whether they can be read, hold what they should, and fit each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::check_context::{CheckContext, NodeRef};
use super::diagnostics::Diagnostics;
use super::environment::FileText;
use super::suggest::quoted;

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// As written.
    pub written: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Authorities that sign the certificates of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// Where they were read.
    pub file: NamedFile,
    /// At least one.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// TLS towards a server that the proxy is a client of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The authority that signs the server's certificate; `None` = an authority that the system trusts.
    pub authorities: Option<ClientCa>,
    /// What the server's certificate is for; `None` = the host of its address.
    pub server_name: Option<String>,
    /// What the proxy shows to a server that asks.
    pub certificate: Option<ClientCertificate>,
}

/// A certificate of the proxy's own and its key, which fit each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Where the certificate was read.
    pub cert: NamedFile,
    /// Where its key was read.
    pub key: NamedFile,
    /// The proxy's certificate, then those that vouch for it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Never shown: its `Debug` says nothing.
    pub private_key: Arc<PrivateKeyDer<'static>>,
}

const READABLE: &str =
    "a relative path begins at the folder of this file; the user that homing runs as must be allowed to read it";
const CERTIFICATES: &str = "it should be PEM, the host's own certificate first: -----BEGIN CERTIFICATE-----";
const KEYS: &str = "it should be PEM, not encrypted: -----BEGIN PRIVATE KEY-----, -----BEGIN EC PRIVATE KEY----- or \
                    -----BEGIN RSA PRIVATE KEY-----";

/// What the proxy shows to a server that it is a client of.
pub(crate) fn client_certificate(
    [cert, key]: [&str; 2],
    locations: [NodeRef<'_>; 2],
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ClientCertificate> {
    let [cert_at, key_at] = locations;
    let (cert, key) = (named(cert, context), named(key, context));
    let chain = chain(&cert, cert_at, context, diagnostics);
    let private_key = private_key(&key, key_at, context, diagnostics);
    let (chain, private_key) = (chain?, private_key?);
    fit([&cert, &key], &chain, &private_key, locations, diagnostics)?;
    let Some(Ok((_, own))) = chain.first().map(|own| X509Certificate::from_der(own)) else {
        not_a_certificate(&cert, cert_at, diagnostics);
        return None;
    };
    validity(&own, &cert, cert_at, context, diagnostics);
    drop(own);
    Some(ClientCertificate { cert, key, chain, private_key: Arc::new(private_key) })
}

/// Certificates that others are signed by.
pub(crate) fn authorities(
    written: &str,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<ClientCa> {
    let file = named(written, context);
    let authorities = chain(&file, at, context, diagnostics)?;
    let mut store = RootCertStore::empty();
    if authorities.iter().any(|one| store.add(one.clone()).is_err()) {
        not_a_certificate(&file, at, diagnostics);
        return None;
    }
    Some(ClientCa { file, authorities })
}

pub(crate) fn named(written: &str, context: &CheckContext<'_>) -> NamedFile {
    NamedFile { written: written.to_owned(), path: context.folder.join(written) }
}

fn read(
    what: &str,
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<FileText> {
    match context.environment.file(&file.path) {
        Ok(text) => Some(text),
        Err(why) => {
            diagnostics.problem(at.location, format!("cannot read {what} {}: {why}", quoted(&file.written)), READABLE);
            None
        }
    }
}

pub(crate) fn chain(
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<CertificateDer<'static>>> {
    let text = read("the certificate", file, at, context, diagnostics)?.text;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Some(chain),
        Ok(_) => {
            diagnostics.problem(at.location, format!("{} holds no certificate", quoted(&file.written)), CERTIFICATES);
            None
        }
        Err(_) => {
            not_a_certificate(file, at, diagnostics);
            None
        }
    }
}

pub(crate) fn not_a_certificate(file: &NamedFile, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    diagnostics.problem(at.location, format!("{} is damaged", quoted(&file.written)), CERTIFICATES);
}

pub(crate) fn private_key(
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<PrivateKeyDer<'static>> {
    let FileText { text, readable_by_others } = read("the key", file, at, context, diagnostics)?;
    if readable_by_others {
        let message = format!("every user of this machine may read the key {}", quoted(&file.written));
        diagnostics.warn(at.location, message, "chmod 600, or 640 with a group for homing");
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => Some(key),
        Err(error) => {
            let what = if matches!(error, pem::Error::NoItemsFound) { "holds no private key" } else { "is damaged" };
            diagnostics.problem(at.location, format!("{} {what}", quoted(&file.written)), KEYS);
            None
        }
    }
}

/// The key is of a kind that we can use, and belongs to the certificate.
pub(crate) fn fit(
    [cert, key]: [&NamedFile; 2],
    chain: &[CertificateDer<'static>],
    private_key: &PrivateKeyDer<'static>,
    [cert_at, key_at]: [NodeRef<'_>; 2],
    diagnostics: &mut Diagnostics,
) -> Option<()> {
    let Ok(signing) = any_supported_type(private_key) else {
        let message = format!("the key {} is of a kind that is not supported", quoted(&key.written));
        diagnostics.problem(key_at.location, message, "use RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519");
        return None;
    };
    match CertifiedKey::new(chain.to_vec(), signing).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let message =
                format!("the key {} does not fit the certificate {}", quoted(&key.written), quoted(&cert.written));
            diagnostics.problem(key_at.location, message, "name the key that the certificate was made with");
            None
        }
        Err(_) => {
            not_a_certificate(cert, cert_at, diagnostics);
            None
        }
    }
}

pub(crate) fn validity(
    own: &X509Certificate<'_>,
    file: &NamedFile,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) {
    let now = context.environment.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (begin, end) = (own.validity().not_before, own.validity().not_after);
    let name = quoted(&file.written);
    if now > end.timestamp() {
        diagnostics.warn(at.location, format!("the certificate {name} expired on {end}"), "put a new one in its place");
    } else if now < begin.timestamp() {
        let message = format!("the certificate {name} is not valid before {begin}");
        diagnostics.warn(at.location, message, "look at the clock of this machine");
    }
}
