//! The checked configuration of discovery.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use super::raw::RecordType;

/// Where a pool's servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// Records of a DNS name.
    Dns(DnsDiscovery),
    /// A file with a list of targets.
    File(PathBuf),
}

/// Records of a DNS name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDiscovery {
    /// The name.
    pub name: String,
    /// The records.
    pub record: RecordType,
    /// The servers' port, for records that have none.
    pub port: u16,
    /// The name servers; empty = those of the system.
    pub resolvers: Vec<SocketAddr>,
    /// The least time between two questions.
    pub min_ttl: Duration,
}
