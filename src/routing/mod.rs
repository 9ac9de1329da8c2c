//! What happens to a request: by host, then by path prefix, then by headers.
//!
//! Of all routes that take a request the best has it: an exact host goes before a wildcard, a longer wildcard before a
//! shorter, and that before any host; of one host the longest path prefix; of one prefix the most headers. Then come
//! redirects, which leave to others the requests that are where they would send them, and at last the order of the
//! alphabet, for requests that repeat a header with the values of two routes. The order of the file means nothing.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{self, HostPattern, RouteTarget};
use crate::message::WrittenName;

mod host;
mod redirect;
mod split;

#[cfg(test)]
mod tests;

pub use host::host_name;
pub use redirect::Redirect;
pub use split::Split;

/// All that a request needs to know of its route.
#[derive(Debug)]
pub struct RoutePlan {
    /// Index of the route in the configuration; `None` when a single pool takes everything.
    pub index: Option<usize>,
    /// What happens to its requests.
    pub target: Target,
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
pub enum Target {
    /// A pool serves them.
    Pool(usize),
    /// Pools serve them, by weight.
    Split(Split),
    /// The proxy answers.
    Redirect(Redirect),
}

/// All routes, laid out for looking up.
#[derive(Debug, Default)]
pub struct Router {
    plans: Vec<RoutePlan>,
    exact: HashMap<Box<str>, Vec<Candidate>>,
    /// By the domain that names are below.
    below: HashMap<Box<str>, Vec<Candidate>>,
    any: Vec<Candidate>,
}

/// A route under one of its hosts. Those of a host are in the order in which they are tried.
#[derive(Debug)]
struct Candidate {
    /// Without a trailing slash; empty = every path.
    prefix: Box<str>,
    headers: Box<[(HeaderName, HeaderValue)]>,
    plan: usize,
}

/// What routes look at.
#[derive(Clone, Copy)]
struct Asked<'r> {
    host: &'r str,
    path: &'r str,
    headers: &'r HeaderMap,
    secure: bool,
}

impl Router {
    /// Lays out the routes of a checked configuration; `pools` are the names of all pools, by index.
    pub fn build(routes: &[config::Route], pools: &[&str]) -> Self {
        let mut router = Self::default();
        if routes.is_empty() {
            let target = Target::Pool(0);
            router.plans.push(RoutePlan { index: None, target, request_headers: RequestHeaders::default() });
            router.any.push(Candidate { prefix: "".into(), headers: [].into(), plan: 0 });
        }
        for (index, route) in routes.iter().enumerate() {
            let target = match &route.target {
                RouteTarget::Pool(name) => {
                    // A checked configuration names existing pools only.
                    let Some(pool) = pools.iter().position(|pool| pool == name) else { continue };
                    Target::Pool(pool)
                }
                RouteTarget::Split(shares) => Target::Split(Split::new(shares, pools)),
                RouteTarget::Redirect(to) => Target::Redirect(Redirect::new(to)),
            };
            router.enter(route);
            router.plans.push(RoutePlan {
                index: Some(index),
                target,
                request_headers: RequestHeaders::new(&route.request_headers),
            });
        }
        let Self { plans, exact, below, any } = &mut router;
        for candidates in exact.values_mut().chain(below.values_mut()).chain([any]) {
            candidates.sort_by(|one, other| one.before(other, plans));
        }
        router
    }

    /// Enters the route whose plan comes next.
    fn enter(&mut self, route: &config::Route) {
        let plan = self.plans.len();
        let candidate = || Candidate {
            prefix: route.path_prefix.trim_end_matches('/').into(),
            headers: route.headers.clone().into(),
            plan,
        };
        if route.hosts.is_empty() {
            self.any.push(candidate());
        }
        for host in &route.hosts {
            let candidates = match host {
                HostPattern::Exact(name) => self.exact.entry(name.as_str().into()),
                HostPattern::Below(domain) => self.below.entry(domain.as_str().into()),
            };
            candidates.or_default().push(candidate());
        }
    }

    /// The route of a request. `host` as it came, with or without port, in any case; `secure`: it came by TLS.
    pub fn find(&self, host: &str, path: &str, headers: &HeaderMap, secure: bool) -> Option<&RoutePlan> {
        let asked = Asked { host, path, headers, secure };
        let named = if self.exact.is_empty() && self.below.is_empty() { None } else { self.by_name(asked) };
        named.or_else(|| self.first(&self.any, asked))
    }

    /// The plan of a route, by its index in the configuration.
    pub fn plan(&self, route: Option<usize>) -> Option<&RoutePlan> {
        // All routes of a checked configuration have a plan.
        self.plans.get(route?)
    }

    fn by_name(&self, asked: Asked<'_>) -> Option<&RoutePlan> {
        let name = host::Lower::new(host_name(asked.host))?;
        let exact = self.exact.get(name.as_str()).and_then(|candidates| self.first(candidates, asked));
        if exact.is_some() || self.below.is_empty() {
            return exact;
        }
        host::domains(name.as_str()).find_map(|domain| self.first(self.below.get(domain)?, asked))
    }

    fn first(&self, candidates: &[Candidate], asked: Asked<'_>) -> Option<&RoutePlan> {
        candidates
            .iter()
            .filter(|candidate| candidate.takes(asked))
            .filter_map(|candidate| self.plans.get(candidate.plan))
            .find(|plan| plan.target.takes(asked))
    }
}

impl Candidate {
    fn takes(&self, asked: Asked<'_>) -> bool {
        let below = asked.path.strip_prefix(&*self.prefix);
        // A path parameter (`/shop;sid=1`) belongs to its segment.
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ';']) || self.prefix.is_empty())
            && self.headers.iter().all(|(name, value)| asked.headers.get_all(name).iter().any(|field| field == value))
    }

    /// The order in which two routes of one host are tried: total, but for routes that no request has in common.
    fn before(&self, other: &Self, plans: &[RoutePlan]) -> Ordering {
        let rank = |one: &Self| {
            let redirects = plans.get(one.plan).is_some_and(|plan| matches!(plan.target, Target::Redirect(_)));
            (Reverse(one.prefix.len()), Reverse(one.headers.len()), !redirects)
        };
        let fields = |one: &'_ Self| -> Vec<(String, Vec<u8>)> {
            one.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
        };
        rank(self).cmp(&rank(other)).then_with(|| fields(self).cmp(&fields(other)))
    }
}

impl Target {
    /// A redirect that would send a request to where it is leaves it to the next best route.
    fn takes(&self, asked: Asked<'_>) -> bool {
        match self {
            Self::Redirect(to) => to.leads_away(asked.host, asked.path, asked.secure),
            Self::Pool(_) | Self::Split(_) => true,
        }
    }
}
