//! A connection to a node: its name resolved, TCP, TLS where it is configured, and the handshake; each step in bounded time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::protocol::frame;
use super::protocol::handshake::{self, Handshake};
use crate::config::certificate_files::ClientTls;
use crate::config::secret::Secret;
use crate::store::connection::{Dialer, Stream};
use crate::store::engine::StoreError;

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

    /// A connection to the node at `host:port`, ready for requests.
    pub(super) async fn connect(&self, address: &str, label: &str) -> Result<Stream, StoreError> {
        let dialer = Dialer { label, limit: self.timeout };
        dialer.tcp(address, |stream| self.handshake(dialer, address, stream)).await
    }

    async fn handshake(&self, dialer: Dialer<'_>, address: &str, stream: TcpStream) -> Result<Stream, StoreError> {
        let mut stream: Stream = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = tls.name(address)?;
                Box::new(dialer.io("the TLS handshake", tls.connector.connect(name, stream)).await?)
            }
        };
        let login = self.login.as_ref().map(|(user, password)| (user.as_str(), password.expose()));
        let response = dialer.within("its first response", greet(dialer, &mut stream, login)).await?;
        check_response(dialer, response)?;
        Ok(stream)
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

async fn greet(dialer: Dialer<'_>, stream: &mut Stream, login: Option<(&str, &str)>) -> Result<Bytes, StoreError> {
    dialer.write(stream, &handshake::request(login)).await?;
    let mut incoming = BytesMut::new();
    let parse = |incoming: &mut BytesMut| {
        frame::take(incoming).map_err(|malformed| dialer.unreachable(format_args!("it sent {malformed}")))
    };
    let closed = "it closed the connection: does it expect TLS, or is this not its client port?";
    let frame = dialer.read_message(stream, &mut incoming, parse, closed).await?;
    if incoming.is_empty() { Ok(frame) } else { Err(dialer.unreachable("it sent more than what was asked")) }
}

fn check_response(dialer: Dialer<'_>, response: Bytes) -> Result<(), StoreError> {
    match handshake::response(response) {
        Ok(Handshake::Accepted) => Ok(()),
        Ok(Handshake::TooOld) => Err(dialer.refused("it is too old; use Ignite 2.15 or newer")),
        Ok(Handshake::WrongLogin(reason)) => Err(dialer.refused(format_args!("it does not take this user: {reason}"))),
        Ok(Handshake::Refused { version, .. }) if version != handshake::VERSION => {
            let [major, minor, patch] = version;
            let version = format_args!("it speaks version {major}.{minor}.{patch} of the protocol");
            Err(dialer.refused(format_args!("{version}; use Ignite 2.15 or newer")))
        }
        // A node that is still starting says "Node in recovery mode".
        Ok(Handshake::Refused { reason, .. }) => Err(dialer.unreachable(reason)),
        Err(malformed) => Err(dialer.unreadable(format_args!("it sent {malformed}"))),
    }
}
