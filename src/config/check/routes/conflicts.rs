//! Two routes for the same requests: which of them gets one must never depend on their order in the file.

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};

use crate::config::diagnostics::{Diagnostics, Location};
use crate::config::raw::Redirect;
use crate::config::routes::{HostPattern, Route, RouteTarget};
use crate::config::suggest;

/// Routes seen so far, by host (`None` = any) and path prefix.
#[derive(Default)]
pub(super) struct RouteIndex(HashMap<(Option<HostPattern>, String), Vec<EarlierRoute>>);

struct EarlierRoute {
    name: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    target: RouteTarget,
}

impl RouteIndex {
    /// Adds a route, and reports one that takes requests of an earlier one and is neither less nor more specific.
    pub(super) fn insert(&mut self, route: &Route, location: Option<Location>, diagnostics: &mut Diagnostics) {
        let any = [None];
        let hosts = route.hosts.iter().cloned().map(Some);
        let hosts: Vec<Option<HostPattern>> = if route.hosts.is_empty() { any.into() } else { hosts.collect() };
        let mut reported = false;
        for host in hosts {
            let earlier = self.0.entry((host.clone(), route.path_prefix.clone())).or_default();
            let rival = earlier.iter().find(|earlier| {
                share_requests(&earlier.headers, &route.headers)
                    && !steps_aside(&earlier.target, &route.target, host.as_ref(), &route.path_prefix)
                    && !steps_aside(&route.target, &earlier.target, host.as_ref(), &route.path_prefix)
            });
            if let Some(rival) = rival.filter(|_| !reported) {
                report(route, rival, host.as_ref(), location, diagnostics);
                reported = true;
            }
            earlier.push(EarlierRoute {
                name: route.name.clone(),
                headers: route.headers.clone(),
                target: route.target.clone(),
            });
        }
    }
}

fn report(
    route: &Route,
    rival: &EarlierRoute,
    host: Option<&HostPattern>,
    location: Option<Location>,
    diagnostics: &mut Diagnostics,
) {
    let host = host.map_or_else(|| "any host".to_owned(), ToString::to_string);
    let (these, help) = if route.headers == rival.headers {
        ("the same requests as", "remove one of them, or give it another host, path_prefix or headers")
    } else {
        ("some requests of", "ask for another value of the same header, or give one of them a header more")
    };
    let message = format!(
        "route {} takes {these} route {}: {host}, {}",
        suggest::quoted(&route.name),
        suggest::quoted(&rival.name),
        route.path_prefix
    );
    diagnostics.problem(location, message, help);
}

/// One request can have the headers of both, and neither asks for more headers than the other. (A request may repeat a
/// header with both values; then the order of the alphabet decides, see `routing`.)
fn share_requests(one: &[(HeaderName, HeaderValue)], other: &[(HeaderName, HeaderValue)]) -> bool {
    let disjoint = one.iter().any(|(name, value)| other.iter().any(|(n, v)| n == name && v != value));
    one.len() == other.len() && !disjoint
}

/// A redirect that leaves some of its requests to what is no redirect: those that it would send to where they are.
fn steps_aside(redirect: &RouteTarget, other: &RouteTarget, host: Option<&HostPattern>, prefix: &str) -> bool {
    match (redirect, other) {
        (RouteTarget::Redirect(_), RouteTarget::Redirect(_)) => false,
        (RouteTarget::Redirect(to), _) => leads_into(to, host, prefix),
        _ => false,
    }
}

/// The redirect leads to URLs that its own route takes.
fn leads_into(to: &Redirect, host: Option<&HostPattern>, prefix: &str) -> bool {
    let host_fits = match (&to.host, host) {
        (Some(to), Some(host)) => host.overlaps(&HostPattern::Exact(to.clone())),
        _ => true,
    };
    let path_fits = to.path.as_deref().is_none_or(|path| {
        let rest = if prefix == "/" { Some(path) } else { path.strip_prefix(prefix) };
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    host_fits && path_fits
}
