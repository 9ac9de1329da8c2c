//! What happens to a route's requests: exactly one of `pool`, `split` and `redirect`.

use super::super::At;
use super::super::Unique;
use super::is_path;
use crate::config::address;
use crate::config::problem::{Findings, Place};
use crate::config::routes::{Redirect, RouteTarget, Scheme, Share};
use crate::config::shape;
use crate::config::suggest;

/// `None` when there is none, or more than one.
pub(super) fn target(route: &shape::Route, at: At<'_>, pools: &[&str], findings: &mut Findings) -> Option<RouteTarget> {
    const ONE: &str = "write one of them: pool (serves the requests), split (several pools by weight), redirect";
    match (&route.pool, &route.split, &route.redirect) {
        (Some(name), None, None) => {
            exists(name, at.key("pool").place, pools, findings);
            Some(RouteTarget::Pool(name.clone()))
        }
        (None, Some(shares), None) => Some(RouteTarget::Split(split(shares, at, pools, findings))),
        (None, None, Some(to)) => Some(RouteTarget::Redirect(redirect(to, at.key("redirect"), findings))),
        (None, None, None) => {
            // What was wrong with a target was reported, and took it out of the file.
            if !at.place.is_some_and(|place| findings.problems.iter().any(|known| is_inside(known.place, place))) {
                let message = format!("route {} leads nowhere", suggest::quoted(&route.name));
                findings.problem(at.key("name").place, message, ONE);
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
            findings.problem(written.last().and_then(|key| at.name_of(key)), message, ONE);
            None
        }
    }
}

fn is_inside(inner: Option<Place>, outer: Place) -> bool {
    inner.is_some_and(|inner| {
        (outer.line, outer.column) <= (inner.line, inner.column)
            && (inner.line, inner.column) < (outer.end_line, outer.end_column)
    })
}

fn exists(pool: &str, place: Option<Place>, pools: &[&str], findings: &mut Findings) {
    if !pools.contains(&pool) {
        let message = format!("pool {} does not exist", suggest::quoted(pool));
        findings.problem(place, message, suggest::help(pool, pools, "pools"));
    }
}

fn split(shares: &[shape::Share], at: At<'_>, pools: &[&str], findings: &mut Findings) -> Vec<Share> {
    let mut names = Unique::default();
    for (index, share) in shares.iter().enumerate() {
        let place = at.key("split").item(index).key("pool").place;
        exists(&share.pool, place, pools, findings);
        names.see(&share.pool, "share of pool", place, findings);
    }
    if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
        let message = "every share of \"split\" has weight 0: no new session could begin";
        findings.problem(at.name_of("split"), message, "give one of them a weight of 1 or more");
    }
    shares.iter().map(|share| Share { pool: share.pool.clone(), weight: share.weight }).collect()
}

fn redirect(to: &shape::Redirect, at: At<'_>, findings: &mut Findings) -> Redirect {
    if to.scheme.is_none() && to.host.is_none() && to.port.is_none() && to.path.is_none() {
        let message = "the redirect leads to where it came from";
        findings.problem(at.place, message, "write at least one of: scheme, host, port, path");
    }
    let host = to.host.as_deref().map(|written| {
        address::route_host(written).unwrap_or_else(|help| {
            findings.problem(at.key("host").place, format!("{} is not a host", suggest::quoted(written)), help);
            String::new()
        })
    });
    if let Some(path) = to.path.as_deref().filter(|path| !is_path(path)) {
        let message = format!("{} is not a path", suggest::quoted(path));
        let help = "write a path that begins with \"/\", without query, like /moved; the query of the request is kept";
        findings.problem(at.key("path").place, message, help);
    }
    Redirect {
        scheme: to.scheme.map(|scheme| match scheme {
            shape::Scheme::Http => Scheme::Http,
            shape::Scheme::Https => Scheme::Https,
        }),
        host,
        port: to.port,
        path: to.path.clone(),
        status: to.status,
    }
}
