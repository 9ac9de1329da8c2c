//! Listeners, admin and metrics: their addresses, and that no two are the same.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::certificates;
use super::files::WrittenFile;
use crate::config::address::{self, ListenAddress};
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::{Diagnostics, Location};
use crate::config::process::{Admin, Listener, MetricsListener};
use crate::config::raw;
use crate::config::suggest;

pub(super) fn listeners(
    listeners: &[raw::Listener],
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<Listener> {
    listeners
        .iter()
        .enumerate()
        .filter_map(|(index, one)| listener(one, at.item(index), context, diagnostics))
        .collect()
}

fn listener(
    listener: &raw::Listener,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Listener> {
    let address = address(&listener.address, at.key("address"), diagnostics);
    let trusted_proxies = trusted_proxies(listener, at, diagnostics);
    let proxy_protocol = listener.proxy_protocol == raw::ProxyProtocol::Accept;
    if proxy_protocol && listener.trusted_proxies.is_empty() {
        let message = "trusted_proxies is empty, so every PROXY header is refused here";
        diagnostics.warn(at.key("proxy_protocol").location, message, "name the networks of the balancers that send it");
    }
    let (http1, http2) = protocols(listener, at.key("protocols"), diagnostics);
    let tls = listener.tls.as_ref();
    let tls = tls.map(|tls| certificates::tls(tls, at.key("tls"), context, diagnostics));
    Some(Listener {
        address: address?,
        http1,
        http2,
        tls,
        proxy_protocol,
        trusted_proxies,
        max_header_size: listener.max_header_size.bytes(),
        max_body_size: listener.max_body_size.map(|size| size.0),
        timeouts: listener.timeouts,
        on_client_half_close: listener.on_client_half_close,
        limits: listener.limits.clone(),
    })
}

/// Whether HTTP/1 and HTTP/2 are spoken.
fn protocols(listener: &raw::Listener, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> (bool, bool) {
    use raw::ListenerProtocol::{H2, H2c, Http1};
    let Some(protocols) = &listener.protocols else { return (true, true) };
    let wrong = if listener.tls.is_some() {
        (H2c, "h2c is HTTP/2 without TLS, and this listener has tls", "write h2")
    } else {
        (H2, "h2 is HTTP/2 with TLS, and this listener has no tls", "write h2c, or give the listener tls")
    };
    if let Some(index) = protocols.iter().position(|protocol| *protocol == wrong.0) {
        diagnostics.problem(at.item(index).location, wrong.1, wrong.2);
    }
    (protocols.contains(&Http1), protocols.contains(&H2) || protocols.contains(&H2c))
}

fn trusted_proxies(listener: &raw::Listener, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<IpNet> {
    let mut trusted_proxies = Vec::new();
    for (index, text) in listener.trusted_proxies.iter().enumerate() {
        match address::network(text) {
            Ok(network) => trusted_proxies.push(network),
            Err(help) => {
                let location = at.key("trusted_proxies").item(index).location;
                diagnostics.problem(location, format!("{} is not a network", suggest::quoted(text)), help);
            }
        }
    }
    if let Some(any) = trusted_proxies.iter().position(|network| network.prefix_len() == 0) {
        let message = "every client is a trusted proxy here: any of them can claim any address";
        diagnostics.warn(
            at.key("trusted_proxies").item(any).location,
            message,
            "name the networks that your proxies are in",
        );
    }
    trusted_proxies
}

fn address(text: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Option<ListenAddress> {
    if at.is_stand_in() {
        return None;
    }
    address::listen_address(text)
        .map_err(|help| {
            diagnostics.problem(at.location, format!("{} is not an address to listen on", suggest::quoted(text)), help);
        })
        .ok()
}

const STATE_FILE: WrittenFile =
    WrittenFile { key: "admin.state_file", what: "states", example: "/var/lib/homing/servers.json" };

pub(super) fn admin(
    admin: &raw::Admin,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Admin> {
    let address = address(&admin.address, at.key("address"), diagnostics);
    let tokens = super::secrets::tokens(&admin.tokens, at.key("tokens"), diagnostics);
    if let Some(ListenAddress::Tcp(tcp)) = &address
        && !is_loopback(tcp.ip())
        && tokens.is_empty()
    {
        let help = format!(
            "write 127.0.0.1:{port}, [::1]:{port} or unix:/path, or add \
             tokens: [{{ name: ops, role: operator, secret: \"${{ADMIN_TOKEN}}\" }}]; for Prometheus on another machine add \
             metrics: {{ address: \"{}\" }} on a port of its own",
            std::net::SocketAddr::new(tcp.ip(), 9901),
            port = tcp.port(),
        );
        let message = "the admin API would be open to other machines without a token";
        diagnostics.problem(at.key("address").location, message, help);
    }
    let mut allowed_hosts = Vec::new();
    for (index, host) in admin.allowed_hosts.iter().enumerate() {
        match address::route_host(host) {
            Ok(host) => allowed_hosts.push(host),
            Err(help) => {
                let location = at.key("allowed_hosts").item(index).location;
                diagnostics.problem(location, format!("{} is not a host", suggest::quoted(host)), help);
            }
        }
    }
    let path = admin.state_file.as_deref();
    let state_file =
        path.and_then(|path| STATE_FILE.check(path, at.key("state_file"), context.environment, diagnostics));
    Some(Admin { address: address?, tokens, allowed_hosts, state_file })
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip: Ipv4Addr| ip.is_loopback()),
    }
}

pub(super) fn metrics(
    metrics: &raw::Metrics,
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<MetricsListener> {
    let path = metrics.path.as_str();
    if !path.starts_with('/') || !address::is_header_text(path) || path.contains(['?', '#', ' ']) {
        let message = format!("{} is not a path", suggest::quoted(path));
        diagnostics.problem(at.key("path").location, message, "write a path that begins with \"/\", like /metrics");
    }
    Some(MetricsListener { address: address(&metrics.address, at.key("address"), diagnostics)?, path: path.to_owned() })
}

/// Reports every address that is taken by another listener already.
pub(super) fn overlapping(root: &raw::Root, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let listeners =
        root.listeners.iter().enumerate().map(|(index, listener)| (&listener.address, at.key("listeners").item(index)));
    let admin = root.admin.iter().map(|admin| (&admin.address, at.key("admin")));
    let metrics = root.metrics.iter().map(|metrics| (&metrics.address, at.key("metrics")));
    let mut seen: Vec<(ListenAddress, Option<Location>)> = Vec::new();
    for (text, at) in listeners.chain(metrics).chain(admin) {
        let Ok(address) = address::listen_address(text) else { continue };
        let at = at.key("address");
        if let Some((other, location)) = seen.iter().find(|(other, _)| overlap(&address, other)) {
            // The admin listener may have its default address, without a place of its own.
            let (shown, help) = match (at.location, location) {
                (Some(own), Some(first)) => {
                    (Some(own), format!("line {} takes {other}; give each its own", first.line))
                }
                (own, first) => {
                    (own.or(*first), "the admin listener has 127.0.0.1:9900 unless admin: says otherwise".to_owned())
                }
            };
            diagnostics.problem(shown, format!("address {address} is taken already"), help);
        }
        seen.push((address, at.location));
    }
}

fn overlap(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() != 0
                && one.port() == other.port()
                && one.is_ipv4() == other.is_ipv4()
                && (everywhere || one.ip() == other.ip())
        }
        _ => one == other,
    }
}
