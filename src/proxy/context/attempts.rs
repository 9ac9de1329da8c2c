//! The attempts of one request at servers.

use std::os::fd::RawFd;
use std::time::Instant;

use pingora::Error;

use crate::pool::ServerIndex;
use crate::pool::live_state::{InFlight, OpenStream};

use super::no_attempt::NoAttempt;

/// Attempts of one request at servers.
#[derive(Default)]
pub struct Attempts {
    /// How many were started.
    pub count: u32,
    /// The server of the current or last one.
    pub server: Option<ServerIndex>,
    /// A reset on a reused connection was already followed by another attempt at the same server.
    pub same_server_again: bool,
    /// How often a server has not processed the request.
    pub unprocessed: u32,
    /// The next attempt goes to this server, without a selection, over a connection that no request has used.
    pub next: Option<ServerIndex>,
    /// Why the fast path has begun none: it goes on from there.
    pub none: Option<NoAttempt>,
    /// How the one of the fast path has failed, when there is no other.
    pub failure: Option<Box<Error>>,
    /// When the current one started.
    pub started: Option<Instant>,
    /// When the response head arrived.
    pub responded: Option<Instant>,
    /// How often what is open to its server had been ended when the current one started.
    pub ends: u64,
    /// The socket of the current one.
    pub socket: Option<RawFd>,
    /// The current one's connection must not be pooled, though it was established to be shared.
    pub unshare: bool,
    /// The current one's server gets the request over HTTP/2 or not at all.
    pub must_speak_h2: bool,
    /// A handshake of TLS with a server failed.
    pub tls_failed: bool,
    /// The response head has fields between servers and the proxy.
    pub between_servers: bool,
    /// Counts the current one among its server's requests in flight.
    pub in_flight: Option<InFlight>,
    /// Counts it among its server's open streams.
    pub stream: Option<OpenStream>,
}

impl Attempts {
    /// The current one tests whether an ejected server serves again.
    pub fn is_probe(&self) -> bool {
        self.in_flight.as_ref().is_some_and(InFlight::is_probe)
    }
}
