//! TLS to the servers of a pool: what Pingora needs for a handshake, made once for a configuration.
//!
//! Three traps of Pingora 0.9.1 are avoided here and by the check of the configuration. It verifies no certificate where a
//! peer has no name, so each peer has one. It finds an idle connection by a key that leaves out the authorities, and has the
//! proxy's own certificate by its serial number only, so each [`PoolTls`] has a group of connections of its own: no other pool
//! uses them, nor does this pool once a file has changed. And a server that does not agree to HTTP/2 gets HTTP/1.1, also where
//! the pool demands HTTP/2: `proxy::upstream` refuses that.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::tls::CaType;
use pingora::protocols::{ALPN, Stream};
use pingora::upstreams::peer::{HttpPeer, Scheme};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora::{Error, Result};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::config::{self, UpstreamProtocol};

use super::tls_failure::NO_HTTP2;

/// Loads no certificates: Pingora loads the system's for every connector, which takes tens of milliseconds, and ends the
/// process if there are none. Each peer with TLS has its own authorities.
pub const NO_CERTIFICATES: &str = "/dev/null";

/// Where nothing is verified, Pingora still asks for an authority. The key of this one was thrown away.
const NO_AUTHORITY: &[u8] = include_bytes!("no_authority.der");

/// Why TLS to servers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsBuildError {
    /// No authority is configured, and the system has none.
    #[error("this system has no certificates of authorities; name those of the servers in ca")]
    NoAuthorities,
    /// The proxy's own key.
    #[error("the key {0} is not of a kind that is supported")]
    Key(String),
}

/// The authorities that the system trusts, read when a pool first needs them.
#[derive(Default)]
pub struct SystemAuthorities(OnceLock<Vec<CertificateDer<'static>>>);

impl SystemAuthorities {
    fn get(&self) -> &[CertificateDer<'static>] {
        self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs().certs;
            found.into_iter().filter(is_usable).collect()
        })
    }
}

/// Both parsers take it: a certificate that one of them refuses would fail every handshake.
fn is_usable(authority: &CertificateDer<'static>) -> bool {
    X509Certificate::from_der(authority).is_ok() && RootCertStore::empty().add(authority.clone()).is_ok()
}

/// TLS to the servers of a pool, as its files were when they were read.
pub struct PoolTls {
    settings: config::ServerTls,
    authorities: Arc<CaType>,
    certificate: Option<Arc<CertKey>>,
    /// Pingora's group of connections.
    group: u64,
    /// For connections that Pingora's proxy does not hold.
    connector: TransportConnector,
}

/// The last group that was given out; 0 is that of all connections without TLS.
static LAST_GROUP: AtomicU64 = AtomicU64::new(0);

impl PoolTls {
    /// Builds it, or takes the previous one if nothing has changed, with its open connections.
    ///
    /// # Errors
    /// When there are no authorities, or the key cannot be used.
    pub fn build(
        settings: &config::ServerTls,
        system: &SystemAuthorities,
        previous: Option<&Arc<Self>>,
    ) -> std::result::Result<Arc<Self>, TlsBuildError> {
        let none = [CertificateDer::from(NO_AUTHORITY)];
        let authorities = match &settings.client.authorities {
            _ if !settings.verify => &none,
            Some(configured) => configured.authorities.as_slice(),
            None => system.get(),
        };
        if authorities.is_empty() {
            return Err(TlsBuildError::NoAuthorities);
        }
        if let Some(previous) = previous.filter(|previous| previous.is_of(settings, authorities)) {
            return Ok(Arc::clone(previous));
        }
        let mut options = ConnectorOptions::new(1);
        options.ca_file = Some(NO_CERTIFICATES.to_owned());
        Ok(Arc::new(Self {
            authorities: authorities.iter().map(|one| WrappedX509::new(one.to_vec(), parse_x509)).collect(),
            certificate: settings.client.certificate.as_ref().map(own_certificate).transpose()?.map(Arc::new),
            settings: settings.clone(),
            group: LAST_GROUP.fetch_add(1, Ordering::Relaxed) + 1,
            connector: TransportConnector::new(Some(options)),
        }))
    }

