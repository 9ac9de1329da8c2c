//! The effective configuration, written as a file again, and its hash.

use std::fmt::Write;

use serde_yaml::Value;

use super::Config;
use super::pools::{Balance, HealthCheck, Pool, Probe, Server, ServerState, UpstreamProtocol};
use super::process::{AccessLog, Listener, Log, LogFormat, LogLevel};
use super::raw;
use super::routes::{Redirect, Route, RouteTarget, Scheme};
use super::tls::{Certificate, Tls, TlsVersion};
use super::units::Size;
use super::units::Span;

mod persistence;
mod store;

/// The effective configuration as YAML, every default spelled out. It loads again to the same configuration where the
/// secrets are at hand: the secret of key `k1` is written as `${HOMING_KEY_K1}`, a password of Redis as
/// `${HOMING_REDIS_PASSWORD}` and one of Ignite as `${HOMING_IGNITE_PASSWORD}`, never as itself.
pub fn show(config: &Config) -> String {
    let value = value(config, Secrets::Placeholders);
    serde_yaml::to_string(&value).unwrap_or_default()
}

/// SHA-256 of the effective configuration, with the secrets by their own hashes, first 16 hexadecimal characters.
///
/// Without `proxy.node`, which is each proxy's own: proxies that share a file show one hash.
pub(crate) fn hash(config: &Config) -> String {
    let mut shared = config.clone();
    shared.proxy.node.clear();
    let value = value(&shared, Secrets::Digests);
    // The order of maps is that of the file for pools and of the shape for all else: the same for the same meaning.
    let text = serde_yaml::to_string(&value).unwrap_or_default();
    digest(text.as_bytes()).chars().take(16).collect()
}

/// What stands in the place of a secret.
#[derive(Clone, Copy)]
enum Secrets {
    /// A variable of the environment, for people.
    Placeholders,
    /// A hash, to compare.
    Digests,
}

