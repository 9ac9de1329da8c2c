//! A connection to a node: its name resolved, TCP, TLS where it is configured, and the handshake; each step in bounded time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::protocol::frame;
use super::protocol::handshake::{self, Handshake};
use crate::config::certificate_files::ClientTls;
use crate::config::secret::Secret;
use crate::store::engine::StoreError;

/// Plain or TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
pub(super) type Stream = Box<dyn Duplex>;

/// How to connect to a node.
pub(super) struct Connector {
    tls: Option<Tls>,
    login: Option<(String, Secret)>,
    /// Limit for each step.
    timeout: Duration,
}

struct Tls {
    connector: TlsConnector,
    /// The name in the node's certificate; `None` = the host of the address.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    /// # Errors
    /// When TLS cannot be set up: no authorities, or an unusable key.
    pub(super) fn new(
        tls: Option<&ClientTls>,
        login: Option<(String, Secret)>,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let tls = tls.map(Tls::new).transpose().map_err(StoreError::Refused)?;
        Ok(Self { tls, login, timeout })
    }

    /// A connection to the node at `host:port`, ready for requests. The addresses of a name are tried in order.
    pub(super) async fn connect(&self, address: &str) -> Result<Stream, StoreError> {
        let mut last = unreachable(address, "its name has no address");
        for place in self.within(address, "finding its address", lookup_host(address)).await? {
            match self.meet(address, place).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn meet(&self, address: &str, place: SocketAddr) -> Result<Stream, StoreError> {
        let stream = self.within(address, "connecting", TcpStream::connect(place)).await?;
        stream.set_nodelay(true).map_err(|error| unreachable(address, &error.to_string()))?;
        let mut stream: Stream = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = tls.name(address)?;
                Box::new(self.within(address, "the TLS handshake", tls.connector.connect(name, stream)).await?)
            }
        };
        let login = self.login.as_ref().map(|(user, password)| (user.as_str(), password.expose()));
        let response = self.within(address, "its first response", greet(&mut stream, login)).await?;
        judge(address, response)?;
        Ok(stream)
    }

    async fn within<T>(
        &self,
        address: &str,
        what: &str,
        step: impl Future<Output = io::Result<T>> + Send,
    ) -> Result<T, StoreError> {
        match timeout(self.timeout, step).await {
            Ok(done) => done.map_err(|error| unreachable(address, &error.to_string())),
            Err(_elapsed) => Err(unreachable(address, &format!("{what} took longer than {:?}", self.timeout))),
        }
    }
}

impl Tls {
    fn new(settings: &ClientTls) -> Result<Self, String> {
        let server_name = settings.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = server_name.map_err(|_invalid| "no certificate can be for this server_name".to_owned())?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(settings)?), Arc::clone(&provider)).build();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(verifier.map_err(|error| error.to_string())?);
        let config = match &settings.certificate {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(own.chain.clone(), own.private_key.clone_key())
                .map_err(|error| error.to_string())?,
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    fn name(&self, address: &str) -> Result<ServerName<'static>, StoreError> {
        if let Some(name) = &self.server_name {
            return Ok(name.clone());
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        ServerName::try_from(host.to_owned())
            .map_err(|_invalid| StoreError::Refused(format!("no certificate can be for the host {host:?}")))
    }
}

/// The configured authorities, or the system's.
fn roots(settings: &ClientTls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &settings.authorities {
        for authority in &ca.authorities {
            roots.add(authority.clone()).map_err(|error| error.to_string())?;
        }
        return Ok(roots);
    }
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err("this system has no certificates of authorities; name them in tls.ca".to_owned());
    }
    Ok(roots)
}

async fn greet(stream: &mut Stream, login: Option<(&str, &str)>) -> io::Result<Bytes> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    stream.write_all(&handshake::request(login)).await?;
    stream.flush().await?;
    let mut incoming = BytesMut::new();
    loop {
        if let Some(frame) = frame::take(&mut incoming).map_err(|malformed| invalid(format!("it sent {malformed}")))? {
            if !incoming.is_empty() {
                return Err(invalid("it sent more than what was asked".to_owned()));
            }
            return Ok(frame);
        }
        if stream.read_buf(&mut incoming).await? == 0 {
            let words = "it closed the connection: does it expect TLS, or is this not its client port?";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, words));
        }
    }
}

fn judge(address: &str, response: Bytes) -> Result<(), StoreError> {
    match handshake::response(response) {
        Ok(Handshake::Accepted) => Ok(()),
        Ok(Handshake::TooOld) => Err(refused(address, "it is too old; use Ignite 2.15 or newer")),
        Ok(Handshake::WrongLogin(reason)) => Err(refused(address, &format!("it does not take this user: {reason}"))),
        Ok(Handshake::Refused { version: [major, minor, patch], .. })
            if [major, minor, patch] != handshake::VERSION =>
        {
            let words = format!("it speaks version {major}.{minor}.{patch} of the protocol; use Ignite 2.15 or newer");
            Err(refused(address, &words))
        }
        // A node that is still starting says "Node in recovery mode".
        Ok(Handshake::Refused { reason, .. }) => Err(unreachable(address, &reason)),
        Err(malformed) => Err(StoreError::Unreadable(format!("ignite at {address}: it sent {malformed}"))),
    }
}

fn unreachable(address: &str, why: &str) -> StoreError {
    StoreError::Unreachable(format!("ignite at {address}: {why}"))
}

fn refused(address: &str, why: &str) -> StoreError {
    StoreError::Refused(format!("ignite at {address}: {why}"))
}
