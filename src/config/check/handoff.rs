//! Handoff: a header that nothing else reads or writes, and sessions that are one client's.

use std::collections::HashMap;

use crate::config::address;
use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::pools::Pool;
use crate::config::raw::{Issue, Persistence};
use crate::config::settings::Config;
use crate::config::suggest;
use crate::session::source::{RESERVED_HEADERS, SourceSettings};

/// The header that is made for it.
const OURS: &str = "homing-session-data";

/// Headers of answers that say something else to clients, and are not to be taken off (RFC 9110, RFC 9111).
const OF_ANSWERS: &[&str] = &[
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-security-policy",
    "date",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "pragma",
    "proxy-authenticate",
    "retry-after",
    "server",
    "strict-transport-security",
    "vary",
    "via",
    "www-authenticate",
];

pub(super) fn handoff(
    one: &Persistence,
    sources: &[SourceSettings],
    issue: Issue,
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) {
    let (one, cookie) = (&one.handoff, &one.cookie);
    let lower = one.header.to_lowercase();
    let location = at.key("header").location;
    let quoted = suggest::quoted(&one.header);
    let taken = |names: &[&str]| names.contains(&lower.as_str()) && lower != OURS;
    if !address::is_token(&one.header) || one.header.len() > 128 {
        let message = format!("{quoted} is no name for a header");
        diagnostics.problem(location, message, "use letters, digits and \"-\", like X-Session-State");
    } else if taken(RESERVED_HEADERS) || taken(OF_ANSWERS) {
        let message = format!("header {quoted} cannot carry session data: it has a meaning of its own");
        diagnostics.problem(location, message, "use a header of its own, like X-Session-State");
    } else if sources.iter().any(|source| source.carriers(cookie).header == Some(&lower)) {
        let message = format!("header {quoted} cannot carry session data: a source reads it");
        diagnostics.problem(location, message, "use a header of its own, like X-Session-State");
    }
    if one.enabled && issue == Issue::None && !sources.iter().any(SourceSettings::identifies_client) {
        diagnostics.problem(
            at.key("enabled").location,
            "an address is shared by many clients: data that one of them is given might be another's",
            "add a source that names one client, like \"- cookie: {}\", or remove handoff",
        );
    }
}

/// A route has the last word about a request's headers: it would replace the data.
pub(super) fn changed_by_routes(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let of_pool = |pool: &Pool| Some((pool.name.clone(), pool.persistence.as_ref()?.handoff.clone()));
    let handoffs: HashMap<_, _> = config.pools.iter().filter_map(of_pool).filter(|(_, one)| one.enabled).collect();
    for (index, route) in config.routes.iter().enumerate() {
        for handoff in route.pools().filter_map(|pool| handoffs.get(pool)) {
            let changes = &route.request_headers;
            let set = changes.set.iter().map(|(name, _)| name);
            if set.chain(&changes.remove).any(|name| name.as_str().eq_ignore_ascii_case(&handoff.header)) {
                let message = format!(
                    "header {} carries session data, and route {} would change it",
                    suggest::quoted(&handoff.header),
                    suggest::quoted(&route.name)
                );
                let location = at.key("routes").item(index).key("request_headers").location;
                diagnostics.problem(location, message, "remove it there, or give handoff a header of its own");
            }
        }
    }
}
