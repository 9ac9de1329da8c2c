//! Sources: where sessions are named, and what their clients are given.

use crate::config::address;
use crate::config::check_context::{NodeRef, UniqueNames};
use crate::config::cookie::CookieMode;
use crate::config::diagnostics::Diagnostics;
use crate::config::raw::{self, Issue, Persistence};
use crate::config::suggest;
use crate::session::source::SourceSettings;

pub(super) fn sources(one: &Persistence, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Vec<SourceSettings> {
    let mut checked: Vec<SourceSettings> = Vec::new();
    for (index, source) in one.sources.iter().enumerate() {
        let at = at.item(index);
        let source = source.check(at, diagnostics);
        let twice = if source.is_repeatable() {
            checked.contains(&source)
        } else {
            checked.iter().any(|before| before.key() == source.key())
        };
        if twice {
            let message = format!("source {} is listed twice", source.key());
            diagnostics.problem(at.location, message, "remove one of them");
            continue;
        }
        own_id_beside_token(one, &source, at.key(source.key()), diagnostics);
        checked.push(source);
    }
    checked
}

/// One cookie, header or parameter is not both the token's and the application's: the token is taken off before the
/// application sees it. A route id may be in the cookie of mode prefix, since the application's value is.
fn own_id_beside_token(one: &Persistence, source: &SourceSettings, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if source.reads_token() {
        return;
    }
    let own = source.carriers(&one.cookie);
    let tokens = || one.sources.iter().filter(|one| one.reads_token()).map(|source| source.carriers(&one.cookie));
    let is_route = matches!(source, SourceSettings::Route(_));
    let may_share = is_route && one.cookie.mode == CookieMode::Prefix;
    if let Some(name) = own.cookie.filter(|name| !may_share && tokens().any(|token| token.cookie == Some(*name))) {
        let message = format!("cookie {} cannot carry the token and the application's own id", suggest::quoted(name));
        let help = if is_route {
            "give the token another cookie.name, or write cookie.mode: prefix"
        } else {
            "give the token another cookie.name, or write cookie.mode: prefix and remove this source"
        };
        diagnostics.problem(at.key("cookie").location, message, help);
    }
    let same_header = |name: &&str| tokens().filter_map(|token| token.header).any(|one| one.eq_ignore_ascii_case(name));
    if let Some(name) = own.header.filter(same_header) {
        let message = format!("header {} cannot carry the token and the application's own id", suggest::quoted(name));
        diagnostics.problem(at.key("header").location, message, "give the source header another name");
    }
    if let Some(name) = own.query.filter(|name| tokens().any(|token| token.query == Some(*name))) {
        let message =
            format!("parameter {} cannot carry the token and the application's own id", suggest::quoted(name));
        diagnostics.problem(at.key("query").location, message, "give the source query another name");
    }
}

/// What clients without a session are given. What is not written is a cookie, where one is read.
pub(super) fn issue(
    one: &Persistence,
    sources: &[SourceSettings],
    at: NodeRef<'_>,
    diagnostics: &mut Diagnostics,
) -> Issue {
    let cookie = sources.iter().any(|source| matches!(source, SourceSettings::Cookie(_)));
    let location = at.key("issue").location;
    let (issue, read, source) = match one.issue {
        Issue::Cookie if !at.key("issue").is_written() && !cookie => return Issue::None,
        Issue::None => return Issue::None,
        Issue::Cookie => (Issue::Cookie, cookie, "cookie: {}"),
        Issue::Query => {
            let query = sources.iter().find_map(|source| match source {
                SourceSettings::Query(query) => Some(query.rewrite_links),
                _ => None,
            });
            if query == Some(false) {
                let help = "write rewrite_links: true at the source query";
                diagnostics.problem(
                    location,
                    "issue: query puts no token anywhere, since links are not rewritten",
                    help,
                );
            }
            (Issue::Query, query.is_some(), "query: { rewrite_links: true }")
        }
        Issue::Header => {
            let header = sources.iter().any(|source| matches!(source, SourceSettings::Header(_)));
            (Issue::Header, header, "header: { name: X-Session }")
        }
    };
    if !read && !sources.is_empty() {
        let word = source.split(':').next().unwrap_or_default();
        let message = format!("issue: {word} gives a token that no source reads");
        diagnostics.problem(location, message, format!("add \"- {source}\" to sources, or write issue: none"));
    }
    issue
}

/// With the source `route`: route ids are valid and unique.
pub(super) fn route_ids(servers: &[raw::Server], at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let mut route_ids = UniqueNames::default();
    for (index, server) in servers.iter().enumerate() {
        let at = at.item(index);
        match &server.route {
            None if at.key("name").is_stand_in() => {}
            None => route_ids.see(&server.name, "route", at.key("name").location, diagnostics),
            Some(id) if id.is_empty() || !address::is_header_text(id) || id.contains([';', ',', ' ']) => {
                let message = format!("{} is no route", suggest::quoted(id));
                diagnostics.problem(
                    at.key("route").location,
                    message,
                    "write the route id in the application's ids, like app1",
                );
            }
            Some(id) => route_ids.see(id, "route", at.key("route").location, diagnostics),
        }
    }
}