fn digest(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().fold(String::new(), |mut out, byte| {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn placeholder(id: &str) -> String {
    let name: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("${{HOMING_KEY_{name}}}")
}

fn value(config: &Config, secrets: Secrets) -> Value {
    let mut value = serde_yaml::to_value(root(config)).unwrap_or_default();
    escape(&mut value);
    let written = value.get_mut("keys").and_then(Value::as_sequence_mut);
    for (written, key) in written.into_iter().flatten().zip(&config.keys) {
        if let Some(map) = written.as_mapping_mut() {
            let secret = match secrets {
                Secrets::Placeholders => placeholder(&key.id),
                Secrets::Digests => digest(key.secret.expose().as_bytes()),
            };
            map.insert("secret".into(), secret.into());
        }
    }
    let redis = value.get_mut("store").and_then(|store| store.get_mut("redis")).and_then(Value::as_mapping_mut);
    if let (Some(redis), Some(urls)) = (redis, store::urls(&config.store, secrets)) {
        redis.insert("urls".into(), urls.into());
    }
    let ignite = value.get_mut("store").and_then(|store| store.get_mut("ignite")).and_then(Value::as_mapping_mut);
    if let (Some(ignite), Some(password)) = (ignite, store::ignite_password(&config.store, secrets)) {
        ignite.insert("password".into(), password.into());
    }
    let pools: serde_yaml::Mapping = config
        .pools
        .iter()
        .filter_map(|pool| {
            value.get("pools")?.get(&pool.name).map(|written| (Value::from(pool.name.as_str()), written.clone()))
        })
        .collect();
    if let Some(map) = value.as_mapping_mut() {
        map.insert("pools".into(), Value::Mapping(pools));
    }
    value
}

/// A literal `${` is written `$${`.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("${", "$${"),
        Value::Sequence(items) => items.iter_mut().for_each(escape),
        Value::Mapping(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}

fn root(config: &Config) -> raw::Root {
    let mut root = raw::Root {
        version: 1,
        proxy: raw::Proxy {
            threads: config.proxy.threads.map_or(raw::Threads::Auto(raw::Auto::Auto), raw::Threads::Count),
            node: Some(config.proxy.node.clone()),
            pid_file: config.proxy.pid_file.as_ref().map(|path| path.display().to_string()),
            shutdown_grace: Span(config.proxy.shutdown_grace),
            upstream_idle_connections: config.proxy.upstream_idle_connections,
            ..raw::Proxy::default()
        },
        listeners: config.listeners.iter().map(listener).collect(),
        routes: config.routes.iter().map(route).collect(),
        pools: config.pools.iter().map(|one| (one.name.clone(), pool(one))).collect(),
        keys: config.keys.iter().map(|key| raw::Key { id: key.id.clone(), secret: String::new() }).collect(),
        store: store::store(&config.store),
        admin: None,
        metrics: None,
        log: log(&config.log),
        tracing: raw::Tracing::default(),
    };
    root.admin = config.admin.as_ref().map(|admin| raw::Admin {
        address: admin.address.to_string(),
        allowed_hosts: admin.allowed_hosts.clone(),
        ..raw::Admin::default()
    });
    root.metrics =
        config.metrics.as_ref().map(|door| raw::Metrics { address: door.address.to_string(), path: door.path.clone() });
    root
}

fn listener(one: &Listener) -> raw::Listener {
    let http2 = if one.tls.is_some() { raw::ListenerProtocol::H2 } else { raw::ListenerProtocol::H2c };
    let protocols = [(one.http1, raw::ListenerProtocol::Http1), (one.http2, http2)];
    raw::Listener {
        address: one.address.to_string(),
        protocols: Some(protocols.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name).collect()),
        proxy_protocol: if one.proxy_protocol { raw::ProxyProtocol::Accept } else { raw::ProxyProtocol::None },
        trusted_proxies: one.trusted_proxies.iter().map(ToString::to_string).collect(),
        max_header_size: Size(one.max_header_size as u64),
        max_body_size: one.max_body_size.map(Size),
        timeouts: raw::ListenerTimeouts {
            request_header: Span(one.timeouts.request_header),
            request_body: Span(one.timeouts.request_body),
            keepalive: Span(one.timeouts.keepalive),
            write: Span(one.timeouts.write),
        },
        tls: one.tls.as_ref().map(tls),
    }
}

fn tls(one: &Tls) -> raw::ListenerTls {
    let certificate = |one: &Certificate| raw::ListenerCertificate {
        cert: one.cert.written.clone(),
        key: one.key.written.clone(),
        hosts: one.hosts.clone(),
    };
    raw::ListenerTls {
        min_version: match one.min_version {
            TlsVersion::Tls12 => raw::TlsVersion::Tls12,
            TlsVersion::Tls13 => raw::TlsVersion::Tls13,
        },
        certificates: one.certificates.iter().map(certificate).collect(),
        client_ca: one.client_ca.as_ref().map(|ca| ca.file.written.clone()),
    }
}

fn route(one: &Route) -> raw::Route {
    let mut route = raw::Route {
        name: one.name.clone(),
        r#match: raw::Match {
            hosts: one.hosts.iter().map(ToString::to_string).collect(),
            path_prefix: one.path_prefix.clone(),
            headers: headers(&one.headers),
        },
        pool: None,
        split: None,
        redirect: None,
        request_headers: raw::RequestHeaders {
            set: headers(&one.request_headers.set),
            remove: one.request_headers.remove.iter().map(ToString::to_string).collect(),
        },
    };
    match &one.target {
        RouteTarget::Pool(pool) => route.pool = Some(pool.clone()),
        RouteTarget::Split(shares) => {
            let share = |one: &super::Share| raw::Share { pool: one.pool.clone(), weight: one.weight };
            route.split = Some(shares.iter().map(share).collect());
        }
        RouteTarget::Redirect(to) => route.redirect = Some(redirect(to)),
    }
    route
}

/// What the check let through is text.
fn headers(fields: &[(http::HeaderName, http::HeaderValue)]) -> std::collections::BTreeMap<String, String> {
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn redirect(one: &Redirect) -> raw::Redirect {
    raw::Redirect {
        scheme: one.scheme.map(|scheme| match scheme {
            Scheme::Http => raw::Scheme::Http,
            Scheme::Https => raw::Scheme::Https,
        }),
        host: one.host.clone(),
        port: one.port,
        path: one.path.clone(),
        status: one.status,
    }
}

fn pool(one: &Pool) -> raw::Pool {
    let retry_on = [
        (one.retries.on_connect_failure, raw::RetryOn::ConnectFailure),
        (one.retries.on_reset_before_response, raw::RetryOn::ResetBeforeResponse),
    ];
    raw::Pool {
        balance: match one.balance {
            Balance::RoundRobin => raw::Balance::RoundRobin,
            Balance::Random => raw::Balance::Random,
            Balance::LeastRequests => raw::Balance::LeastRequests,
            Balance::Hash => raw::Balance::Hash,
        },
        hash_on: one.hash_on.to_string(),
        servers: one.servers.iter().map(server).collect(),
        connection: raw::Connection {
            tls: raw::NotSupported,
            protocol: match one.connection.protocol {
                UpstreamProtocol::Http1 => raw::Protocol::Http1,
                UpstreamProtocol::H2 => raw::Protocol::H2,
            },
            connect_timeout: Span(one.connection.connect_timeout),
            read_timeout: Span(one.connection.read_timeout),
            write_timeout: Span(one.connection.write_timeout),
            idle_timeout: Span(one.connection.idle_timeout),
            preserve_header_case: one.connection.preserve_header_case,
        },
        health_check: one.health_check.as_ref().map(health_check),
        circuit_breaker: raw::NotSupported,
        retries: raw::Retries {
            attempts: one.retries.attempts,
            retry_on: retry_on.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect(),
            budget_percent: one.retries.budget_percent,
        },
        limits: raw::Limits::default(),
        slow_start: raw::NotSupported,
        drain_deadline: raw::NotSupported,
        rebalance: raw::NotSupported,
        persistence: one.persistence.as_ref().map(persistence::persistence),
    }
}

fn server(one: &Server) -> raw::Server {
    raw::Server {
        name: one.name.clone(),
        address: one.address.to_string(),
        weight: one.weight,
        state: match one.state {
            ServerState::Ready => raw::ServerState::Ready,
            ServerState::Drain => raw::ServerState::Drain,
            ServerState::Maint => raw::ServerState::Maint,
        },
        route: Some(one.route.clone()).filter(|route| *route != one.name),
        backup: one.backup,
    }
}

fn health_check(one: &HealthCheck) -> raw::HealthCheck {
    let times = raw::HealthCheck {
        interval: Span(one.interval),
        timeout: Span(one.timeout),
        rise: one.rise,
        fall: one.fall,
        ..raw::HealthCheck::default()
    };
    match &one.probe {
        Probe::Http { path, expect_status, drain_status } => raw::HealthCheck {
            path: path.clone(),
            expect_status: expect_status.clone(),
            drain_status: drain_status.clone(),
            ..times
        },
        Probe::Tcp => raw::HealthCheck { r#type: raw::HealthCheckType::Tcp, ..times },
    }
}

fn log(one: &Log) -> raw::Log {
    raw::Log {
        level: match one.level {
            LogLevel::Error => raw::LogLevel::Error,
            LogLevel::Warn => raw::LogLevel::Warn,
            LogLevel::Info => raw::LogLevel::Info,
            LogLevel::Debug => raw::LogLevel::Debug,
            LogLevel::Trace => raw::LogLevel::Trace,
        },
        format: match one.format {
            LogFormat::Text => raw::LogFormat::Text,
            LogFormat::Json => raw::LogFormat::Json,
        },
        access: match &one.access {
            AccessLog::None => "none".to_owned(),
            AccessLog::Stdout => "stdout".to_owned(),
            AccessLog::File(path) => path.display().to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{Fake, parse};

    const FILE: &str = "version: 1\nlisteners: [{ address: '127.0.0.1:8080' }]\npools:\n  z: { servers: [{ name: a, address: 'app:1' }] }\n  \
         b: { servers: [{ name: a, address: 'app:1' }], persistence: { cookie: { cache_control: 'x-$${y}' } } }\n\
         routes: [{ name: r, pool: z }, { name: s, match: { path_prefix: /b }, pool: b }]\n\
         keys: [{ id: k-1, secret: '0123456789abcdef' }]\nadmin: null\n";

    #[test]
    fn what_is_shown_loads_again_and_holds_no_secret() {
        let config = parse(FILE).unwrap().config;
        let shown = show(&config);
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
        assert!(shown.contains("secret: ${HOMING_KEY_K_1}"), "{shown}");
        let environment = Fake(vec![("HOMING_KEY_K_1", "0123456789abcdef")]);
        let again =
            Config::parse("shown.yaml", &shown, &environment).unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
        assert_eq!(again.config, config);
    }

    #[test]
    fn a_shared_store_is_shown_without_its_passwords() {
        let store = "store: { type: redis, redis: { mode: cluster, urls: ['rediss://u$${v:hunter2@a', 'rediss://u$${v:hunter2@b:1'] } }\n";
        let config = parse(&format!("{FILE}{store}")).unwrap().config;
        let shown = show(&config);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("- rediss://u$${v:${HOMING_REDIS_PASSWORD}@b:1\n"), "{shown}");
        let environment = Fake(vec![("HOMING_KEY_K_1", "0123456789abcdef"), ("HOMING_REDIS_PASSWORD", "hunter2")]);
        let again = Config::parse("shown.yaml", &shown, &environment).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(again.config, config);
        let other = parse(&format!("{FILE}{}", store.replace("hunter2", "hunter3"))).unwrap().config;
        assert_ne!(config.hash, other.hash, "another password is another configuration");
    }

    #[test]
    fn the_hash_changes_with_meaning_only() {
        let hash = |text: &str| parse(text).unwrap().config.hash;
        let plain = hash(FILE);
        assert_eq!(plain.len(), 16);
        assert_eq!(plain, hash(&format!("# a comment\n{FILE}store: {{ max_sessions: 1000000 }}\n")));
        assert_ne!(plain, hash(&FILE.replace("0123456789abcdef", "0123456789abcdeg")));
        assert_ne!(plain, hash(&FILE.replace("name: a", "name: c")));
    }
}