    fn is_of(&self, settings: &config::ServerTls, authorities: &[CertificateDer<'static>]) -> bool {
        let own = self.authorities.iter().map(|one| one.borrow_raw_cert().as_slice());
        self.settings == *settings && own.eq(authorities.iter().map(|one| &**one))
    }

    /// Tells it from the one before a file changed, and from those of other pools.
    pub fn group(&self) -> u64 {
        self.group
    }

    /// Makes a connection to a peer, with its handshake. What it trusts and shows is in the peer, as for Pingora's proxy.
    ///
    /// # Errors
    /// Pingora's, by which the failed attempt is judged.
    pub async fn connect(&self, peer: &HttpPeer) -> Result<Stream> {
        self.connector.new_stream(peer).await
    }

    /// Makes a connection to a peer, with its handshake, and closes it.
    ///
    /// # Errors
    /// Pingora's, by which the failed attempt is judged.
    pub async fn test(&self, peer: &HttpPeer) -> Result<()> {
        let mut stream = self.connect(peer).await?;
        if peer.options.alpn.get_min_http_version() == 2 && stream.selected_alpn_proto() != Some(ALPN::H2) {
            return Err(Error::explain(NO_HTTP2, "the server does not agree to HTTP/2").into_up());
        }
        stream.shutdown().await;
        Ok(())
    }

    fn apply(&self, peer: &mut HttpPeer, address: &config::ServerAddress) {
        peer.scheme = Scheme::HTTPS;
        peer.sni = self.name_of(address);
        peer.client_cert_key.clone_from(&self.certificate);
        peer.group_key = self.group;
        peer.options.ca = Some(Arc::clone(&self.authorities));
        peer.options.verify_cert = self.settings.verify;
        peer.options.verify_hostname = self.settings.verify;
    }

    /// What the server's certificate is for. Never empty: without a name Pingora would verify nothing.
    fn name_of(&self, address: &config::ServerAddress) -> String {
        let name = match (&self.settings.client.server_name, address) {
            (Some(name), _) => name.clone(),
            (None, config::ServerAddress::Name { host, .. }) => host.clone(),
            (None, config::ServerAddress::Ip(address)) => address.ip().to_string(),
            // Only where nothing is verified.
            (None, config::ServerAddress::Unix(_)) => "localhost".to_owned(),
        };
        name.strip_suffix('.').map(str::to_owned).unwrap_or(name)
    }
}

/// Pingora parses the key with each handshake, and would end the request if it could not.
fn own_certificate(own: &config::ClientCertificate) -> std::result::Result<CertKey, TlsBuildError> {
    let key = own.private_key.secret_der().to_vec();
    if PrivateKeyDer::try_from(key.as_slice()).is_err() {
        return Err(TlsBuildError::Key(own.key.written.clone()));
    }
    Ok(CertKey::new(own.chain.iter().map(|one| one.to_vec()).collect(), key))
}

/// A peer for a server's address, in the pool's protocol, with the pool's TLS. The address of a host name is set by its user.
pub fn peer(address: &config::ServerAddress, protocol: UpstreamProtocol, tls: Option<&PoolTls>) -> HttpPeer {
    let placeholder = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut peer = match address {
        config::ServerAddress::Ip(address) => HttpPeer::new(*address, false, String::new()),
        config::ServerAddress::Name { .. } | config::ServerAddress::Unix(_) => {
            HttpPeer::new(placeholder, false, String::new())
        }
    };
    if let config::ServerAddress::Unix(path) = address
        && let Ok(path) = std::os::unix::net::SocketAddr::from_pathname(path)
    {
        peer._address = PeerAddr::Unix(path);
    }
    match (protocol, tls) {
        (UpstreamProtocol::Http1, _) | (UpstreamProtocol::Auto, None) => {}
        (UpstreamProtocol::H2, _) => peer.options.set_http_version(2, 2),
        (UpstreamProtocol::Auto, Some(_)) => peer.options.set_http_version(2, 1),
    }
    if let Some(tls) = tls {
        tls.apply(&mut peer, address);
    }
    peer
}

/// A peer for connections that carry no request of a client, each of which takes at most this long.
pub fn test_peer(
    address: &config::ServerAddress,
    protocol: UpstreamProtocol,
    tls: Option<&PoolTls>,
    timeout: Duration,
) -> HttpPeer {
    let mut peer = peer(address, protocol, tls);
    peer.options.connection_timeout = Some(timeout);
    peer.options.read_timeout = Some(timeout);
    peer.options.write_timeout = Some(timeout);
    peer
}
