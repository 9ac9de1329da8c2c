//! Matching requests to routes: by host, then by path prefix, then by headers.
//!
//! Of all routes that match a request the most specific wins: an exact host before a wildcard, a longer wildcard before a
//! shorter one, and that before any host; within a host the longest path prefix; within a prefix the most headers. Then
//! redirects, which do not match requests that already are where they lead; last, the alphabetical order of the header
//! conditions, for requests that repeat a header with the values of two routes. The order of the file has no meaning.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use http::{HeaderName, HeaderValue};

use crate::config::{self, HostPattern};
use crate::message::{Fields, WrittenName};

mod host;
mod redirect;
mod split;

#[cfg(test)]
mod tests;

pub use host::host_name;
pub use redirect::Redirect;
pub use split::Split;

/// A route, prepared: all that a request needs to know of it.
#[derive(Debug)]
pub struct RouteRuntime {
    /// Index of the route in the configuration; `None` when a single pool serves every request.
    pub index: Option<usize>,
    /// What happens to its requests.
    pub target: RouteTarget,
    /// Changes to the headers that servers get.
    pub request_headers: RequestHeaders,
}

/// Changes to the headers that servers get, prepared.
#[derive(Debug, Default)]
pub struct RequestHeaders {
    /// Fields to remove.
    pub remove: Vec<HeaderName>,
    /// Fields to set.
    pub set: Vec<(WrittenName, HeaderValue)>,
}

impl RequestHeaders {
    fn new(changes: &config::RequestHeaders) -> Self {
        let set = changes.set.iter().map(|(name, value)| (WrittenName::of(name), value.clone()));
        Self { remove: changes.remove.clone(), set: set.collect() }
    }
}

/// What happens to requests. Pools are indexes in the configuration.
#[derive(Debug)]
pub enum RouteTarget {
    /// A pool serves them.
    Pool(usize),
    /// Pools serve them, by weight.
    Split(Split),
    /// The proxy responds with a redirect.
    Redirect(Redirect),
}

/// All routes, indexed for matching.
#[derive(Debug, Default)]
pub struct Router {
    routes: Vec<RouteRuntime>,
    by_host: HashMap<Box<str>, Vec<Candidate>>,
    /// By the domain that the hosts are below.
    by_domain: HashMap<Box<str>, Vec<Candidate>>,
    any_host: Vec<Candidate>,
}

/// A host that is not text is none.
fn text(host: &[u8]) -> &str {
    std::str::from_utf8(host).unwrap_or_default()
}

/// A route under one of its hosts. The candidates of a host are in the order in which they are tried.
#[derive(Debug)]
struct Candidate {
    /// Without a trailing slash; empty = every path.
    prefix: Box<str>,
    headers: Box<[(HeaderName, HeaderValue)]>,
    /// Index in [`Router::routes`].
    route: usize,
}

/// What routes read of a request.
#[derive(Debug, Clone, Copy)]
pub struct RouteInput<'r> {
    /// The host as the client sent it: with or without port, in any case. Read as text only where a route asks for it.
    pub host: &'r [u8],
    /// The path, without query.
    pub path: &'r str,
    /// Header fields.
    pub fields: Fields<'r>,
    /// The client came by TLS.
    pub secure: bool,
}

impl Router {
    /// Indexes the routes of a checked configuration; `pools` are the names of all pools, by index.
    pub fn build(routes: &[config::Route], pools: &[&str]) -> Self {
        let mut router = Self::default();
        if routes.is_empty() {
            let target = RouteTarget::Pool(0);
            router.routes.push(RouteRuntime { index: None, target, request_headers: RequestHeaders::default() });
            router.any_host.push(Candidate { prefix: "".into(), headers: [].into(), route: 0 });
        }
        let by_name: HashMap<&str, usize> = pools.iter().enumerate().map(|(index, name)| (*name, index)).collect();
        for (index, route) in routes.iter().enumerate() {
            let target = match &route.target {
                config::RouteTarget::Pool(name) => {
                    // A checked configuration names existing pools only.
                    let Some(pool) = by_name.get(name.as_str()) else { continue };
                    RouteTarget::Pool(*pool)
                }
                config::RouteTarget::Split(shares) => RouteTarget::Split(Split::new(shares, pools)),
                config::RouteTarget::Redirect(to) => RouteTarget::Redirect(Redirect::new(to)),
            };
            router.add_candidates(route);
            router.routes.push(RouteRuntime {
                index: Some(index),
                target,
                request_headers: RequestHeaders::new(&route.request_headers),
            });
        }
        let Self { routes, by_host, by_domain, any_host } = &mut router;
        for candidates in by_host.values_mut().chain(by_domain.values_mut()).chain([any_host]) {
            candidates.sort_by(|one, other| one.before(other, routes));
        }
        router
    }

