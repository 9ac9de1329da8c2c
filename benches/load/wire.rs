//! A connection to the proxy that never waits: plain, or TLS with whatever certificate the other side shows.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use socket2::{Domain, Socket, Type};

pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(TcpStream, Box<ClientConnection>),
}

impl Wire {
    /// Begins to connect, from a loopback address of its own when there is one.
    pub(crate) fn connect(to: SocketAddr, from: Option<IpAddr>, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let stream = match from {
            None => TcpStream::connect(to)?,
            Some(from) => {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                socket.bind(&SocketAddr::new(from, 0).into())?;
                match socket.connect(&to.into()) {
                    Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
                    _ => TcpStream::from_std(socket.into()),
                }
            }
        };
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let name = ServerName::from(to.ip());
        let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        Ok(Self::Tls(stream, Box::new(session)))
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) | Self::Tls(stream, _) => stream,
        }
    }

    /// Zero: the other side has ended.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream, session) => loop {
                match session.reader().read(buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    other => return other,
                }
                if session.read_tls(stream)? == 0 {
                    return Ok(0);
                }
                session.process_new_packets().map_err(io::Error::other)?;
                send(stream, session)?;
            },
        }
    }

    /// How much of `bytes` was taken. TLS takes all of it and may still have to send it: see [`Self::flush`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream, session) => {
                let taken = session.writer().write(bytes)?;
                send(stream, session)?;
                Ok(taken)
            }
        }
    }

    /// Sends what TLS still holds.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream, session) => send(stream, session),
        }
    }
}

fn send(stream: &mut TcpStream, session: &mut ClientConnection) -> io::Result<()> {
    while session.wants_write() {
        match session.write_tls(stream) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            other => other.map(drop)?,
        }
    }
    Ok(())
}

/// TLS by rustls with ring, as the proxy's own.
pub(crate) fn any_certificate() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The bench's certificate is self-signed.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
