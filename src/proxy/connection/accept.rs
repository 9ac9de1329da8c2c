//! What comes before HTTP on a connection: the PROXY header of a load balancer, and the TLS handshake.
//!
//! Pingora could do the handshake, but with settings that no reload changes, a fixed timeout of a minute, and a hook for the
//! PROXY protocol on TLS listeners only. So its listeners are plain, and its TLS stream is made here.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::Result;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::tls::TlsStream;
use pingora::protocols::tls::server::handshake_with_callback;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use rustls::server::ServerConfig;
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::app::state::AppState;
use crate::config::{AcmeChallenge, Listener};
use crate::proxy::context::wall_clock;
use crate::proxy::request::client_addr::is_trusted_peer;
use crate::telemetry::metrics::Rejection;

use super::acme_challenge;
use super::buffered_socket::BufferedSocket;
use super::client_certificate::{self, CertificateReader};
use super::proxy_protocol::{self, ProxyHeader};

/// The handshakes of a new connection, by the settings of its listener.
pub(super) struct Handshake<'a> {
    pub(super) listener: &'a Listener,
    pub(super) tls: Option<&'a Arc<ServerConfig>>,
    /// For the PROXY header, and again for the TLS handshake.
    pub(super) timeout: Duration,
    /// For challenges of certificate authorities, and the counters.
    pub(super) app: &'a AppState,
}

/// Why a connection ends before HTTP.
#[derive(Clone, Copy)]
enum HandshakeError {
    /// The client closed it, or sent nothing.
    ClientGone,
    /// It is refused: the reason that is counted, and the message for the log.
    Refused(Rejection, &'static str),
}

impl From<std::io::Error> for HandshakeError {
    fn from(_: std::io::Error) -> Self {
        Self::ClientGone
    }
}

impl Handshake<'_> {
    /// The connection from where HTTP begins; `None` when it ended before. `admit`: whether there may be one more of the peer
    /// that a PROXY header has named.
    pub(super) async fn accept(
        &self,
        stream: Stream,
        admit: impl FnOnce(Option<IpAddr>) -> Option<()>,
    ) -> Option<Stream> {
        // The type that Pingora's plain listeners make.
        let mut socket = *stream.into_any().downcast::<Socket>().ok()?;
        let client = peer(&socket);
        if self.listener.proxy_protocol {
            if let Err(error) = self.read_proxy_header(&mut socket).await {
                self.refuse(error, client);
                return None;
            }
            admit(peer(&socket))?;
        }
        let Some(tls) = self.tls else { return Some(Box::new(socket)) };
        let client = peer(&socket);
        let mut socket = BufferedSocket::new(socket);
        let expected = timeout(self.timeout, expect_tls(&mut socket)).await;
        if let Err(error) = expected.unwrap_or(Err(HandshakeError::ClientGone)) {
            self.refuse(error, client);
            return None;
        }
        let socket = self.pass_challenge(socket, client).await?;
        let acceptor = Acceptor::from_server_config(Arc::clone(tls));
        match timeout(self.timeout, self.handshake(&acceptor, socket)).await {
            Ok(Ok(stream)) if is_accepted(&stream) => Some(Box::new(stream)),
            Ok(Ok(_)) => {
                self.refuse(HandshakeError::Refused(Rejection::TlsHandshake, "client certificate has expired"), client);
                None
            }
            Ok(Err(error)) => {
                tracing::debug!(client = client.map(display), %error, "TLS handshake failed");
                self.app.metrics.rejected.inc(Rejection::TlsHandshake as usize);
                None
            }
            Err(_) => {
                self.refuse(HandshakeError::Refused(Rejection::TlsHandshake, "TLS handshake timed out"), client);
                None
            }
        }
    }

    /// Answers a certificate authority that looks at a challenge. Returns the connections of all others.
    async fn pass_challenge(&self, mut socket: BufferedSocket, client: Option<IpAddr>) -> Option<BufferedSocket> {
        let acme = self.listener.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        if acme.is_none_or(|acme| acme.challenge != AcmeChallenge::TlsAlpn01) {
            return Some(socket);
        }
        let is_offered = timeout(self.timeout, acme_challenge::is_offered(&mut socket)).await;
        match is_offered {
            Ok(Ok(false)) => Some(socket),
            Ok(Ok(true)) => {
                let answered = timeout(self.timeout, Box::pin(acme_challenge::answer(self.app, socket))).await;
                if let Ok(Err(error)) = answered {
                    tracing::debug!(client = client.map(display), %error, "no answer to a challenge");
                    self.app.metrics.rejected.inc(Rejection::TlsHandshake as usize);
                }
                None
            }
            Ok(Err(_)) => None,
            Err(_) => {
                self.refuse(HandshakeError::Refused(Rejection::TlsHandshake, "TLS handshake timed out"), client);
                None
            }
        }
    }

