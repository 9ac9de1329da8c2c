//! Finding the listener that a connection came by.

use pingora::protocols::l4::socket::SocketAddr as PeerAddr;

use crate::config::{ListenAddress, Listener};

/// Index of the listener that a connection came by; `local` is the connection's own address.
pub(crate) fn listener_of(listeners: &[Listener], local: Option<&PeerAddr>) -> usize {
    if listeners.len() <= 1 {
        return 0;
    }
    let matches = |exact: bool| {
        listeners.iter().position(|listener| match (&listener.address, local) {
            (ListenAddress::Tcp(address), Some(PeerAddr::Inet(local))) if exact => address == local,
            (ListenAddress::Tcp(address), Some(PeerAddr::Inet(local))) => {
                address.ip().is_unspecified() && address.port() == local.port()
            }
            (ListenAddress::Unix(path), Some(PeerAddr::Unix(local))) => local.as_pathname() == Some(path),
            _ => false,
        })
    };
    matches(true).or_else(|| matches(false)).unwrap_or(0)
}
