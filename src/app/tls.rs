//! TLS of a listener, ready for handshakes: which certificate is sent for which host, and which client certificates are
//! accepted.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SignatureScheme};
use smallvec::SmallVec;

use crate::config::{Acme, Certificate, ClientAuth, ClientCa, Config, Listener, Tls, TlsVersion};
use crate::session::token::keyring::Keyring;

use super::acme::live::LiveCertificates;
use super::runtime::Runtime;
use super::session_tickets::SessionTickets;

/// The TLS of every listener, in their order; `None` where there is none. Unchanged settings stay the same object, and with
/// it the TLS sessions that clients may resume where there are no keys for tickets.
pub(super) fn build(
    config: &Config,
    keys: Option<&Keyring>,
    acme: &Arc<LiveCertificates>,
    previous: Option<&Runtime>,
) -> Result<Vec<Option<Arc<ServerConfig>>>, rustls::Error> {
    let unchanged = |listener: &Listener| {
        let previous = previous.filter(|previous| previous.config.keys == config.keys)?;
        let index = previous.config.listeners.iter().position(|before| before.address == listener.address)?;
        let before = previous.config.listeners.get(index)?;
        let same = (&before.tls, before.http1, before.http2) == (&listener.tls, listener.http1, listener.http2);
        if same { previous.tls.get(index)?.clone() } else { None }
    };
    let one = |listener: &Listener| match (&listener.tls, unchanged(listener)) {
        (None, _) => Ok(None),
        (Some(_), Some(unchanged)) => Ok(Some(unchanged)),
        (Some(tls), None) => server_config(tls, listener, keys, acme).map(|config| Some(Arc::new(config))),
    };
    config.listeners.iter().map(one).collect()
}

fn server_config(
    tls: &Tls,
    listener: &Listener,
    keys: Option<&Keyring>,
    acme: &Arc<LiveCertificates>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = match tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match &tls.client_ca {
        Some(authorities) => builder.with_client_cert_verifier(verifier(authorities, tls.client_auth, provider)?),
        None => builder.with_no_client_auth(),
    };
    let ordered = tls.acme.as_ref().map(|settings| OrderedCertificates::new(settings, Arc::clone(acme)));
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(&tls.certificates, ordered)?));
    let protocols = [(listener.http2, b"h2".to_vec()), (listener.http1, b"http/1.1".to_vec())];
    config.alpn_protocols = protocols.into_iter().filter(|(enabled, _)| *enabled).map(|(_, name)| name).collect();
    if let Some(keys) = keys {
        config.ticketer = SessionTickets::new(keys, tls);
    }
    Ok(config)
}

fn verifier(
    ca: &ClientCa,
    client_auth: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in &ca.authorities {
        roots.add(authority.clone())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match client_auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| rustls::Error::General(error.to_string()))
}

/// Certificates for one host: several when they differ in the kind of key.
type Candidates = SmallVec<[Arc<CertifiedKey>; 1]>;

/// Finds the certificate for a host: one that was ordered for it, else of the files the exact name, else the wildcard of its
/// parent, else the first.
#[derive(Debug)]
struct Certificates {
    exact: HashMap<String, Candidates>,
    /// By what stands after `*.`.
    wildcard: HashMap<String, Candidates>,
    /// For clients that name no configured host.
    default: Candidates,
    ordered: Option<OrderedCertificates>,
}

/// Certificates that the proxy orders itself: whichever is there at the handshake.
#[derive(Debug)]
struct OrderedCertificates {
    live: Arc<LiveCertificates>,
    directory: String,
    hosts: Vec<String>,
}

impl OrderedCertificates {
    fn new(acme: &Acme, live: Arc<LiveCertificates>) -> Self {
        Self { live, directory: acme.directory.clone(), hosts: acme.hosts.clone() }
    }

    fn has(&self, host: &str) -> bool {
        self.hosts.iter().any(|one| one == host)
    }

    fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.live.find(&self.directory, host).map(|issued| Arc::clone(&issued.certified))
    }

    /// For clients that name no host, or another one, where no certificate of a file serves them.
    fn first(&self) -> Option<Arc<CertifiedKey>> {
        self.hosts.first().and_then(|host| self.find(host))
    }
}

impl Certificates {
    fn new(configured: &[Certificate], ordered: Option<OrderedCertificates>) -> Result<Self, rustls::Error> {
        let mut all = Self { exact: HashMap::new(), wildcard: HashMap::new(), default: SmallVec::new(), ordered };
        for one in configured {
            let signing = ring::sign::any_supported_type(&one.private_key)?;
            let key = Arc::new(CertifiedKey::new(one.chain.clone(), signing));
            if all.default.is_empty() {
                all.default.push(Arc::clone(&key));
            }
            for host in &one.hosts {
                let candidates = match host.strip_prefix("*.") {
                    Some(parent) => all.wildcard.entry(parent.to_owned()),
                    None => all.exact.entry(host.clone()),
                };
                candidates.or_default().push(Arc::clone(&key));
            }
        }
        Ok(all)
    }

    /// `host` is in lower case.
    fn find(&self, host: Option<&str>) -> &Candidates {
        let exact = host.and_then(|host| self.exact.get(host));
        let wildcard = || host.and_then(|host| self.wildcard.get(host.split_once('.')?.1));
        exact.or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name();
        let ordered = self.ordered.as_ref();
        let own = ordered.zip(host).filter(|(ordered, host)| ordered.has(host));
        if let Some(shown) = own.and_then(|(ordered, host)| ordered.find(host)) {
            return Some(shown);
        }
        let of_files = best(self.find(host), hello.signature_schemes());
        // A host without a certificate is not shown another host's.
        of_files.or_else(|| ordered.filter(|_| own.is_none())?.first())
    }
}

/// The first whose key the client can verify; if there is none, the first, and the handshake fails with the reason.
fn best(candidates: &Candidates, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let fits = candidates.iter().find(|one| one.key.choose_scheme(schemes).is_some());
    fits.or_else(|| candidates.first()).cloned()
}