    /// Adds the route that is pushed next under each of its hosts.
    fn add_candidates(&mut self, config: &config::Route) {
        let route = self.routes.len();
        let candidate = || Candidate {
            prefix: config.path_prefix.trim_end_matches('/').into(),
            headers: config.headers.clone().into(),
            route,
        };
        if config.hosts.is_empty() {
            self.any_host.push(candidate());
        }
        for host in &config.hosts {
            let candidates = match host {
                HostPattern::Exact(name) => self.by_host.entry(name.as_str().into()),
                HostPattern::Below(domain) => self.by_domain.entry(domain.as_str().into()),
            };
            candidates.or_default().push(candidate());
        }
    }

    /// The route of a request.
    pub fn find(&self, input: RouteInput<'_>) -> Option<&RouteRuntime> {
        let has_hosts = !(self.by_host.is_empty() && self.by_domain.is_empty());
        let of_host = if has_hosts { self.find_by_host(input) } else { None };
        of_host.or_else(|| self.first(&self.any_host, input))
    }

    /// A route by its index in the configuration.
    pub fn route(&self, index: Option<usize>) -> Option<&RouteRuntime> {
        // Every route of a checked configuration was added.
        self.routes.get(index?)
    }

    fn find_by_host(&self, input: RouteInput<'_>) -> Option<&RouteRuntime> {
        let name = host::LowerCase::new(host_name(text(input.host)))?;
        let exact = self.by_host.get(name.as_str()).and_then(|candidates| self.first(candidates, input));
        if exact.is_some() || self.by_domain.is_empty() {
            return exact;
        }
        host::domains(name.as_str()).find_map(|domain| self.first(self.by_domain.get(domain)?, input))
    }

    fn first(&self, candidates: &[Candidate], input: RouteInput<'_>) -> Option<&RouteRuntime> {
        candidates
            .iter()
            .filter(|candidate| candidate.matches(input))
            .filter_map(|candidate| self.routes.get(candidate.route))
            .find(|route| route.target.matches(input))
    }
}

impl Candidate {
    fn matches(&self, input: RouteInput<'_>) -> bool {
        let rest = input.path.strip_prefix(&*self.prefix);
        // A path parameter (`/shop;sid=1`) belongs to its segment.
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ';']) || self.prefix.is_empty())
            && self.headers.iter().all(|(name, value)| input.fields.all(name).any(|field| field == value.as_bytes()))
    }

    /// The order in which two routes of one host are tried: total, except for routes that no request has in common.
    fn before(&self, other: &Self, routes: &[RouteRuntime]) -> Ordering {
        let rank = |one: &Self| {
            let redirects = routes.get(one.route).is_some_and(|route| matches!(route.target, RouteTarget::Redirect(_)));
            (Reverse(one.prefix.len()), Reverse(one.headers.len()), !redirects)
        };
        let fields = |one: &'_ Self| -> Vec<(String, Vec<u8>)> {
            one.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
        };
        rank(self).cmp(&rank(other)).then_with(|| fields(self).cmp(&fields(other)))
    }
}

impl RouteTarget {
    /// A redirect does not match requests that already are where it leads; they get the next best route.
    fn matches(&self, input: RouteInput<'_>) -> bool {
        match self {
            Self::Redirect(to) => to.leads_elsewhere(text(input.host), input.path, input.secure),
            Self::Pool(_) | Self::Split(_) => true,
        }
    }
}
