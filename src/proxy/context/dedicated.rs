//! Server connections that belong to one client connection.

use crate::session::key::ServerId;

/// The client's connection has server connections of its own: a handshake that authenticates a connection was seen on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedicated {
    /// The group that they are pooled under.
    pub group: u64,
    /// The server of the connection's last request.
    pub server: Option<ServerId>,
}
