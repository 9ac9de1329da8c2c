//! Routes: which requests, and what happens to them.

use crate::config::address;
use crate::config::check_context::{NodeRef, UniqueNames, check_name};
use crate::config::diagnostics::Diagnostics;
use crate::config::raw::{self, Scheme};
use crate::config::routes::{HostPattern, Route, RouteTarget};
use crate::config::settings::Config;
use crate::config::suggest;

mod conflicts;
mod headers;
mod target;

pub(super) fn routes(root: &raw::Root, at: NodeRef<'_>, pools: &[&str], diagnostics: &mut Diagnostics) -> Vec<Route> {
    if root.routes.is_empty() && pools.len() > 1 && at.key("routes").node.is_none_or(|routes| routes.items().is_empty())
    {
        let message = "several pools need routes that say which requests go where";
        let help =
            format!("add routes: [{{ name: …, match: {{ path_prefix: / }}, pool: … }}]; pools: {}", pools.join(", "));
        diagnostics.problem(at.key_location("pools"), message, help);
    }
    let mut names = UniqueNames::default();
    let mut earlier = conflicts::RouteIndex::default();
    let mut routes = Vec::new();
    let pools = target::PoolNames::new(pools);
    for (index, one) in root.routes.iter().enumerate() {
        let at = at.key("routes").item(index);
        let is_named = !at.key("name").is_stand_in();
        if is_named {
            check_name(&one.name, "route", at.key("name").location, diagnostics);
            names.see(&one.name, "route", at.key("name").location, diagnostics);
        }
        let Some(route) = route(one, at, &pools, diagnostics) else { continue };
        if is_named {
            earlier.insert(&route, at.key("name").location, diagnostics);
        }
        routes.push(route);
    }
    routes
}

/// `None` when it leads nowhere.
fn route(
    route: &raw::Route,
    at: NodeRef<'_>,
    pools: &target::PoolNames<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Route> {
    let (hosts, path_prefix) = (hosts(route, at, diagnostics), path_prefix(route, at, diagnostics));
    let headers = headers::matched(&route.r#match.headers, at.key("match").key("headers"), diagnostics);
    let target = target::target(route, at, pools, diagnostics)?;
    if matches!(target, RouteTarget::Redirect(_)) && route.request_headers != raw::RequestHeaders::default() {
        let message = "a redirect reaches no server that could see \"request_headers\"";
        diagnostics.problem(at.key_location("request_headers"), message, "remove it");
    }
    Some(Route {
        name: route.name.clone(),
        hosts,
        path_prefix,
        headers,
        target,
        request_headers: headers::changes(&route.request_headers, at.key("request_headers"), diagnostics),
    })
}

fn hosts(route: &raw::Route, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<HostPattern> {
    let mut hosts = Vec::new();
    for (index, written) in route.r#match.hosts.iter().enumerate() {
        match host_pattern(written) {
            // The same in another case: once is enough.
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(help) => {
                let location = at.key("match").key("hosts").item(index).location;
                diagnostics.problem(location, format!("{} is not a host", suggest::quoted(written)), help);
            }
        }
    }
    hosts
}

fn host_pattern(written: &str) -> Result<HostPattern, String> {
    let Some(domain) = written.strip_prefix("*.") else {
        return if written == "*" {
            Err("leave hosts out for any host".to_owned())
        } else if written.contains('*') {
            Err("a wildcard stands for the first labels of a name: *.example.org".to_owned())
        } else {
            address::route_host(written).map(HostPattern::Exact)
        };
    };
    let domain = address::route_host(domain)?;
    if domain.starts_with('[') || domain.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err("a wildcard needs a name: *.example.org".to_owned());
    }
    Ok(HostPattern::Below(domain))
}

fn path_prefix(route: &raw::Route, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> String {
    let prefix = route.r#match.path_prefix.as_str();
    if !address::is_path(prefix) {
        diagnostics.problem(
            at.key("match").key("path_prefix").location,
            format!("{} is not a path prefix", suggest::quoted(prefix)),
            "write a path that begins with \"/\", without query and wildcards, like /shop",
        );
    }
    let trimmed = prefix.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed }.to_owned()
}

/// A split whose pool keeps no sessions: each request meets a version by chance.
pub(super) fn splits_without_sessions(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    for (index, route) in config.routes.iter().enumerate() {
        let RouteTarget::Split(shares) = &route.target else { continue };
        for (location, share) in shares.iter().enumerate() {
            let pool = config.pools.iter().find(|pool| pool.name == share.pool);
            if pool.is_some_and(|pool| pool.persistence.is_none()) {
                let message = format!(
                    "pool {} keeps no sessions: a client of the split meets now one version, now another",
                    suggest::quoted(&share.pool)
                );
                let location = at.item(index).key("split").item(location).key("pool").location;
                diagnostics.warn(location, message, "add persistence: {} to the pool");
            }
        }
    }
}

pub(super) fn unused_pools(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if config.routes.is_empty() {
        return;
    }
    let used = config.routes_by_pool();
    for pool in &config.pools {
        if !used.contains_key(&*pool.name) {
            diagnostics.warn(
                at.key_location(&pool.name),
                format!("no route leads to pool {}", suggest::quoted(&pool.name)),
                "add a route, or remove the pool",
            );
        }
    }
}

/// No listener has TLS: unless a proxy in front reports the scheme, requests that came by https are redirected to https again
/// and again.
pub(super) fn redirects_without_end(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if config.sees_tls() {
        return;
    }
    for (index, route) in config.routes.iter().enumerate() {
        let RouteTarget::Redirect(to) = &route.target else { continue };
        if to.scheme == Some(Scheme::Https) && to.host.is_none() {
            let message = format!(
                "route {} redirects every request to https, also those that came by https: no listener can tell them apart",
                suggest::quoted(&route.name)
            );
            let help = "give a listener tls, or end TLS at a proxy before this one and name it in trusted_proxies";
            diagnostics.warn(at.item(index).key("redirect").key("scheme").location, message, help);
        }
    }
}