    async fn handshake(&self, acceptor: &Acceptor, socket: BufferedSocket) -> Result<TlsStream<BufferedSocket>> {
        if self.listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            handshake_with_callback(acceptor, socket, &CertificateReader).await
        } else {
            acceptor.tls_handshake(socket).await
        }
    }

    fn refuse(&self, error: HandshakeError, client: Option<IpAddr>) {
        let HandshakeError::Refused(rejection, why) = error else { return };
        tracing::debug!(client = client.map(display), reason = rejection.label(), why, "connection refused");
        self.app.metrics.rejected.inc(rejection as usize);
    }

    /// Reads a PROXY header, if there is one: its source becomes the connection's peer.
    async fn read_proxy_header(&self, socket: &mut Socket) -> Result<(), HandshakeError> {
        let trusted = is_trusted_peer(peer(socket), &self.listener.trusted_proxies);
        let deadline = Instant::now() + self.timeout;
        let mut bytes: SmallVec<[u8; 256]> = SmallVec::new();
        let mut piece = [0; 256];
        loop {
            let header = proxy_protocol::parse(&bytes);
            if !trusted && !matches!(header, ProxyHeader::Absent | ProxyHeader::Undecided) {
                return Err(HandshakeError::Refused(Rejection::ProxyHeader, "PROXY header from an untrusted peer"));
            }
            match header {
                ProxyHeader::Absent => {
                    socket.rewind(&bytes);
                    return Ok(());
                }
                ProxyHeader::Complete { length, source } => {
                    socket.rewind(bytes.get(length..).unwrap_or_default());
                    if let Some(source) = source {
                        set_peer(socket, source);
                    }
                    return Ok(());
                }
                ProxyHeader::Invalid => {
                    return Err(HandshakeError::Refused(Rejection::ProxyHeader, "invalid PROXY header"));
                }
                ProxyHeader::Undecided | ProxyHeader::Partial => {}
            }
            let read = timeout_at(deadline, socket.read(&mut piece)).await.unwrap_or(Ok(0))?;
            if read == 0 && matches!(header, ProxyHeader::Partial) {
                return Err(HandshakeError::Refused(Rejection::ProxyHeader, "incomplete PROXY header"));
            }
            if read == 0 {
                return Err(HandshakeError::ClientGone);
            }
            bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
    }
}

fn is_accepted(stream: &TlsStream<BufferedSocket>) -> bool {
    let now = i64::try_from(wall_clock().as_secs()).unwrap_or(i64::MAX);
    stream.ssl_digest().is_none_or(|digest| client_certificate::is_acceptable(&digest, now))
}

fn peer(socket: &Socket) -> Option<IpAddr> {
    let digest = socket.get_socket_digest()?;
    digest.peer_addr().and_then(PeerAddr::as_inet).map(std::net::SocketAddr::ip)
}

/// Makes the client the peer of the connection. The local address stays that of the socket.
fn set_peer(socket: &mut Socket, source: std::net::SocketAddr) {
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    // Newly made, so it is empty.
    let _ = digest.peer_addr.set(Some(PeerAddr::Inet(source)));
    socket.set_socket_digest(digest);
}

/// First byte of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// The response to a plain HTTP request.
const HTTPS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 30\r\n\
      Connection: close\r\n\r\nThis port is for HTTPS only.\r\n";

/// Checks that a handshake begins. A client that only opens the port, as health checks do, is no failed handshake.
async fn expect_tls(socket: &mut BufferedSocket) -> Result<(), HandshakeError> {
    let Some(byte) = socket.first_byte().await? else { return Err(HandshakeError::ClientGone) };
    if byte == HANDSHAKE {
        return Ok(());
    }
    if byte.is_ascii_uppercase() {
        socket.write_all(HTTPS_ONLY).await?;
        socket.flush().await?;
    }
    Err(HandshakeError::Refused(Rejection::TlsHandshake, "not a TLS handshake"))
}
