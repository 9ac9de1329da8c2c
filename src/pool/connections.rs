//! The open connections to a server, so that they can be ended with it: when it is found down, or taken away.
//!
//! Connections are opened here and pooled by Pingora. While Pingora holds a connection, its socket is listed; it is taken off
//! the list just before it is closed. So under the list's lock a socket's number cannot be that of another connection.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use pingora::ErrorType::{ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout};
use pingora::connectors::l4::Connect;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::{Tracer, Tracing};
use pingora::{Error, Result};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::session::token::UnixMillis;

use super::descriptors::check_server_socket;

/// Detects a server or client that vanished without closing its connections (power, network) while nothing is sent: within
/// two minutes.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 6,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::from_secs(0),
};

/// Sets [`KEEPALIVE`] on a socket. Connections that a listening socket accepts have what it has.
pub fn set_keepalive(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE.idle).with_interval(KEEPALIVE.interval);
    socket.set_tcp_keepalive(&keepalive.with_retries(u32::try_from(KEEPALIVE.count).unwrap_or(u32::MAX)))
}

/// The open connections to one server.
#[derive(Debug, Default)]
pub struct Connections {
    /// Locked when a connection is opened or closed, and for some at a time when all are ended.
    open: Mutex<OpenSockets>,
    /// How often all were ended.
    ends: AtomicU64,
}

#[derive(Debug, Default)]
struct OpenSockets {
    next: u64,
    sockets: BTreeMap<u64, OpenSocket>,
    /// The same by the socket's number.
    numbers: HashMap<RawFd, u64>,
}

#[derive(Debug)]
struct OpenSocket {
    number: RawFd,
    /// When a request was given it last. Noted only while the server drains.
    last_use: Option<UnixMillis>,
}

/// A socket that was just connected.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// How many are ended under one lock.
const BATCH: usize = 64;

impl Connections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.open.lock().sockets.len()
    }

    /// How often all were ended: a response that ends with its connection is whole only if this has not changed meanwhile.
    pub fn ends(&self) -> u64 {
        self.ends.load(Ordering::Relaxed)
    }

    /// Ends all of them, in use or not: what reads or writes one finds it closed. Returns how many.
    pub fn end_all(&self) -> usize {
        let mut ended = 0;
        loop {
            let mut open = self.open.lock();
            if open.sockets.is_empty() {
                return ended;
            }
            self.ends.fetch_add(1, Ordering::Relaxed);
            for _ in 0..BATCH {
                let Some((id, _)) = open.sockets.first_key_value() else { break };
                let id = *id;
                open.end(id);
                ended += 1;
            }
        }
    }

    /// Notes that a request is given a connection.
    pub fn note_use(&self, socket: RawFd, now: UnixMillis) {
        let mut open = self.open.lock();
        if let Some(id) = open.numbers.get(&socket).copied()
            && let Some(socket) = open.sockets.get_mut(&id)
        {
            socket.last_use = Some(now);
        }
    }

    /// Ends those that are due, by their id and when a request was given them last, if that was noted. Returns how many.
    pub fn end_due(&self, is_due: impl Fn(u64, Option<UnixMillis>) -> bool) -> usize {
        let mut open = self.open.lock();
        let due = open.sockets.iter().filter(|(id, socket)| is_due(**id, socket.last_use));
        let due: Vec<u64> = due.map(|(id, _)| *id).take(BATCH).collect();
        if !due.is_empty() {
            self.ends.fetch_add(1, Ordering::Relaxed);
        }
        for id in &due {
            open.end(*id);
        }
        due.len()
    }

    /// Ends the one with this socket.
    pub fn end_socket(&self, socket: RawFd) {
        let mut open = self.open.lock();
        if let Some(id) = open.numbers.get(&socket).copied() {
            open.end(id);
        }
    }

    /// Lists a connection for as long as Pingora holds it.
    pub fn list(self: &Arc<Self>, stream: &mut Stream, socket: RawFd) {
        let id = self.add(socket);
        stream.tracer = Some(Tracer(Box::new(ListedConnection { connections: Arc::clone(self), id })));
    }

    /// Lists a connection until the guard is dropped, which has to be before the socket is closed.
    pub(super) fn list_until_dropped(self: &Arc<Self>, socket: RawFd) -> ListEntry {
        ListEntry { id: self.add(socket), connections: Arc::clone(self) }
    }

    fn add(&self, socket: RawFd) -> u64 {
        let mut open = self.open.lock();
        let id = open.next;
        open.next += 1;
        open.sockets.insert(id, OpenSocket { number: socket, last_use: None });
        open.numbers.insert(socket, id);
        id
    }
}

