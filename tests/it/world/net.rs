//! Addresses and streams of both families: TCP and unix.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use socket2::SockRef;

/// Nothing in a test waits longer than this for a socket, unless it says so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Where something listens, written as the configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Whether something accepts connections there.
    pub(crate) fn is_listening(&self) -> bool {
        Stream::connect(self).is_ok()
    }

    /// The port of a TCP address.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Tcp(address) => address.port(),
            Self::Unix(path) => panic!("a unix socket has no port: {}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(PathBuf::from(path)),
            None => Self::Tcp(text.parse().unwrap_or_else(|e| panic!("{text:?} is no address: {e}"))),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<super::tls::Encrypted>),
}

impl Stream {
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
            Address::Unix(path) => Self::Unix(UnixStream::connect(path)?),
        };
        stream.set_patience(PATIENCE)?;
        Ok(stream)
    }

    /// The longest that one read or write may block.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(Some(patience)).and_then(|()| s.set_write_timeout(Some(patience))),
            Self::Unix(s) => s.set_read_timeout(Some(patience)).and_then(|()| s.set_write_timeout(Some(patience))),
            Self::Tls(s) => {
                s.sock.set_read_timeout(Some(patience)).and_then(|()| s.sock.set_write_timeout(Some(patience)))
            }
        }
    }

    /// Reads block for ever (a server waits for its clients).
    pub(crate) fn set_patient(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_nodelay(true).and_then(|()| s.set_read_timeout(None)),
            Self::Unix(s) => s.set_read_timeout(None),
            Self::Tls(s) => s.sock.set_read_timeout(None),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Unix(s) => Self::Unix(s.try_clone()?),
            Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.shutdown(how),
            Self::Unix(s) => s.shutdown(how),
            Self::Tls(s) => s.sock.shutdown(how),
        }
    }

    /// When the last handle of this connection goes, it is reset (RST) instead of closed.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether the other side has closed, or has sent unrequested data.
    pub(crate) fn is_stale(&self) -> bool {
        let Self::Tcp(stream) = self else { return false };
        let _ = stream.set_nonblocking(true);
        let mut byte = [0];
        let stale = !matches!(stream.peek(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        let _ = stream.set_nonblocking(false);
        stale
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
            Self::Tls(s) => s.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(bytes),
            Self::Unix(s) => s.write(bytes),
            Self::Tls(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.flush(),
            Self::Unix(s) => s.flush(),
            Self::Tls(s) => s.flush(),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(address) => Self::Tcp(TcpListener::bind(address)?),
            Address::Unix(path) => {
                let _ = std::fs::remove_file(path);
                Self::Unix(UnixListener::bind(path)?)
            }
        })
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(l) => Stream::Tcp(l.accept()?.0),
            Self::Unix(l) => Stream::Unix(l.accept()?.0),
        })
    }
}
