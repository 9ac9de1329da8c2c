//! Pools that set the same cookie on the same host. A file may have thousands of routes and pools, so that hosts are looked up and
//! not compared one by one.

use std::collections::{HashMap, HashSet};

use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::pools::Pool;
use crate::config::raw::Issue;
use crate::config::routes::{HostPattern, Route};
use crate::config::settings::Config;
use crate::config::suggest;

/// A client of two pools with one cookie loses its session with every change between them. Not counted: shares of one split, which
/// are versions of one application, of which a session has one.
pub(super) fn shared_cookies(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let routes = config.routes_by_pool();
    let splits = splits(config);
    let mut users: HashMap<CookieKey<'_>, Hosts<'_>> = HashMap::new();
    for (index, pool) in config.pools.iter().enumerate() {
        let Some(key) = cookie_key(pool) else { continue };
        let routes = routes.get(&*pool.name).map(Vec::as_slice).unwrap_or_default();
        let before = users.entry(key).or_default();
        let is_version =
            |other: &usize| config.pools.get(*other).is_some_and(|other| splits.contains(&(&*other.name, &*pool.name)));
        let first = before.pools_on_hosts_of(routes).into_iter().filter(|other| !is_version(other)).min();
        if let Some(other) = first.and_then(|first| config.pools.get(first)) {
            warn(pool, other, at, diagnostics);
        }
        before.add(routes, index);
    }
}

fn warn(pool: &Pool, other: &Pool, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let message = format!(
        "pools {} and {} set the same cookie on the same host: a client of both loses its session with every change between them",
        suggest::quoted(&other.name),
        suggest::quoted(&pool.name)
    );
    let cookie = pool.persistence.as_ref().map_or("SESSIONID", |persistence| &persistence.cookie.name);
    let help = format!("give one of them a cookie name of its own, like {cookie}_{}", pool.name);
    let location = at.key(&pool.name).key("persistence").key("cookie").key("name").location;
    diagnostics.warn(location, message, help);
}

/// Name, path and domain.
type CookieKey<'c> = (&'c str, &'c str, Option<&'c str>);

/// `None` when the pool sets none.
fn cookie_key(pool: &Pool) -> Option<CookieKey<'_>> {
    let persistence = pool.persistence.as_ref().filter(|persistence| persistence.issue == Issue::Cookie)?;
    let cookie = &persistence.cookie;
    Some((&cookie.name, &cookie.path, cookie.domain.as_deref()))
}

/// Pools that are shares of one split, in both orders.
fn splits(config: &Config) -> HashSet<(&str, &str)> {
    let pairs = |route| {
        let pools: Vec<&str> = Route::pools(route).collect();
        pools.iter().flat_map(|one| pools.iter().map(|other| (*one, *other))).collect::<Vec<_>>()
    };
    config.routes.iter().filter(|route| route.pools().nth(1).is_some()).flat_map(pairs).collect()
}

/// Where pools are, by their indices.
#[derive(Default)]
struct Hosts<'c> {
    exact: HashMap<&'c str, HashSet<usize>>,
    below: HashMap<&'c str, HashSet<usize>>,
    /// Of routes for any host.
    any: HashSet<usize>,
}

impl<'c> Hosts<'c> {
    fn add(&mut self, routes: &[&'c Route], pool: usize) {
        for route in routes {
            if route.hosts.is_empty() {
                self.any.insert(pool);
            }
            for host in &route.hosts {
                let (hosts, name) = match host {
                    HostPattern::Exact(name) => (&mut self.exact, name),
                    HostPattern::Below(domain) => (&mut self.below, domain),
                };
                hosts.entry(name).or_default().insert(pool);
            }
        }
    }

    /// The pools that a client of these routes may come to as well.
    fn pools_on_hosts_of(&self, routes: &[&Route]) -> HashSet<usize> {
        let mut found = HashSet::new();
        let mut hosts = HashSet::new();
        for route in routes {
            if route.hosts.is_empty() {
                found.extend(&self.any);
            }
            hosts.extend(&route.hosts);
        }
        for host in hosts {
            match host {
                HostPattern::Exact(name) => {
                    found.extend(self.exact.get(&**name).into_iter().flatten());
                    let domains = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
                    found.extend(domains.filter_map(|domain| self.below.get(domain)).flatten());
                }
                // Few patterns are of this kind.
                HostPattern::Below(_) => {
                    let exact = self.exact.iter().map(|(name, pools)| (HostPattern::Exact((*name).to_owned()), pools));
                    let below = self.below.iter().map(|(name, pools)| (HostPattern::Below((*name).to_owned()), pools));
                    found.extend(
                        exact.chain(below).filter(|(other, _)| host.overlaps(other)).flat_map(|(_, pools)| pools),
                    );
                }
            }
        }
        found
    }
}
