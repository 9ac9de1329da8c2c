//! Addresses, host names and other small grammars. Each refusal says what to write instead.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// IPv4 or IPv6 address and port.
    Tcp(SocketAddr),
    /// Path of a unix socket.
    Unix(PathBuf),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// IP address and port.
    Ip(SocketAddr),
    /// A host name, resolved in the background, and a port.
    Name {
        /// DNS name, lower case.
        host: String,
        /// Port.
        port: u16,
    },
    /// Path of a unix socket.
    Unix(PathBuf),
}

/// Longest path of a unix socket: `sun_path` holds 108 bytes with the final NUL.
const MAX_UNIX_PATH: usize = 107;

/// `IP:port`, `[v6]:port` or `unix:/path`.
pub(crate) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(ListenAddress::Unix);
    }
    text.parse().map(ListenAddress::Tcp).map_err(|_error| {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, "8080"));
        match host {
            "localhost" => format!("write 127.0.0.1:{port}; a listener needs an IP address, not a name"),
            "" | "*" => format!("write 0.0.0.0:{port} for every IPv4 address of this machine, or [::]:{port} for IPv6"),
            _ => "write IP:port, [IPv6]:port or unix:/path".to_owned(),
        }
    })
}

/// `IP:port`, `[v6]:port`, `name:port` or `unix:/path`.
pub(crate) fn server_address(text: &str) -> Result<ServerAddress, String> {
    const FORMS: &str = "write IP:port, [IPv6]:port, name:port or unix:/path";
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(ServerAddress::Unix);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        let tls = if scheme == "https" { ", and for TLS connection: { tls: {} } in its pool" } else { "" };
        return Err(format!("write {rest} without {scheme}://{tls}"));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err("a server's port is from 1 to 65535".to_owned())
        } else {
            Ok(ServerAddress::Ip(address))
        };
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("the port is missing: {FORMS}"));
    };
    let port: u16 = match port.parse() {
        Ok(0) | Err(_) => return Err(format!("a server's port is from 1 to 65535: {FORMS}")),
        Ok(port) => port,
    };
    // What has only digits and dots is an IP address with a slip of the pen, not a name.
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if numeric || !is_host_name(host) {
        return Err(FORMS.to_owned());
    }
    Ok(ServerAddress::Name { host: host.to_lowercase(), port })
}

fn unix_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("write the absolute path of a socket: unix:/run/app.sock".to_owned());
    }
    if path.len() > MAX_UNIX_PATH || path.contains('\0') {
        return Err(format!("the path of a socket has at most {MAX_UNIX_PATH} bytes"));
    }
    Ok(PathBuf::from(path))
}

/// A network, or a single address.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    text.parse::<IpNet>()
        .map(|net| net.trunc())
        .map_err(|_error| "write an address or a network like 10.0.0.0/8 or fd00::/8".to_owned())
}

/// The exact host of a route, lower case.
pub(crate) fn route_host(text: &str) -> Result<String, String> {
    let host = text.to_lowercase();
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if is_v6 || is_host_name(&host) {
        return Ok(host.strip_suffix('.').unwrap_or(&host).to_owned());
    }
    if let Some((_, rest)) = host.split_once("://") {
        return Err(format!("write the host only: {}", rest.split(['/', ':']).next().unwrap_or_default()));
    }
    match host.split_once([':', '/']) {
        Some((name, _)) if is_host_name(name) => Err(format!("write the host without port and path: {name}")),
        _ => Err("write a host name like shop.example.org".to_owned()),
    }
}

pub(crate) fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// `[A-Za-z0-9_.-]{1,64}`, the first alphanumeric: the names of pools, servers, routes and keys.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.chars().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// An RFC 9110 token: cookie names, header names.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// A path of a URL, without query and wildcards.
pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with('/') && is_header_text(text) && !text.contains(['?', '#', '*', ' '])
}

/// Visible ASCII and spaces: may stand in a header.
pub(crate) fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        assert_eq!(listen_address("[::]:8080"), Ok(ListenAddress::Tcp("[::]:8080".parse().unwrap())));
        assert_eq!(listen_address("unix:/run/a.sock"), Ok(ListenAddress::Unix("/run/a.sock".into())));
        assert_eq!(
            server_address("App.Internal:80"),
            Ok(ServerAddress::Name { host: "app.internal".to_owned(), port: 80 })
        );
        assert_eq!(server_address("[fd00::1]:80"), Ok(ServerAddress::Ip("[fd00::1]:80".parse().unwrap())));
        for text in [
            "10.0.0.1",
            "10.0.0.256:80",
            "app",
            "app:0",
            "app:99999",
            ":80",
            "http://app:80",
            "unix:run",
            "a b:80",
            "-a:80",
        ] {
            assert!(server_address(text).is_err(), "{text}");
        }
        for text in ["localhost:80", ":80", "*:80", "8080", "unix:"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_cut_to_their_prefix() {
        assert_eq!(network("10.1.2.3/8"), Ok("10.0.0.0/8".parse().unwrap()));
        assert_eq!(network("::1"), Ok("::1/128".parse().unwrap()));
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn hosts_of_routes_are_lower_case_and_have_no_port() {
        assert_eq!(route_host("Shop.Example.ORG."), Ok("shop.example.org".to_owned()));
        assert_eq!(route_host("[::1]"), Ok("[::1]".to_owned()));
        assert_eq!(route_host("shop:80"), Err("write the host without port and path: shop".to_owned()));
        assert_eq!(route_host("https://shop/x"), Err("write the host only: shop".to_owned()));
        assert!(route_host("").is_err());
    }

    #[test]
    fn names_begin_with_a_letter_or_digit() {
        assert!(is_name("a.b-c_1"));
        for text in ["", "-a", ".a", "a b", "ä", &"a".repeat(65)] {
            assert!(!is_name(text), "{text}");
        }
    }
}
