//! A connection to a server that Pingora's proxy does not hold: kept idle by the server's live state between two requests.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use pingora::ErrorType::InternalError;
use pingora::protocols::Stream;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{OrErr, Result};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::{Connections, ListEntry, Socket, connect, set_keepalive};
use super::tls::PoolTls;

/// An open connection, listed as long as it is open.
#[derive(Debug)]
pub struct ServerConnection {
    transport: Transport,
    /// What it trusts, as [`PoolTls::group`] says; 0 without TLS.
    group: u64,
}

#[derive(Debug)]
enum Transport {
    /// The order of the fields takes it off the list before the socket is closed.
    Plain {
        /// Held only.
        _listed: ListEntry,
        socket: Socket,
    },
    /// Pingora takes it off the list.
    Tls(Stream),
}

impl ServerConnection {
    /// Connects to a server without TLS.
    ///
    /// # Errors
    /// Pingora's, by which the failed attempt is judged.
    pub async fn open(connections: &Arc<Connections>, address: &PeerAddr) -> Result<Self> {
        let socket = connect(address).await?;
        if let Socket::Tcp(tcp) = &socket {
            set_keepalive(&SockRef::from(tcp)).or_err(InternalError, "keepalive of a socket")?;
            tcp.set_nodelay(true).or_err(InternalError, "options of a socket")?;
        }
        let listed = connections.list_until_dropped(socket.number());
        Ok(Self { transport: Transport::Plain { _listed: listed, socket }, group: 0 })
    }

    /// Connects to a server with the TLS of its pool. The peer has the timeouts, and says where the connection is listed.
    ///
    /// # Errors
    /// Pingora's, by which the failed attempt is judged.
    pub async fn open_with_tls(tls: &PoolTls, peer: &HttpPeer) -> Result<Self> {
        Ok(Self { transport: Transport::Tls(tls.connect(peer).await?), group: tls.group() })
    }

    /// Its socket.
    pub fn number(&self) -> RawFd {
        match &self.transport {
            Transport::Plain { socket, .. } => socket.number(),
            Transport::Tls(stream) => stream.id(),
        }
    }

