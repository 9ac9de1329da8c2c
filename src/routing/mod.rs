//! Which pool serves a request: by host, then by the longest path prefix.

use std::collections::HashMap;

use crate::config;

/// What a request was matched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Index of the route in the configuration; `None` when a single pool takes everything.
    pub route: Option<usize>,
    /// Index of the pool in the configuration.
    pub pool: usize,
}

/// All routes, laid out for looking up.
#[derive(Debug, Default)]
pub struct Router {
    by_host: HashMap<Box<str>, Vec<Prefix>>,
    any_host: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    /// Without a trailing slash; empty = every path.
    path: Box<str>,
    found: Match,
}

impl Router {
    /// Lays out the routes of a checked configuration.
    pub fn build(routes: &[config::Route], pools: &[&str]) -> Self {
        let mut router = Self::default();
        if routes.is_empty() {
            router.any_host.push(Prefix { path: "".into(), found: Match { route: None, pool: 0 } });
        }
        for (index, route) in routes.iter().enumerate() {
            // A checked configuration names existing pools only.
            let Some(pool) = pools.iter().position(|pool| *pool == route.pool) else { continue };
            let prefix = || Prefix {
                path: route.path_prefix.trim_end_matches('/').into(),
                found: Match { route: Some(index), pool },
            };
            if route.hosts.is_empty() {
                router.any_host.push(prefix());
            }
            for host in &route.hosts {
                router.by_host.entry(host.as_str().into()).or_default().push(prefix());
            }
        }
        for prefixes in router.by_host.values_mut().chain([&mut router.any_host]) {
            prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
        }
        router
    }

    /// The route of a request. `host` as it came, with or without port, in any case.
    pub fn find(&self, host: &str, path: &str) -> Option<Match> {
        let exact = if self.by_host.is_empty() { None } else { self.by_name(host_name(host)) };
        exact.and_then(|prefixes| longest(prefixes, path)).or_else(|| longest(&self.any_host, path))
    }

    fn by_name(&self, name: &str) -> Option<&Vec<Prefix>> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.by_host.get(name.to_ascii_lowercase().as_str())
        } else {
            self.by_host.get(name)
        }
    }
}

fn longest(prefixes: &[Prefix], path: &str) -> Option<Match> {
    prefixes
        .iter()
        .find(|prefix| {
            path.strip_prefix(&*prefix.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.path.is_empty())
        })
        .map(|prefix| prefix.found)
}

/// The name in a Host header: without port, without the root's dot; IPv6 addresses keep their brackets.
pub fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
            // `[::1]:80` has its port after the bracket; `::1` is not a host and stays what it is.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes by (hosts, prefix), each to a pool of its own.
    fn router(routes: &[(&[&str], &str)]) -> Router {
        let pools: Vec<String> = (0..routes.len()).map(|index| index.to_string()).collect();
        let routes: Vec<config::Route> = routes
            .iter()
            .zip(&pools)
            .map(|((hosts, path), pool)| config::Route {
                name: pool.clone(),
                hosts: hosts.iter().map(ToString::to_string).collect(),
                path_prefix: (*path).into(),
                pool: pool.clone(),
            })
            .collect();
        Router::build(&routes, &pools.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn found(router: &Router, host: &str, path: &str) -> Option<usize> {
        router.find(host, path).map(|found| found.pool)
    }

    #[test]
    fn the_longest_prefix_wins_in_any_order() {
        for routes in [
            [(&[] as &[&str], "/"), (&[], "/shop"), (&[], "/shop/cart")],
            [(&[] as &[&str], "/shop/cart"), (&[], "/"), (&[], "/shop")],
        ] {
            let router = router(&routes);
            let at = |path: &str| routes[found(&router, "x", path).unwrap()].1;
            assert_eq!(at("/"), "/");
            assert_eq!(at("/shop"), "/shop");
            assert_eq!(at("/shop/"), "/shop");
            assert_eq!(at("/shop/cart/3"), "/shop/cart");
            assert_eq!(at("/shopping"), "/", "a prefix ends at a slash");
        }
    }

    #[test]
    fn an_exact_host_goes_before_any_host() {
        let router = router(&[(&[], "/shop/cart"), (&["shop.example.org"], "/shop")]);
        assert_eq!(found(&router, "shop.example.org", "/shop/cart"), Some(1));
        assert_eq!(found(&router, "SHOP.example.org:8080", "/shop"), Some(1));
        assert_eq!(found(&router, "shop.example.org.", "/shop"), Some(1));
        assert_eq!(found(&router, "other.example.org", "/shop/cart"), Some(0));
        assert_eq!(found(&router, "other.example.org", "/shop"), None);
    }

    #[test]
    fn a_single_pool_needs_no_routes() {
        let router = Router::build(&[], &["web"]);
        assert_eq!(router.find("any", "/thing"), Some(Match { route: None, pool: 0 }));
    }

    #[test]
    fn hosts_lose_their_port_and_nothing_else() {
        for (host, name) in [
            ("a.b", "a.b"),
            ("a.b:80", "a.b"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:1", "127.0.0.1"),
            (":80", ":80"),
            ("", ""),
        ] {
            assert_eq!(host_name(host), name);
        }
    }
}
