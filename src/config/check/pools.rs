//! Pools: servers, checks, retries.

use std::time::Duration;

use crate::config::address::{self, ListenAddress, ServerAddress};
use crate::config::check_context::{CheckContext, NodeRef, UniqueNames, check_name};
use crate::config::diagnostics::Diagnostics;
use crate::config::pools::{HashOn, HealthCheck, Pool, Probe, Retries, Server};
use crate::config::raw;
use crate::config::settings::Config;
use crate::config::suggest;
use crate::config::units::duration_text;
use crate::config::yaml::Node;
use crate::session::source::SourceSettings;

use super::server_tls;

/// In the order of the file.
pub(super) fn pools(
    root: &raw::Root,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<Pool> {
    let mut pools = Vec::new();
    for (name, key_location, at) in at.entries() {
        let Some(pool) = root.pools.get(name) else { continue };
        check_name(name, "pool", key_location, diagnostics);
        if !at.key("persistence").is_written() {
            let message = format!("pool {} keeps no sessions: every request is balanced afresh", suggest::quoted(name));
            let help = "add persistence: {}, or persistence: null if no session needs its server";
            diagnostics.warn(key_location, message, help);
        }
        pools.push(self::pool(name, pool, at, context, diagnostics));
    }
    pools
}

fn pool(
    name: &str,
    pool: &raw::Pool,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Pool {
    let persistence = pool.persistence.as_ref();
    let has_route_ids =
        persistence.is_some_and(|one| one.sources.iter().any(|source| matches!(source, SourceSettings::Route(_))));
    if has_route_ids {
        super::sources::route_ids(&pool.servers, at.key("servers"), diagnostics);
    } else {
        for (index, _) in pool.servers.iter().enumerate().filter(|(_, server)| server.route.is_some()) {
            let location = at.key("servers").item(index).key_location("route");
            diagnostics.warn(
                location,
                "\"route\" means nothing without the source route",
                "add the source, or remove it",
            );
        }
    }
    let servers = servers(&pool.servers, at.key("servers"), diagnostics);
    Pool {
        name: name.to_owned(),
        balance: pool.balance,
        hash_on: hash_on(&pool.hash_on, at.key("hash_on"), diagnostics),
        tls: server_tls::server_tls(&pool.connection, &servers, at, context, diagnostics),
        servers,
        discovery: super::discovery::discovery(name, pool, at, context, diagnostics),
        connection: pool.connection.clone(),
        streams_on_down: pool.streams_on_down,
        drain_deadline: pool.drain_deadline,
        rebalance: pool.rebalance,
        health_check: pool.health_check.as_ref().map(|check| health_check(check, at.key("health_check"), diagnostics)),
        circuit_breaker: pool
            .circuit_breaker
            .as_ref()
            .map(|breaker| circuit_breaker(breaker, at.key("circuit_breaker"), diagnostics)),
        limits: pool.limits.clone(),
        slow_start: slow_start(pool, at, diagnostics),
        retries: Retries {
            attempts: pool.retries.attempts,
            on_connect_failure: pool.retries.retry_on.contains(&raw::RetryOn::ConnectFailure),
            on_reset_before_response: pool.retries.retry_on.contains(&raw::RetryOn::ResetBeforeResponse),
            budget_percent: pool.retries.budget_percent,
        },
        persistence: persistence.map(|one| super::persistence::persistence(one, at.key("persistence"), diagnostics)),
    }
}

fn hash_on(text: &str, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> HashOn {
    const FORMS: [&str; 5] = ["client_ip", "uri", "header:NAME", "cookie:NAME", "query:NAME"];
    match text.split_once(':') {
        None if text == "client_ip" => return HashOn::ClientIp,
        None if text == "uri" => return HashOn::Uri,
        Some(("header", name)) if address::is_token(name) => return HashOn::Header(name.to_lowercase()),
        Some(("cookie", name)) if address::is_token(name) => return HashOn::Cookie(name.to_owned()),
        Some(("query", name)) if !name.is_empty() && !name.contains(['&', '=', '#', ' ']) => {
            return HashOn::Query(name.to_owned());
        }
        _ => {}
    }
    diagnostics.problem(
        at.location,
        format!("\"hash_on\" cannot be {}", suggest::quoted(text)),
        suggest::help(text, &FORMS, "it can be"),
    );
    HashOn::ClientIp
}

fn servers(servers: &[raw::Server], at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<Server> {
    let mut names = UniqueNames::default();
    let mut checked = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let at = at.item(index);
        if !at.key("name").is_stand_in() {
            check_name(&server.name, "server", at.key("name").location, diagnostics);
            names.see(&server.name, "server", at.key("name").location, diagnostics);
        }
        let address = match address::server_address(&server.address) {
            Ok(address) => address,
            Err(help) => {
                let message = format!("{} is not the address of a server", suggest::quoted(&server.address));
                diagnostics.problem(at.key("address").location, message, help);
                continue;
            }
        };
        checked.push(Server {
            name: server.name.clone(),
            address,
            weight: server.weight,
            state: server.state,
            route: server.route.clone().unwrap_or_else(|| server.name.clone()),
            backup: server.backup,
            removed: false,
            since: None,
        });
    }
    checked
}

fn health_check(check: &raw::HealthCheck, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> HealthCheck {
    let probe = match check.r#type {
        raw::HealthCheckType::Http => http_probe(check, at, diagnostics),
        raw::HealthCheckType::Tcp => {
            for key in ["path", "expect_status", "drain_status"].into_iter().filter(|key| at.key(key).is_written()) {
                diagnostics.warn(
                    at.key_location(key),
                    format!("\"{key}\" means nothing with type: tcp"),
                    "remove it, or write type: http",
                );
            }
            Probe::Tcp
        }
    };
    HealthCheck { probe, interval: check.interval, timeout: check.timeout, rise: check.rise, fall: check.fall }
}

fn slow_start(pool: &raw::Pool, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Duration {
    if pool.balance == raw::Balance::Hash && !pool.slow_start.is_zero() {
        diagnostics.warn(
            at.key_location("slow_start"),
            "\"slow_start\" means nothing with balance: hash",
            "remove it, or choose another balance",
        );
        return Duration::ZERO;
    }
    pool.slow_start
}

/// A default of `max_ejection_time` yields to the `ejection_time` that is written.
fn circuit_breaker(
    breaker: &raw::CircuitBreaker,
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) -> raw::CircuitBreaker {
    let max = at.key("max_ejection_time");
    if max.is_written() && breaker.max_ejection_time < breaker.ejection_time {
        let time = duration_text(breaker.ejection_time);
        let longest = duration_text(breaker.max_ejection_time);
        diagnostics.problem(
            max.location,
            format!("the longest ejection ({longest}) is shorter than ejection_time ({time})"),
            format!("write a max_ejection_time of at least {time}"),
        );
    }
    raw::CircuitBreaker { max_ejection_time: breaker.max_ejection_time.max(breaker.ejection_time), ..breaker.clone() }
}

fn http_probe(check: &raw::HealthCheck, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Probe {
    let path = check.path.as_str();
    if !path.starts_with('/') || !address::is_header_text(path) || path.contains(['#', ' ']) {
        let message = format!("{} is not a path", suggest::quoted(path));
        diagnostics.problem(at.key("path").location, message, "write a path that begins with \"/\", like /healthz");
    }
    if let Some(index) = check.drain_status.iter().position(|status| check.expect_status.contains(status)) {
        let status = check.drain_status.get(index).copied().unwrap_or_default();
        let message = format!("status {status} cannot mean both \"well\" and \"wants no new sessions\"");
        diagnostics.problem(
            at.key("drain_status").item(index).location,
            message,
            "keep it in expect_status or in drain_status",
        );
    }
    Probe::Http {
        path: path.to_owned(),
        expect_status: check.expect_status.clone(),
        drain_status: check.drain_status.clone(),
    }
}

/// A server that is one of our own listeners: requests would go round in a circle.
pub(super) fn circles(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    for pool in &config.pools {
        for server in &pool.servers {
            if !config.listeners.iter().any(|listener| same(&listener.address, &server.address)) {
                continue;
            }
            let items = at.key(&pool.name).key("servers");
            let named =
                |item: &Node| item.entry("name").is_some_and(|name| name.value.to_json() == server.name.as_str());
            let index = items.node.map(Node::items).unwrap_or_default().iter().position(named).unwrap_or(usize::MAX);
            let name = suggest::quoted(&server.name);
            let message = format!("server {name} is this proxy itself: its requests would go round in a circle");
            diagnostics.warn(
                items.item(index).key("address").location,
                message,
                "write the address of the application",
            );
        }
    }
}

fn same(listener: &ListenAddress, server: &ServerAddress) -> bool {
    match (listener, server) {
        (ListenAddress::Tcp(listener), ServerAddress::Ip(server)) => listener == server,
        (ListenAddress::Unix(listener), ServerAddress::Unix(server)) => listener == server,
        _ => false,
    }
}