    /// Neither the end of the stream nor a byte has arrived, as far as the executor knows.
    fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let read = match &mut self.transport {
            Transport::Plain { socket: Socket::Tcp(socket), .. } => socket.try_read(&mut byte),
            Transport::Plain { socket: Socket::Unix(socket), .. } => socket.try_read(&mut byte),
            // What TLS itself has to say, as a ticket, is no byte of the server.
            Transport::Tls(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                return Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending();
            }
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Socket {
    fn number(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl AsyncRead for ServerConnection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain { socket: Socket::Tcp(socket), .. } => Pin::new(socket).poll_read(context, buffer),
            Transport::Plain { socket: Socket::Unix(socket), .. } => Pin::new(socket).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ServerConnection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain { socket: Socket::Tcp(socket), .. } => Pin::new(socket).poll_write(context, bytes),
            Transport::Plain { socket: Socket::Unix(socket), .. } => Pin::new(socket).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain { .. } => Poll::Ready(Ok(())),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain { socket: Socket::Tcp(socket), .. } => Pin::new(socket).poll_shutdown(context),
            Transport::Plain { socket: Socket::Unix(socket), .. } => Pin::new(socket).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// How many are idle, to all servers of the process.
static IDLE: AtomicUsize = AtomicUsize::new(0);

/// The idle connections to one server, the one that was used last on top.
#[derive(Debug, Default)]
pub struct IdleConnections(Mutex<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    connection: ServerConnection,
    /// A reload, or a name that is resolved anew, may give the server another one.
    address: PeerAddr,
    /// It is closed then.
    until: Instant,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted;

impl Counted {
    fn begin() -> Self {
        IDLE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        IDLE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl IdleConnections {
    /// A connection to this address for the next request, of this group. What is no longer of use is closed.
    pub fn take(&self, address: &PeerAddr, group: u64, now: Instant) -> Option<ServerConnection> {
        loop {
            let mut idle = self.0.lock().pop()?;
            if idle.connection.group == group && idle.address == *address && idle.is_usable(now) {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection until then. `most`: so many are kept to all servers; above that, the oldest one of this server is closed
    /// for it.
    pub fn put(&self, connection: ServerConnection, address: PeerAddr, until: Instant, most: usize) {
        let full = IDLE.load(Ordering::Relaxed) >= most;
        let mut stack = self.0.lock();
        let replaced = if !full {
            None
        } else if stack.is_empty() {
            return;
        } else {
            Some(stack.remove(0))
        };
        stack.push(Idle { connection, address, until, _counted: Counted::begin() });
        drop(stack);
        // Closed without the lock.
        drop(replaced);
    }

    /// Closes what has been idle for too long, and what its server has closed.
    pub fn sweep(&self, now: Instant) {
        let closed: Vec<Idle> = self.0.lock().extract_if(.., |idle| !idle.is_usable(now)).collect();
        drop(closed);
    }
}

impl Idle {
    fn is_usable(&mut self, now: Instant) -> bool {
        now < self.until && self.connection.is_silent()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const MOST: usize = 1000;

    async fn server() -> (TcpListener, PeerAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = PeerAddr::Inet(listener.local_addr().unwrap());
        (listener, address)
    }

    /// What the server does is seen once the executor has been told.
    async fn until(mut seen: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !seen() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_used_again_unless_its_time_is_over() {
        let (_listener, address) = server().await;
        let connections = Arc::default();
        let idle = IdleConnections::default();
        let connection = ServerConnection::open(&connections, &address).await.unwrap();
        let number = connection.number();
        let now = Instant::now();
        idle.put(connection, address.clone(), now + Duration::from_secs(1), MOST);
        let again = idle.take(&address, 0, now).unwrap();
        assert_eq!(again.number(), number);
        idle.put(again, address.clone(), now + Duration::from_secs(1), MOST);
        assert_eq!(connections.count(), 1);
        assert!(idle.take(&address, 0, now + Duration::from_secs(1)).is_none());
        assert_eq!(connections.count(), 0, "closed, and off the list");
    }

    #[tokio::test]
    async fn a_connection_to_a_former_address_is_closed() {
        let (_listener, address) = server().await;
        let (_other, other) = server().await;
        let connections = Arc::default();
        let idle = IdleConnections::default();
        let now = Instant::now();
        let connection = ServerConnection::open(&connections, &address).await.unwrap();
        idle.put(connection, address, now + Duration::from_secs(1), MOST);
        assert!(idle.take(&other, 0, now).is_none());
        assert_eq!(connections.count(), 0);
    }

    #[tokio::test]
    async fn what_the_server_has_closed_or_written_to_is_not_used_again() {
        let (listener, address) = server().await;
        let connections = Arc::default();
        let now = Instant::now();
        for writes in [false, true] {
            let idle = IdleConnections::default();
            let connection = ServerConnection::open(&connections, &address).await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            idle.put(connection, address.clone(), now + Duration::from_secs(60), MOST);
            if writes {
                accepted.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
            } else {
                drop(accepted);
            }
            until(|| {
                idle.sweep(now);
                connections.count() == 0
            })
            .await;
            assert!(idle.take(&address, 0, now).is_none());
        }
    }

    #[tokio::test]
    async fn the_oldest_one_goes_when_too_many_are_idle() {
        let (_listener, address) = server().await;
        let connections = Arc::default();
        let idle = IdleConnections::default();
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        let first = ServerConnection::open(&connections, &address).await.unwrap();
        idle.put(first, address.clone(), until, MOST);
        let second = ServerConnection::open(&connections, &address).await.unwrap();
        let number = second.number();
        idle.put(second, address.clone(), until, 1);
        assert_eq!(connections.count(), 1);
        assert_eq!(idle.take(&address, 0, now).unwrap().number(), number);
        assert!(idle.take(&address, 0, now).is_none());
    }
}
