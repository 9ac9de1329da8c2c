//! What happens to a route's requests: exactly one of `pool`, `split` and `redirect`.

use std::collections::HashSet;

use crate::config::address;
use crate::config::check_context::{NodeRef, UniqueNames};
use crate::config::diagnostics::{Diagnostics, Location};
use crate::config::raw::{self, Redirect, Share};
use crate::config::routes::RouteTarget;
use crate::config::suggest;

/// `None` when there is none, or more than one.
pub(super) fn target(
    route: &raw::Route,
    at: NodeRef<'_>,
    pools: &PoolNames<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<RouteTarget> {
    const ONE: &str = "write one of them: pool (serves the requests), split (several pools by weight), redirect";
    match (&route.pool, &route.split, &route.redirect) {
        (Some(name), None, None) => {
            exists(name, at.key("pool").location, pools, diagnostics);
            Some(RouteTarget::Pool(name.clone()))
        }
        (None, Some(shares), None) => Some(RouteTarget::Split(split(shares, at, pools, diagnostics))),
        (None, None, Some(to)) => Some(RouteTarget::Redirect(redirect(to, at.key("redirect"), diagnostics))),
        (None, None, None) => {
            // What was wrong with a target was reported, and took it out of the file.
            if !at
                .location
                .is_some_and(|location| diagnostics.problems.iter().any(|known| is_inside(known.location, location)))
            {
                let message = format!("route {} leads nowhere", suggest::quoted(&route.name));
                diagnostics.problem(at.key("name").location, message, ONE);
            }
            None
        }
        _ => {
            let written = [
                ("pool", route.pool.is_some()),
                ("split", route.split.is_some()),
                ("redirect", route.redirect.is_some()),
            ];
            let written: Vec<&str> = written.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect();
            let message = format!(
                "route {} leads to more than one place: {}",
                suggest::quoted(&route.name),
                written.join(" and ")
            );
            diagnostics.problem(written.last().and_then(|key| at.key_location(key)), message, ONE);
            None
        }
    }
}

fn is_inside(inner: Option<Location>, outer: Location) -> bool {
    inner.is_some_and(|inner| {
        (outer.line, outer.column) <= (inner.line, inner.column)
            && (inner.line, inner.column) < (outer.end_line, outer.end_column)
    })
}

/// The names of all pools, which are looked up for each route.
pub(super) struct PoolNames<'p> {
    all: &'p [&'p str],
    set: HashSet<&'p str>,
}

impl<'p> PoolNames<'p> {
    pub(super) fn new(all: &'p [&'p str]) -> Self {
        Self { all, set: all.iter().copied().collect() }
    }
}

fn exists(pool: &str, location: Option<Location>, pools: &PoolNames<'_>, diagnostics: &mut Diagnostics) {
    // Without any pool that could be read, nothing is known of their names.
    if !pools.all.is_empty() && !pools.set.contains(pool) {
        let message = format!("pool {} does not exist", suggest::quoted(pool));
        diagnostics.problem(location, message, suggest::help(pool, pools.all, "pools"));
    }
}

fn split(shares: &[Share], at: NodeRef<'_>, pools: &PoolNames<'_>, diagnostics: &mut Diagnostics) -> Vec<Share> {
    let mut names = UniqueNames::default();
    for (index, share) in shares.iter().enumerate() {
        let location = at.key("split").item(index).key("pool").location;
        exists(&share.pool, location, pools, diagnostics);
        names.see(&share.pool, "share of pool", location, diagnostics);
    }
    if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
        let message = "every share of \"split\" has weight 0: no new session could begin";
        diagnostics.problem(at.key_location("split"), message, "give one of them a weight of 1 or more");
    }
    shares.to_vec()
}

fn redirect(to: &Redirect, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Redirect {
    if to.scheme.is_none() && to.host.is_none() && to.port.is_none() && to.path.is_none() {
        let message = "the redirect leads to where it came from";
        diagnostics.problem(at.location, message, "write at least one of: scheme, host, port, path");
    }
    let host = to.host.as_deref().map(|written| {
        address::route_host(written).unwrap_or_else(|help| {
            diagnostics.problem(at.key("host").location, format!("{} is not a host", suggest::quoted(written)), help);
            String::new()
        })
    });
    if let Some(path) = to.path.as_deref().filter(|path| !address::is_path(path)) {
        let message = format!("{} is not a path", suggest::quoted(path));
        let help = "write a path that begins with \"/\", without query, like /moved; the query of the request is kept";
        diagnostics.problem(at.key("path").location, message, help);
    }
    Redirect { host, ..to.clone() }
}
