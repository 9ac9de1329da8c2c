//! Servers that the configuration does not list: how DNS is asked for them, and when its answers change the pool.

mod dns;
mod known_servers;

use std::time::Duration;

use crate::config::Server;

pub use dns::{DnsClient, SetupError};
pub use known_servers::{KnownServers, Update};

/// What was found out about a pool's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These, for so long.
    Servers {
        /// Names are unique.
        servers: Vec<Server>,
        /// How long the answer holds.
        ttl: Duration,
    },
    /// That there are none: the name does not exist, or has no such records.
    Nothing,
    /// Nothing, and why.
    Failed(String),
}
