//! Where a pool's servers come from: `servers` or `discovery`, not both.

use std::net::{IpAddr, SocketAddr};

use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::config::discovery::{Discovery, DnsDiscovery, RecordType};
use crate::config::raw;
use crate::config::suggest::quoted;

const DNS_PORT: u16 = 53;

/// `at`: the pool.
pub(super) fn discovery(
    name: &str,
    pool: &raw::Pool,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Discovery> {
    let raw = pool.discovery.as_ref()?;
    if !pool.servers.is_empty() {
        let message = format!("pool {} has both \"servers\" and \"discovery\"", quoted(name));
        diagnostics.problem(at.key_location("discovery"), message, "remove one of them");
    }
    let at = at.key("discovery");
    match (&raw.dns, &raw.file) {
        (Some(dns), None) => self::dns(dns, at.key("dns"), diagnostics).map(Discovery::Dns),
        (None, Some(file)) => {
            let path = context.folder.join(file);
            if let Err(why) = context.environment.file(&path) {
                let message = format!("{} cannot be read now: {why}", path.display());
                diagnostics.warn(at.key("file").location, message, "the pool has no servers until it can be");
            }
            Some(Discovery::File(path))
        }
        _ => {
            diagnostics.problem(at.location, "\"discovery\" needs one of \"dns\" and \"file\"", "write one of them");
            None
        }
    }
}

fn dns(dns: &raw::DnsDiscovery, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Option<DnsDiscovery> {
    let name = dns.name.trim_end_matches('.');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        let help = "write a name like app.internal, or _http._tcp.app.internal with type: SRV";
        diagnostics.problem(at.key("name").location, format!("{} is no DNS name", quoted(&dns.name)), help);
    }
    let port = match (dns.r#type, dns.port) {
        (RecordType::Srv, Some(_)) => {
            let message = "\"port\" means nothing with type: SRV, whose records have ports";
            diagnostics.warn(at.key_location("port"), message, "remove it");
            Some(0)
        }
        (RecordType::Srv, None) => Some(0),
        (_, Some(port)) => Some(port),
        (_, None) => {
            let message = "\"port\" is missing: A and AAAA records have none";
            diagnostics.problem(at.location, message, "write the servers' port, \"port: 8080\", or type: SRV");
            None
        }
    };
    let mut resolvers = Vec::new();
    for (index, text) in dns.resolvers.iter().enumerate() {
        let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, DNS_PORT).into()));
        if let Ok(address) = address {
            resolvers.push(address);
        } else {
            let message = format!("{} is not the address of a name server", quoted(text));
            let at = at.key("resolvers").item(index).location;
            diagnostics.problem(at, message, "write IP, IP:port or [IPv6]:port");
        }
    }
    let port = port?;
    Some(DnsDiscovery { name: dns.name.clone(), record: dns.r#type, port, resolvers, min_ttl: dns.min_ttl })
}
