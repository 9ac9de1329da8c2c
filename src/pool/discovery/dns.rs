//! Asks DNS for the servers of a pool.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record, RecordType as DnsType};

use crate::config::{DnsDiscovery, RecordType, Server, ServerAddress};

use super::Answer;

/// For one question to one name server; there are two tries.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of a name without records; unused, since such an answer has no servers.
const NO_TTL: Duration = Duration::ZERO;

/// The client cannot be set up: the system names no name servers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(NetError);

/// Asks for one pool's name.
pub struct DnsClient {
    settings: DnsDiscovery,
    resolver: TokioResolver,
}

/// The records of a name, or that there are none.
struct Records {
    records: Vec<RData>,
    ttl: Duration,
}

impl DnsClient {
    /// A client of the pool's name servers, or of the system's.
    ///
    /// # Errors
    /// When the system's name servers cannot be read.
    pub fn new(settings: &DnsDiscovery) -> Result<Self, SetupError> {
        let mut builder = if settings.resolvers.is_empty() {
            TokioResolver::builder_tokio().map_err(SetupError)?
        } else {
            let servers = settings.resolvers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // When to ask again is decided here.
        options.cache_size = 0;
        options.timeout = TIMEOUT;
        options.attempts = 2;
        let resolver = builder.build().map_err(SetupError)?;
        Ok(Self { settings: settings.clone(), resolver })
    }

    /// Asks once.
    pub async fn ask(&self) -> Answer {
        let asked = match self.settings.record {
            RecordType::A => self.addresses(DnsType::A).await,
            RecordType::Aaaa => self.addresses(DnsType::AAAA).await,
            RecordType::Srv => self.targets().await,
        };
        match asked {
            Ok((servers, _)) if servers.is_empty() => Answer::Nothing,
            Ok((mut servers, ttl)) => {
                // The order of the answer changes with every question.
                servers.sort_by(|a, b| a.name.cmp(&b.name));
                servers.dedup_by(|a, b| a.name == b.name);
                Answer::Servers { servers, ttl }
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    async fn addresses(&self, record: DnsType) -> Result<(Vec<Server>, Duration), NetError> {
        let found = self.lookup(&self.settings.name, record).await?;
        let addresses = found.records.iter().filter_map(address);
        let servers = addresses.map(|ip| {
            let address = SocketAddr::new(ip, self.settings.port);
            Server::discovered(address.to_string(), ServerAddress::Ip(address))
        });
        Ok((servers.collect(), found.ttl))
    }

    /// The lowest priority serves, the others are backups.
    async fn targets(&self) -> Result<(Vec<Server>, Duration), NetError> {
        let found = self.lookup(&self.settings.name, DnsType::SRV).await?;
        let records = found.records.iter().filter_map(|record| match record {
            RData::SRV(srv) => Some(srv),
            _ => None,
        });
        let first = records.clone().map(|srv| srv.priority).min();
        let (mut servers, mut ttl) = (Vec::new(), found.ttl);
        for srv in records {
            // "." as the only target: the service is decidedly not there (RFC 2782).
            let target = srv.target.to_string();
            let target = target.trim_end_matches('.');
            if target.is_empty() {
                continue;
            }
            let (ip, holds) = self.address_of(&srv.target.to_string()).await?;
            ttl = ttl.min(holds);
            let Some(ip) = ip else { continue };
            let address = ServerAddress::Ip(SocketAddr::new(ip, srv.port));
            servers.push(Server {
                // A record of weight 0 has a small chance (RFC 2782); a server of weight 0 has none.
                weight: srv.weight.max(1),
                backup: Some(srv.priority) != first,
                ..Server::discovered(format!("{target}:{}", srv.port), address)
            });
        }
        Ok((servers, ttl))
    }

    /// The lowest of a target's addresses, IPv4 before IPv6; `None` when it has none.
    async fn address_of(&self, target: &str) -> Result<(Option<IpAddr>, Duration), NetError> {
        let found = self.lookup(target, DnsType::A).await?;
        if let Some(ip) = found.records.iter().filter_map(address).min() {
            return Ok((Some(ip), found.ttl));
        }
        let found = self.lookup(target, DnsType::AAAA).await?;
        Ok((found.records.iter().filter_map(address).min(), found.ttl))
    }

    async fn lookup(&self, name: &str, record: DnsType) -> Result<Records, NetError> {
        match self.resolver.lookup(name, record).await {
            Ok(lookup) => {
                let wanted = || lookup.answers().iter().filter(|one| one.record_type() == record);
                let ttl = wanted().map(|one: &Record| one.ttl).min().unwrap_or_default();
                let records = wanted().map(|one| one.data.clone()).collect();
                Ok(Records { records, ttl: Duration::from_secs(ttl.into()) })
            }
            Err(error) if error.is_no_records_found() => Ok(Records { records: Vec::new(), ttl: NO_TTL }),
            Err(error) => Err(error),
        }
    }
}

fn address(record: &RData) -> Option<IpAddr> {
    match record {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}
