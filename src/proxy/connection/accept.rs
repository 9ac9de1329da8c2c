//! What comes before HTTP: the PROXY header of a balancer, and TLS.
//!
//! Pingora would do the handshake itself, but with settings that no reload changes, a fixed deadline of a minute, and a
//! hook for the PROXY protocol on TLS listeners only. So its listeners are plain, and its TLS stream is put on here.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use rustls::server::ServerConfig;
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Listener;
use crate::proxy::request::client_addr::is_trusted_peer;
use crate::telemetry::metrics::{Metrics, Rejection};

use super::proxy_header::{self, Beginning};

/// A connection and what its listener makes of it.
pub(super) struct Arrival<'a> {
    pub(super) listener: &'a Listener,
    pub(super) tls: Option<&'a Arc<ServerConfig>>,
    pub(super) metrics: &'a Metrics,
}

/// Why a connection ends here.
enum Ended {
    /// The client went, or never said a word.
    Gone,
    /// It is refused, for a reason that is counted, with what the log says at debug.
    Refused(Rejection, &'static str),
}

impl From<std::io::Error> for Ended {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl Arrival<'_> {
    /// The connection as HTTP may read it; `None` when it ended before.
    pub(super) async fn welcome(&self, stream: Stream) -> Option<Stream> {
        // All our listeners make these.
        let mut socket = *stream.into_any().downcast::<Socket>().ok()?;
        match self.receive(&mut socket).await {
            Ok(()) => {}
            Err(Ended::Gone) => return None,
            Err(Ended::Refused(rejection, why)) => {
                self.refuse(rejection, why);
                return None;
            }
        }
        let Some(tls) = self.tls else { return Some(Box::new(socket)) };
        let acceptor = Acceptor::from_server_config(Arc::clone(tls));
        match timeout(self.patience(), acceptor.tls_handshake(socket)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                self.metrics.rejected.inc(Rejection::TlsHandshake as usize);
                None
            }
            Err(_) => {
                self.refuse(Rejection::TlsHandshake, "the TLS handshake was not done in time");
                None
            }
        }
    }

    /// For a PROXY header, and then for a handshake.
    fn patience(&self) -> Duration {
        self.listener.timeouts.request_header
    }

    fn refuse(&self, rejection: Rejection, why: &'static str) {
        tracing::debug!(reason = rejection.label(), why, "connection refused");
        self.metrics.rejected.inc(rejection as usize);
    }

    async fn receive(&self, socket: &mut Socket) -> Result<(), Ended> {
        if self.listener.proxy_protocol {
            self.take_proxy_header(socket).await?;
        }
        if self.tls.is_none() {
            return Ok(());
        }
        timeout(self.patience(), expect_tls(socket)).await.unwrap_or(Err(Ended::Gone))
    }

    /// Takes a PROXY header off, if there is one; then its source is the connection's peer.
    async fn take_proxy_header(&self, socket: &mut Socket) -> Result<(), Ended> {
        let trusted = is_trusted_peer(peer(socket), &self.listener.trusted_proxies);
        let deadline = Instant::now() + self.patience();
        let mut bytes: SmallVec<[u8; 256]> = SmallVec::new();
        let mut piece = [0; 256];
        loop {
            let beginning = proxy_header::read(&bytes);
            if !trusted && !matches!(beginning, Beginning::Other | Beginning::Unclear) {
                return Err(Ended::Refused(Rejection::ProxyHeader, "a PROXY header of a peer that is not trusted"));
            }
            match beginning {
                Beginning::Other => {
                    socket.rewind(&bytes);
                    return Ok(());
                }
                Beginning::Header { length, source } => {
                    socket.rewind(bytes.get(length..).unwrap_or_default());
                    if let Some(source) = source {
                        set_peer(socket, source);
                    }
                    return Ok(());
                }
                Beginning::Broken => return Err(Ended::Refused(Rejection::ProxyHeader, "a broken PROXY header")),
                Beginning::Unclear | Beginning::Partial => {}
            }
            let read = timeout_at(deadline, socket.read(&mut piece)).await.unwrap_or(Ok(0))?;
            if read == 0 && matches!(beginning, Beginning::Partial) {
                return Err(Ended::Refused(Rejection::ProxyHeader, "half a PROXY header"));
            }
            if read == 0 {
                return Err(Ended::Gone);
            }
            bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
    }
}

fn peer(socket: &Socket) -> Option<IpAddr> {
    let digest = socket.get_socket_digest()?;
    digest.peer_addr().and_then(PeerAddr::as_inet).map(std::net::SocketAddr::ip)
}

/// From here on everybody who asks for the peer hears of the client. Our own address stays the socket's.
fn set_peer(socket: &mut Socket, source: std::net::SocketAddr) {
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    // Newly made, so it is empty.
    let _ = digest.peer_addr.set(Some(PeerAddr::Inet(source)));
    socket.set_socket_digest(digest);
}

/// First byte of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// For people who forgot an `s`.
const SPEAK_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 30\r\n\
      Connection: close\r\n\r\nThis port speaks HTTPS only.\r\n";

/// Looks whether a handshake begins. A client that only tried the port, as health checks do, is no failed handshake.
async fn expect_tls(socket: &mut Socket) -> Result<(), Ended> {
    let mut first = [0];
    if socket.read(&mut first).await? == 0 {
        return Err(Ended::Gone);
    }
    let [byte] = first;
    if byte == HANDSHAKE {
        socket.rewind(&first);
        return Ok(());
    }
    if byte.is_ascii_uppercase() {
        socket.write_all(SPEAK_HTTPS).await?;
        socket.flush().await?;
    }
    Err(Ended::Refused(Rejection::TlsHandshake, "no TLS"))
}