impl OpenSockets {
    fn remove(&mut self, id: u64) -> Option<OpenSocket> {
        let socket = self.sockets.remove(&id)?;
        self.numbers.remove(&socket.number);
        Some(socket)
    }

    fn end(&mut self, id: u64) {
        if let Some(socket) = self.remove(id) {
            // An error means that the other side has ended it already.
            let _ = shutdown(socket.number, Shutdown::Both);
        }
    }
}

/// A listed connection: Pingora tells it when the connection is about to be closed.
#[derive(Debug, Clone)]
struct ListedConnection {
    connections: Arc<Connections>,
    id: u64,
}

impl Tracing for ListedConnection {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.connections.open.lock().remove(self.id);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

/// Keeps a connection listed.
#[derive(Debug)]
pub(super) struct ListEntry {
    connections: Arc<Connections>,
    id: u64,
}

impl Drop for ListEntry {
    fn drop(&mut self) {
        self.connections.open.lock().remove(self.id);
    }
}

/// Opens connections to a server. Pingora applies the connect timeout and the options of the socket.
#[derive(Debug)]
pub struct ServerConnector {
    /// Where they are listed.
    pub connections: Arc<Connections>,
}

#[async_trait]
impl Connect for ServerConnector {
    async fn connect(&self, address: &PeerAddr) -> Result<Stream> {
        let (socket, mut stream) = match connect(address).await? {
            Socket::Tcp(socket) => (socket.as_raw_fd(), Stream::from(socket)),
            Socket::Unix(socket) => (socket.as_raw_fd(), Stream::from(socket)),
        };
        self.connections.list(&mut stream, socket);
        Ok(stream)
    }
}

/// Connects.
///
/// # Errors
/// Pingora's, by which the failed attempt is judged.
pub async fn connect(address: &PeerAddr) -> Result<Socket> {
    match address {
        PeerAddr::Inet(address) => connect_tcp(*address).await.map(Socket::Tcp).map_err(connect_error),
        PeerAddr::Unix(address) => {
            let path = address.as_pathname().ok_or_else(|| connect_error(ErrorKind::InvalidInput.into()))?;
            connect_unix(path).await.map(Socket::Unix).map_err(connect_error)
        }
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    check_server_socket(&socket)?;
    socket.connect(address).await
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket = UnixStream::connect(path).await?;
    check_server_socket(&socket)?;
    Ok(socket)
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
    Error::because(kind, "connecting to a server", error)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, PeerAddr) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, PeerAddr::Inet(address))
    }

    #[tokio::test]
    async fn all_connections_are_ended_at_once_and_each_reads_its_end() {
        let (listener, address) = listener().await;
        let connector = ServerConnector { connections: Arc::default() };
        let mut open = Vec::new();
        for _ in 0..=2 * BATCH {
            open.push((connector.connect(&address).await.unwrap(), listener.accept().await.unwrap().0));
        }
        assert_eq!(connector.connections.count(), open.len());
        let before = connector.connections.ends();
        assert_eq!(connector.connections.end_all(), open.len());
        assert!(connector.connections.ends() > before);
        for (ours, theirs) in &mut open {
            assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
            assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
        }
        assert_eq!(connector.connections.end_all(), 0, "once");
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_not_listed_any_more() {
        let (listener, address) = listener().await;
        let connector = ServerConnector { connections: Arc::default() };
        drop(connector.connect(&address).await.unwrap());
        assert_eq!(connector.connections.count(), 0);
        let _first = listener.accept().await.unwrap();
        // The system gives the next one the same number.
        let mut other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        assert_eq!(connector.connections.end_all(), 0);
        other.write_all(b"alive").await.unwrap();
        assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_port_that_refuses_is_told_from_other_failures() {
        let (listener, address) = listener().await;
        drop(listener);
        let connector = ServerConnector { connections: Arc::default() };
        let error = connector.connect(&address).await.unwrap_err();
        assert_eq!(*error.etype(), ConnectRefused);
    }
}
