//! Connections for requests that ask for another protocol, as a WebSocket does.
//!
//! Pingora 0.9.1 runs the two halves of a proxied request concurrently: one sends the end of the (empty) request body, the
//! other waits for that end and for the response, and handles what it sees first. When the response is a 101 and is seen
//! first, the end that follows is taken for the end of the new protocol, and the connection is closed right after its
//! handshake. That takes a server that responds within microseconds, so about one in a hundred requests on a busy machine.
//!
//! A connection whose first read is pending once avoids it: both halves run before the next read, and by then the end of
//! the request body has been handled. Such connections are never pooled; an upgraded connection cannot be reused anyway.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::ErrorType::{ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout};
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::pool::descriptors::check_server_socket;

static CONNECT: LazyLock<Arc<DelayedReadConnect>> = LazyLock::new(Arc::default);

/// Prepares a peer for an upgrade: HTTP/1.1, the only version that can, on a connection with a delayed first read.
pub(crate) fn prepare(peer: &mut HttpPeer) {
    peer.options.set_http_version(1, 1);
    peer.options.custom_l4 = Some(Arc::clone(&*CONNECT) as Arc<dyn Connect + Send + Sync>);
}

/// Opens connections with a delayed first read. Pingora applies the connect timeout.
#[derive(Debug, Default)]
struct DelayedReadConnect;

#[async_trait]
impl Connect for DelayedReadConnect {
    async fn connect(&self, address: &PeerAddr) -> Result<Stream> {
        let socket: Box<dyn VirtualSocket> = match address {
            PeerAddr::Inet(address) => {
                Box::new(DelayedFirstRead::new(connect_tcp(*address).await.map_err(connect_error)?))
            }
            PeerAddr::Unix(address) => {
                let path = address.as_pathname().ok_or_else(|| connect_error(ErrorKind::AddrNotAvailable.into()))?;
                let socket = UnixStream::connect(path).await.map_err(connect_error)?;
                check_server_socket(&socket).map_err(connect_error)?;
                Box::new(DelayedFirstRead::new(socket))
            }
        };
        Ok(Stream::from(VirtualSocketStream::new(socket)))
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    check_server_socket(&socket)?;
    socket.connect(address).await
}

/// Translates to Pingora's error types.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn connect_error(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        ErrorKind::ConnectionRefused => ConnectRefused,
        ErrorKind::TimedOut => ConnectTimedout,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => ConnectNoRoute,
        _ => ConnectError,
    };
    Error::because(kind, "connecting for an upgrade", error)
}

/// A socket whose first read is pending once.
#[derive(Debug)]
struct DelayedFirstRead<S> {
    socket: S,
    delayed: bool,
}

impl<S> DelayedFirstRead<S> {
    fn new(socket: S) -> Self {
        Self { socket, delayed: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DelayedFirstRead<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.delayed {
            this.delayed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut this.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DelayedFirstRead<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

impl VirtualSocket for DelayedFirstRead<TcpStream> {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            VirtualSockOpt::KeepAlive(keepalive) => {
                let wanted = socket2::TcpKeepalive::new()
                    .with_time(keepalive.idle)
                    .with_interval(keepalive.interval)
                    .with_retries(u32::try_from(keepalive.count).unwrap_or(u32::MAX));
                SockRef::from(&self.socket).set_tcp_keepalive(&wanted)
            }
            _ => Ok(()),
        }
    }
}

impl VirtualSocket for DelayedFirstRead<UnixStream> {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
