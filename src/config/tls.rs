//! The checked configuration of TLS, on a listener and to servers, with what the files held when it was read.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate_files::{ClientCa, ClientTls, NamedFile};
use super::raw::{ClientAuth, TlsVersion};

/// TLS on a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// At least one; the first is shown to clients that ask for no host of ours.
    pub certificates: Vec<Certificate>,
    /// The authority that signs clients' certificates; `None` = clients are not asked for one.
    pub client_ca: Option<ClientCa>,
    /// Whether a client may come without, when it is asked.
    pub client_auth: ClientAuth,
}

/// A certificate and its key, which fit each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// Where the certificate was read.
    pub cert: NamedFile,
    /// Where its key was read.
    pub key: NamedFile,
    /// Hosts that it is shown for, lower case, exact or `*.` and a suffix. Empty: as the first certificate only.
    pub hosts: Vec<String>,
    /// The host's certificate, then those that vouch for it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Never shown: its `Debug` says nothing.
    pub private_key: Arc<PrivateKeyDer<'static>>,
    /// End of its validity, in seconds since 1970.
    pub not_after: i64,
}

impl Certificate {
    /// Its name in metrics: its first host, or else its file without the extension.
    pub fn name(&self) -> &str {
        let stem = || self.cert.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("-");
        self.hosts.first().map_or_else(stem, String::as_str)
    }
}

impl Tls {
    /// Every file that was read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let certificates = self.certificates.iter().flat_map(|one| [&one.cert, &one.key]);
        certificates.chain(self.client_ca.iter().map(|ca| &ca.file)).map(|file| file.path.as_path())
    }
}

/// TLS to the servers of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Servers' certificates are verified.
    pub verify: bool,
    /// By which authorities and for which name, and what the proxy shows to servers.
    pub client: ClientTls,
}

impl ServerTls {
    /// Every file that was read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let own = self.client.certificate.iter().flat_map(|one| [&one.cert, &one.key]);
        own.chain(self.client.authorities.iter().map(|ca| &ca.file)).map(|file| file.path.as_path())
    }
}
