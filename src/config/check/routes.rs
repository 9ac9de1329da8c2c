//! Routes: which pool serves which request.

use std::collections::HashMap;

use super::At;
use super::Unique;
use crate::config::Config;
use crate::config::address;
use crate::config::pools::Route;
use crate::config::problem::Findings;
use crate::config::shape;
use crate::config::suggest;

pub(super) fn routes(root: &shape::Root, at: At<'_>, pools: &[&str], findings: &mut Findings) -> Vec<Route> {
    if root.routes.is_empty() && pools.len() > 1 && at.key("routes").node.is_none_or(|routes| routes.items().is_empty())
    {
        let message = "several pools need routes that say which requests go where";
        let help =
            format!("add routes: [{{ name: …, match: {{ path_prefix: / }}, pool: … }}]; pools: {}", pools.join(", "));
        findings.problem(at.name_of("pools"), message, help);
    }
    let mut names = Unique::default();
    let mut taken = HashMap::new();
    let mut routes = Vec::new();
    for (index, one) in root.routes.iter().enumerate() {
        let at = at.key("routes").item(index);
        super::name(&one.name, "route", at.key("name").place, findings);
        names.see(&one.name, "route", at.key("name").place, findings);
        if !pools.contains(&one.pool.as_str()) {
            let message = format!("pool {} does not exist", suggest::quoted(&one.pool));
            findings.problem(at.key("pool").place, message, suggest::help(&one.pool, pools, "pools"));
        }
        let route = route(one, at, findings);
        conflicts(&route, at, &mut taken, findings);
        routes.push(route);
    }
    routes
}

fn route(route: &shape::Route, at: At<'_>, findings: &mut Findings) -> Route {
    let at = at.key("match");
    let mut hosts = Vec::new();
    for (index, host) in route.r#match.hosts.iter().enumerate() {
        let place = at.key("hosts").item(index).place;
        if host.contains('*') {
            let message = format!("wildcard host {} is not in this version of homing", suggest::quoted(host));
            findings.problem(place, message, "list the hosts one by one, or leave hosts out for any host");
            continue;
        }
        match address::route_host(host) {
            Ok(host) => hosts.push(host),
            Err(help) => findings.problem(place, format!("{} is not a host", suggest::quoted(host)), help),
        }
    }
    let prefix = route.r#match.path_prefix.as_str();
    if !prefix.starts_with('/') || !address::is_header_text(prefix) || prefix.contains(['?', '#', '*', ' ']) {
        let message = format!("{} is not a path prefix", suggest::quoted(prefix));
        findings.problem(
            at.key("path_prefix").place,
            message,
            "write a path that begins with \"/\", without query and wildcards, like /shop",
        );
    }
    let trimmed = prefix.trim_end_matches('/');
    let path_prefix = if trimmed.is_empty() { "/" } else { trimmed }.to_owned();
    Route { name: route.name.clone(), hosts, path_prefix, pool: route.pool.clone() }
}

/// Two routes for the same requests: the second would never be asked.
fn conflicts(route: &Route, at: At<'_>, taken: &mut HashMap<(String, String), String>, findings: &mut Findings) {
    let any = String::new();
    let hosts: Vec<&String> = if route.hosts.is_empty() { vec![&any] } else { route.hosts.iter().collect() };
    for host in hosts {
        let wanted = (host.clone(), route.path_prefix.clone());
        if let Some(first) = taken.get(&wanted) {
            let host = if host.is_empty() { "any host" } else { host };
            let message = format!(
                "route {} takes the same requests as route {}: {host}, {}",
                suggest::quoted(&route.name),
                suggest::quoted(first),
                route.path_prefix
            );
            findings.problem(
                at.key("name").place,
                message,
                "remove one of them, or give it another host or path_prefix",
            );
            return;
        }
        taken.insert(wanted, route.name.clone());
    }
}

pub(super) fn unused_pools(config: &Config, at: At<'_>, findings: &mut Findings) {
    if config.routes.is_empty() {
        return;
    }
    for pool in &config.pools {
        if !config.routes.iter().any(|route| route.pool == pool.name) {
            findings.warn(
                at.name_of(&pool.name),
                format!("no route leads to pool {}", suggest::quoted(&pool.name)),
                "add a route, or remove the pool",
            );
        }
    }
}
