//! Connections for requests that ask for another protocol, as a WebSocket does.
//!
//! Pingora 0.9.1 runs the two halves of a proxied request side by side: one hands over the end of the (empty) request body,
//! the other waits for that end and for the answer, whichever it sees first. When the answer is a 101 and is seen first,
//! the end that follows is taken for the end of the new protocol, and the connection is closed right after its handshake.
//! It takes a server that answers within microseconds, so about one in a hundred on a busy machine.
//!
//! From outside, the order can be made sure of: a connection whose first read says "not yet", once. Both halves run before
//! it is asked again, and by then the end of the request has arrived. Such connections are never taken from the pool nor
//! put there; an upgraded connection has no use for one.

use std::io::{self, ErrorKind};
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
use tokio::net::{TcpStream, UnixStream};

static CONNECT: LazyLock<Arc<PatientConnect>> = LazyLock::new(Arc::default);

/// Makes a peer one for an upgrade: HTTP/1.1, which alone can hand its connection over, on a patient connection.
pub(crate) fn prepare(peer: &mut HttpPeer) {
    peer.options.set_http_version(1, 1);
    peer.options.custom_l4 = Some(Arc::clone(&*CONNECT) as Arc<dyn Connect + Send + Sync>);
}

/// Opens patient connections. Pingora keeps the time around it.
#[derive(Debug, Default)]
struct PatientConnect;

#[async_trait]
impl Connect for PatientConnect {
    async fn connect(&self, address: &PeerAddr) -> Result<Stream> {
        let socket: Box<dyn VirtualSocket> = match address {
            PeerAddr::Inet(address) => Box::new(Patient::new(TcpStream::connect(address).await.map_err(told)?)),
            PeerAddr::Unix(address) => {
                let path = address.as_pathname().ok_or_else(|| told(ErrorKind::AddrNotAvailable.into()))?;
                Box::new(Patient::new(UnixStream::connect(path).await.map_err(told)?))
            }
        };
        Ok(Stream::from(VirtualSocketStream::new(socket)))
    }
}

/// The words that Pingora has for a connection that did not come about.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn told(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        ErrorKind::ConnectionRefused => ConnectRefused,
        ErrorKind::TimedOut => ConnectTimedout,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => ConnectNoRoute,
        _ => ConnectError,
    };
    Error::because(kind, "connecting for an upgrade", error)
}

/// A socket whose first read says "not yet".
#[derive(Debug)]
struct Patient<S> {
    socket: S,
    asked: bool,
}

impl<S> Patient<S> {
    fn new(socket: S) -> Self {
        Self { socket, asked: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.asked {
            this.asked = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut this.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
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

impl VirtualSocket for Patient<TcpStream> {
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

impl VirtualSocket for Patient<UnixStream> {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
