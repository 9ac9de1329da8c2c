//! The attempts of one request at servers.

use std::time::Instant;

use crate::pool::ServerIndex;
use crate::pool::server::{InFlight, OpenStream};

/// Attempts of one request at servers.
#[derive(Default)]
pub struct Attempts {
    /// How many were started.
    pub count: u32,
    /// The server of the current or last one.
    pub server: Option<ServerIndex>,
    /// A reset on a reused connection was already followed by another attempt at the same server.
    pub same_server_again: bool,
    /// The next attempt goes to this server, without a selection.
    pub next: Option<ServerIndex>,
    /// When the current one started.
    pub started: Option<Instant>,
    /// When the response head arrived.
    pub responded: Option<Instant>,
    /// How often what is open to its server had been ended when the current one started.
    pub ends: u64,
    /// Counts the current one among its server's requests in flight.
    pub in_flight: Option<InFlight>,
    /// Counts its connection among its server's upgraded ones.
    pub stream: Option<OpenStream>,
}
