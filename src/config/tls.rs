//! The checked configuration of TLS, on a listener and to servers, with what the files held when it was read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate_files::{ClientCa, ClientTls, NamedFile};
use super::raw::{AcmeChallenge, ClientAuth, ExternalAccount, TlsVersion};
use super::secret::digest;

/// TLS on a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The first is shown to clients that ask for no host of ours. Empty only with `acme`.
    pub certificates: Vec<Certificate>,
    /// The authority that signs clients' certificates; `None` = clients are not asked for one.
    pub client_ca: Option<ClientCa>,
    /// Whether a client may come without, when it is asked.
    pub client_auth: ClientAuth,
    /// Certificates that the proxy orders itself.
    pub acme: Option<Acme>,
}

/// Certificates from an authority by ACME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// URL of the authority's directory.
    pub directory: String,
    /// The authorities that sign the directory's own certificate; `None` = those that the system trusts.
    pub authorities: Option<ClientCa>,
    /// `mailto:` URLs.
    pub contact: Vec<String>,
    /// The account at the authority's own site that a new account is bound to.
    pub external_account: Option<ExternalAccount>,
    /// Lower case, at least one. Each has a certificate of its own.
    pub hosts: Vec<String>,
    /// Where the account and the certificates are kept.
    pub storage: PathBuf,
    /// How the authority sees that a host is served here.
    pub challenge: AcmeChallenge,
}

impl Acme {
    /// What is kept for this directory: another one has another account and other certificates.
    pub fn folder(&self) -> PathBuf {
        let url = self.directory.strip_prefix("https://").unwrap_or(&self.directory);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let readable: String = url.chars().map(plain).take(64).collect();
        let hash: String = digest(self.directory.as_bytes()).chars().take(8).collect();
        self.storage.join(format!("{}-{hash}", readable.trim_matches(['-', '.'])))
    }

    /// The file with the certificate of a host, those that vouch for it, and its key.
    pub fn certificate_file(&self, host: &str) -> PathBuf {
        self.folder().join(format!("{host}.pem"))
    }
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
        let acme = self.acme.iter().filter_map(|acme| acme.authorities.as_ref());
        let authorities = self.client_ca.iter().chain(acme).map(|ca| &ca.file);
        certificates.chain(authorities).map(|file| file.path.as_path())
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
