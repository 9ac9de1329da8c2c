//! The URLs of the configuration, read once.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::cluster::Node;
use super::dial::tcp;
use crate::config;
use crate::config::RedisMode;
use crate::store::engine::StoreError;

/// Where to connect. Whoever needs a server's address prints that alone: the rest of a URL is secret.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Never empty. The server, the sentinels, or nodes of the cluster.
    pub(super) seeds: Vec<ConnectionInfo>,
    pub(super) mode: RedisMode,
}

impl Target {
    /// # Errors
    /// Says which URL is of no use, by its place, and why.
    pub(super) fn read(settings: &config::Redis) -> Result<Self, StoreError> {
        let seeds = settings.urls.iter().enumerate().map(|(at, url)| {
            url.expose()
                .into_connection_info()
                .map_err(|error| error.to_string())
                .and_then(usable)
                .map_err(|why| StoreError::Refused(format!("urls[{at}] is of no use: {why}")))
        });
        let seeds = seeds.collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err(StoreError::Refused("urls is empty: write at least one, `redis://10.0.0.1:6379`".to_owned()));
        }
        Ok(Self { seeds, mode: settings.mode.clone() })
    }
}

/// With our settings, if it can be connected to at all.
fn usable(info: ConnectionInfo) -> Result<ConnectionInfo, String> {
    if let ConnectionAddr::TcpTls { host, insecure, .. } = info.addr() {
        if *insecure {
            return Err("`#insecure` is not possible: the server's certificate is always checked".to_owned());
        }
        rustls::pki_types::ServerName::try_from(host.as_str())
            .map_err(|_invalid| format!("no certificate can be for the host {host:?}"))?;
    }
    let redis = info.redis_settings().clone().set_lib_name("homing", env!("CARGO_PKG_VERSION"));
    Ok(info.set_tcp_settings(tcp()).set_redis_settings(redis))
}

/// An address as people write it.
pub(super) fn address(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if host.contains(':') => {
            format!("[{host}]:{port}")
        }
        addr => addr.to_string(),
    }
}

/// The same user, password, database and scheme at another address.
pub(super) fn at(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let addr = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(addr)
}

/// The address alone; `None` for a unix socket.
pub(super) fn node(info: &ConnectionInfo) -> Option<Node> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Node { host: host.clone(), port: *port })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn read(urls: &[&str]) -> Result<Target, StoreError> {
        Target::read(&config::Redis {
            urls: urls.iter().copied().map(Secret::new).collect(),
            mode: RedisMode::Standalone,
            key_prefix: "homing".to_owned(),
        })
    }

    #[test]
    fn a_url_gives_address_user_password_and_database() {
        let target = read(&["rediss://edge:p%40ss@redis.internal:6390/3"]).unwrap();
        let seed = target.seeds.first().unwrap();
        assert_eq!(seed.addr().to_string(), "redis.internal:6390");
        let settings = seed.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("edge"), Some("p@ss"), 3));
        assert!(seed.tcp_settings().nodelay(), "a command waits for no second one");
        let other = at(seed, "10.0.0.9", 6379);
        assert!(matches!(other.addr(), ConnectionAddr::TcpTls { .. }), "the scheme goes along");
        assert_eq!((other.addr().to_string().as_str(), other.redis_settings().db()), ("10.0.0.9:6379", 3));
    }

    #[test]
    fn an_address_is_told_as_it_is_written() {
        for written in ["10.0.0.9:6379", "[::1]:6390", "redis.internal:6379"] {
            let target = read(&[&format!("redis://:hunter2@{written}/1")]).unwrap();
            assert_eq!(address(target.seeds.first().unwrap()), written);
        }
    }

    #[test]
    fn a_url_of_no_use_is_told_without_its_password() {
        for (urls, why) in [
            (&[][..], "urls is empty"),
            (&["redis://a", "http://edge:hunter2@b"], "urls[1] is of no use"),
            (&["redis://edge:hunter2@a/x"], "urls[0] is of no use"),
            (&["rediss://edge:hunter2@a#insecure"], "`#insecure` is not possible"),
            (&["redis://edge:hunter2@0.0.0.0"], "urls[0] is of no use"),
        ] {
            let error = read(urls).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
