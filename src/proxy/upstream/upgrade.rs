//! Connections for requests that ask for another protocol, as a WebSocket does.
//!
//! Pingora 0.9.1 runs the two halves of a proxied request concurrently: one sends the end of the (empty) request body, the
//! other waits for that end and for the response, and handles what it sees first. When the response is a 101 and is seen
//! first, the end that follows is taken for the end of the new protocol, and the connection is closed right after its
//! handshake. That takes a server that responds within microseconds, so about one in a hundred requests on a busy machine.
//!
//! A connection whose first read is pending once avoids it: both halves run before the next read, and by then the end of
//! the request body has been handled. With TLS the handshake reads first, so there the first read after each write is pending
//! once, and with it the one that follows the request. Such connections are never pooled; an upgraded connection cannot be
//! reused anyway.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::Result;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::pool::connections::{Connections, Socket, connect};

/// Prepares a peer for an upgrade: HTTP/1.1, the only version that can, on a connection with a delayed first read.
pub(crate) fn prepare(peer: &mut HttpPeer, connections: Arc<Connections>) {
    peer.options.set_http_version(1, 1);
    peer.options.custom_l4 = Some(Arc::new(DelayedReadConnect { connections, tls: peer.is_tls() }));
}

/// Opens connections with a delayed first read.
#[derive(Debug)]
struct DelayedReadConnect {
    connections: Arc<Connections>,
    tls: bool,
}

#[async_trait]
impl Connect for DelayedReadConnect {
    async fn connect(&self, address: &PeerAddr) -> Result<Stream> {
        let (socket, delayed): (RawFd, Box<dyn VirtualSocket>) = match connect(address).await? {
            Socket::Tcp(socket) => (socket.as_raw_fd(), Box::new(DelayedFirstRead::new(socket, self.tls))),
            Socket::Unix(socket) => (socket.as_raw_fd(), Box::new(DelayedFirstRead::new(socket, self.tls))),
        };
        let mut stream = Stream::from(VirtualSocketStream::new(delayed));
        self.connections.list(&mut stream, socket);
        Ok(stream)
    }
}

/// A socket whose first read is pending once.
#[derive(Debug)]
struct DelayedFirstRead<S> {
    socket: S,
    delayed: bool,
    /// The first read after each write is delayed.
    after_writes: bool,
}

impl<S> DelayedFirstRead<S> {
    fn new(socket: S, after_writes: bool) -> Self {
        Self { socket, delayed: false, after_writes }
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
        let this = self.get_mut();
        if this.after_writes {
            this.delayed = false;
        }
        Pin::new(&mut this.socket).poll_write(context, bytes)
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
