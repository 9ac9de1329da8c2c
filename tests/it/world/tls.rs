//! Certificates made for a test, and clients that speak TLS.

use std::fs;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::client::{Response, Wire};
use super::h2c::{H2Request, exchange};
use super::http1::Reader;
use super::net::{Address, PATIENCE, Stream};

/// A client's connection.
pub(crate) type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// Signs certificates, and is what clients believe in.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        Self { certificate: made.der().clone(), pem: made.pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, hosts: &[&str]) -> Signed {
        self.sign_with(hosts, |_| {})
    }

    /// The same with more to say, e.g. another validity.
    pub(crate) fn sign_with(&self, hosts: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Signed {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        edit(&mut params);
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { certificate: made.der().clone(), pem: made.pem(), key }
    }

    /// The same with an RSA key, which takes too long to make anew.
    pub(crate) fn sign_rsa(&self, hosts: &[&str]) -> Signed {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let params = CertificateParams::new(hosts).expect("host names");
        let key = KeyPair::from_pem(include_str!("../../data/tls/rsa.key")).expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { certificate: made.der().clone(), pem: made.pem(), key }
    }

    /// Writes a new certificate to `NAME.pem` and its key to `NAME.key`.
    pub(crate) fn issue(&self, directory: &Path, name: &str, hosts: &[&str]) -> Signed {
        let signed = self.sign(hosts);
        signed.write(directory, name);
        signed
    }

    /// Writes its own certificate to `NAME.pem`.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        fs::write(directory.join(format!("{name}.pem")), &self.pem).expect("a file for the authority");
    }
}

impl Signed {
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        fs::write(directory.join(format!("{name}.pem")), &self.pem).expect("a file for the certificate");
        fs::write(directory.join(format!("{name}.key")), self.key.serialize_pem()).expect("a file for the key");
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key that rustls reads")
    }
}

/// How a client speaks TLS.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    believes: &'a CertificateDer<'static>,
    shows: Option<&'a Signed>,
    versions: &'a [&'static SupportedProtocolVersion],
    protocols: &'a [&'a str],
    suites: Option<&'a [SupportedCipherSuite]>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(believes: &'a Authority) -> Self {
        Self::believing(&believes.certificate)
    }

    /// The same with the certificate of an authority of another's making.
    pub(crate) fn believing(believes: &'a CertificateDer<'static>) -> Self {
        Self { believes, shows: None, versions: rustls::ALL_VERSIONS, protocols: &[], suites: None }
    }

    /// With a certificate of its own.
    pub(crate) fn showing(self, certificate: &'a Signed) -> Self {
        Self { shows: Some(certificate), ..self }
    }

    pub(crate) fn versions(self, versions: &'a [&'static SupportedProtocolVersion]) -> Self {
        Self { versions, ..self }
    }

    /// No other cipher suites; those of TLS 1.2 name the kind of the server's key.
    pub(crate) fn suites(self, suites: &'a [SupportedCipherSuite]) -> Self {
        Self { suites: Some(suites), ..self }
    }

    /// What it offers by ALPN.
    pub(crate) fn protocols(self, protocols: &'a [&'a str]) -> Self {
        Self { protocols, ..self }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.believes.clone()).expect("an authority");
        let mut provider = rustls::crypto::ring::default_provider();
        if let Some(suites) = self.suites {
            provider.cipher_suites = suites.to_vec();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(self.versions);
        let config = config.expect("versions of TLS").with_root_certificates(roots);
        let mut config = match self.shows {
            Some(own) => config.with_client_auth_cert(vec![own.certificate.clone()], own.private_key()).expect("a key"),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A connection after its handshake with `host` as server name.
    #[track_caller]
    pub(crate) fn connect(&self, address: &Address, host: &str) -> Wire {
        self.try_connect(address, host).unwrap_or_else(|e| panic!("no TLS with {host}: {e}"))
    }

    pub(crate) fn try_connect(&self, address: &Address, host: &str) -> io::Result<Wire> {
        self.try_connect_after(address, host, b"")
    }

    /// The same, with some bytes before the handshake.
    pub(crate) fn try_connect_after(&self, address: &Address, host: &str, before: &[u8]) -> io::Result<Wire> {
        connect(self.config(), address, host, before)
    }

    /// The same client again and again.
    pub(crate) fn resuming(&self) -> Resuming {
        Resuming { config: self.config() }
    }

    /// Requests over HTTP/2, which ALPN agrees on.
    pub(crate) fn h2(&self, address: &Address, host: &str, request: H2Request) -> Result<Response, String> {
        let Address::Tcp(address) = *address else { panic!("TLS is tried over TCP") };
        let connector = tokio_rustls::TlsConnector::from(Self { protocols: &["h2", "http/1.1"], ..*self }.config());
        let name = ServerName::try_from(host.to_owned()).expect("a host name");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = async move {
            let socket = tokio::net::TcpStream::connect(address).await.map_err(|e| e.to_string())?;
            let stream = connector.connect(name, socket).await.map_err(|e| e.to_string())?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(format!("ALPN agreed on {:?}", stream.get_ref().1.alpn_protocol()));
            }
            let (client, connection) = h2::client::handshake(stream).await.map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            exchange(client, request).await
        };
        runtime.block_on(async { timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer in time".into())) })
    }
}

/// A client that keeps what it needs to resume its TLS sessions.
#[derive(Debug)]
pub(crate) struct Resuming {
    config: Arc<ClientConfig>,
}

impl Resuming {
    pub(crate) fn try_connect(&self, address: &Address, host: &str) -> io::Result<Wire> {
        connect(Arc::clone(&self.config), address, host, b"")
    }
}

fn connect(config: Arc<ClientConfig>, address: &Address, host: &str, before: &[u8]) -> io::Result<Wire> {
    let Stream::Tcp(mut socket) = Stream::connect(address)? else { panic!("TLS is tried over TCP") };
    socket.write_all(before)?;
    let name = ServerName::try_from(host.to_owned()).expect("a host name");
    let mut session = ClientConnection::new(config, name).expect("a client");
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(Wire { reader: Reader::new(Stream::Tls(Box::new(StreamOwned::new(session, socket)))) })
}

/// What a connection's handshake came to.
pub(crate) trait Handshake {
    /// The certificate that the proxy showed.
    fn certificate(&self) -> CertificateDer<'static>;
    /// The protocol that ALPN agreed on.
    fn protocol(&self) -> Option<String>;
    /// It resumed an earlier TLS session.
    fn is_resumed(&self) -> bool;
}

impl Handshake for Wire {
    fn certificate(&self) -> CertificateDer<'static> {
        let shown = session(self).peer_certificates().expect("certificates");
        shown.first().expect("a certificate").clone().into_owned()
    }

    fn is_resumed(&self) -> bool {
        session(self).handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn protocol(&self) -> Option<String> {
        session(self).alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }
}

fn session(wire: &Wire) -> &ClientConnection {
    let Stream::Tls(stream) = &wire.reader.stream else { panic!("not a connection with TLS") };
    &stream.conn
}
