//! Sources: where sessions are named, and what their clients are given.

use super::At;
use super::Unique;
use crate::config::address;
use crate::config::diagnostics::Diagnostics;
use crate::config::persistence::{Issue, Learn, RouteMark, Source};
use crate::config::raw;
use crate::config::suggest;

/// Headers that say something else, whatever they are sent for.
pub(super) const TAKEN: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "homing-session-data",
    "homing-session-moved",
    "keep-alive",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

pub(super) fn sources(one: &raw::Persistence, at: At<'_>, diagnostics: &mut Diagnostics) -> Vec<Source> {
    let mut checked: Vec<Source> = Vec::new();
    for (index, source) in one.sources.iter().enumerate() {
        let at = at.item(index);
        let Some((key, source)) = source_of(source, at, diagnostics) else { continue };
        let twice = match &source {
            Source::Learn(_) => checked.contains(&source),
            _ => checked.iter().any(|before| key_of(before) == key),
        };
        if twice {
            diagnostics.problem(at.location, format!("source {key} is listed twice"), "remove one of them");
            continue;
        }
        own_id_beside_token(one, &source, at, diagnostics);
        checked.push(source);
    }
    checked
}

/// One cookie, header or parameter is not both the token's and the application's: the token is taken off before the
/// application sees it. A mark stands in the cookie of mode prefix all the same, since the application's value does.
fn own_id_beside_token(one: &raw::Persistence, source: &Source, at: At<'_>, diagnostics: &mut Diagnostics) {
    let (key, cookie, header, query) = match source {
        Source::Learn(learn) => ("learn", &learn.cookie, &learn.header, &learn.query),
        Source::Route(mark) => ("route", &mark.cookie, &None, &mark.query),
        _ => return,
    };
    let at = at.key(key);
    let marked = key == "route" && one.cookie.mode == raw::CookieMode::Prefix;
    let cookie = cookie.as_ref().filter(|name| **name == one.cookie.name && !marked);
    if let Some(name) = cookie.filter(|_| one.sources.iter().any(|source| source.cookie.is_some())) {
        let message = format!("cookie {} cannot carry the token and the application's own id", suggest::quoted(name));
        let help = match key {
            "route" => "give the token another cookie.name, or write cookie.mode: prefix",
            _ => "give the token another cookie.name, or write cookie.mode: prefix and remove this source",
        };
        diagnostics.problem(at.key("cookie").location, message, help);
    }
    let mut headers = one.sources.iter().filter_map(|source| source.header.as_ref());
    if let Some(name) = header.as_ref().filter(|name| headers.any(|token| token.name.eq_ignore_ascii_case(name))) {
        let message = format!("header {} cannot carry the token and the application's own id", suggest::quoted(name));
        diagnostics.problem(at.key("header").location, message, "give the source header another name");
    }
    let mut queries = one.sources.iter().filter_map(|source| source.query.as_ref());
    if let Some(name) = query.as_ref().filter(|name| queries.any(|token| token.name == **name)) {
        let message =
            format!("parameter {} cannot carry the token and the application's own id", suggest::quoted(name));
        diagnostics.problem(at.key("query").location, message, "give the source query another name");
    }
}

fn source_of(source: &raw::Source, at: At<'_>, diagnostics: &mut Diagnostics) -> Option<(&'static str, Source)> {
    let source = if source.cookie.is_some() {
        Source::Cookie
    } else if let Some(query) = &source.query {
        parameter(&query.name, at.key("query").key("name"), diagnostics);
        Source::Query { name: query.name.clone(), rewrite_links: query.rewrite_links }
    } else if let Some(header) = &source.header {
        Source::Header { name: self::header(&header.name, at.key("header").key("name"), diagnostics) }
    } else if let Some(learn) = &source.learn {
        Source::Learn(self::learn(learn, at.key("learn"), diagnostics))
    } else if let Some(route) = &source.route {
        Source::Route(mark(route, at.key("route"), diagnostics))
    } else if let Some(client_ip) = &source.client_ip {
        Source::ClientIp { ipv4_prefix: client_ip.ipv4_prefix, ipv6_prefix: client_ip.ipv6_prefix }
    } else {
        diagnostics.problem(at.location, "this source names nothing", "write \"- cookie: {}\"");
        return None;
    };
    Some((key_of(&source), source))
}

const fn key_of(source: &Source) -> &'static str {
    match source {
        Source::Cookie => "cookie",
        Source::Query { .. } => "query",
        Source::Header { .. } => "header",
        Source::Learn(_) => "learn",
        Source::Route(_) => "route",
        Source::ClientIp { .. } => "client_ip",
    }
}

fn learn(learn: &raw::Learn, at: At<'_>, diagnostics: &mut Diagnostics) -> Learn {
    if learn.cookie.is_none() && learn.header.is_none() {
        diagnostics.problem(
            at.location,
            "nothing can be learned here: the application's id comes in a cookie or in a header",
            "add cookie: NAME or header: NAME, as the application sends it; query only says where else to look",
        );
    }
    if let Some(cookie) = &learn.cookie {
        self::cookie(cookie, at.key("cookie"), diagnostics);
    }
    if let Some(query) = &learn.query {
        parameter(query, at.key("query"), diagnostics);
    }
    for (index, method) in learn.ends_on.iter().enumerate() {
        if !address::is_token(method) || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let message = format!("{} is not a request method", suggest::quoted(method));
            diagnostics.problem(at.key("ends_on").item(index).location, message, "write it in capitals, like DELETE");
        }
    }
    Learn {
        cookie: learn.cookie.clone(),
        header: learn.header.as_ref().map(|header| self::header(header, at.key("header"), diagnostics)),
        query: learn.query.clone(),
        ends_on: learn.ends_on.clone(),
    }
}

fn mark(route: &raw::RouteMark, at: At<'_>, diagnostics: &mut Diagnostics) -> RouteMark {
    if route.cookie.is_none() && route.query.is_none() {
        diagnostics.problem(
            at.location,
            "this source does not say where the application's id stands",
            "add cookie: NAME or query: NAME",
        );
    }
    if let Some(cookie) = &route.cookie {
        self::cookie(cookie, at.key("cookie"), diagnostics);
    }
    if let Some(query) = &route.query {
        parameter(query, at.key("query"), diagnostics);
    }
    if !address::is_header_text(&route.separator) {
        let message = format!("{} is no separator", suggest::quoted(&route.separator));
        diagnostics.problem(at.key("separator").location, message, "write visible characters, like \".\" or \"!\"");
    }
    RouteMark { cookie: route.cookie.clone(), query: route.query.clone(), separator: route.separator.clone() }
}

fn cookie(name: &str, at: At<'_>, diagnostics: &mut Diagnostics) {
    if !address::is_token(name) || name.len() > 128 {
        let message = format!("{} is no name for a cookie", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits and !#$%&'*+-.^_`|~, at most 128");
    }
}

fn parameter(name: &str, at: At<'_>, diagnostics: &mut Diagnostics) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
        let message = format!("{} is no name for a query parameter", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits, \"-\", \".\", \"_\" and \"~\", at most 128");
    }
}

/// In lower case.
fn header(name: &str, at: At<'_>, diagnostics: &mut Diagnostics) -> String {
    let lower = name.to_lowercase();
    if !address::is_token(name) || name.len() > 128 {
        let message = format!("{} is no name for a header", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use letters, digits and \"-\", like X-Session");
    } else if TAKEN.contains(&lower.as_str()) {
        let message = format!("header {} cannot name a session: it has a meaning of its own", suggest::quoted(name));
        diagnostics.problem(at.location, message, "use a header of its own, like X-Session");
    }
    lower
}

/// What clients without a session are given. What is not written is a cookie, where one is read.
pub(super) fn issue(one: &raw::Persistence, sources: &[Source], at: At<'_>, diagnostics: &mut Diagnostics) -> Issue {
    let cookie = sources.contains(&Source::Cookie);
    let location = at.key("issue").location;
    let (issue, read, source) = match one.issue {
        raw::Issue::Cookie if !at.key("issue").is_written() && !cookie => return Issue::None,
        raw::Issue::None => return Issue::None,
        raw::Issue::Cookie => (Issue::Cookie, cookie, "cookie: {}"),
        raw::Issue::Query => {
            let query = sources.iter().find_map(|source| match source {
                Source::Query { rewrite_links, .. } => Some(*rewrite_links),
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
        raw::Issue::Header => {
            let header = sources.iter().any(|source| matches!(source, Source::Header { .. }));
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

/// With the source `route`: marks tell servers apart.
pub(super) fn marks(servers: &[raw::Server], at: At<'_>, diagnostics: &mut Diagnostics) {
    let mut marks = Unique::default();
    for (index, server) in servers.iter().enumerate() {
        let at = at.item(index);
        match &server.route {
            None => marks.see(&server.name, "route", at.key("name").location, diagnostics),
            Some(mark) if mark.is_empty() || !address::is_header_text(mark) || mark.contains([';', ',', ' ']) => {
                let message = format!("{} is no route", suggest::quoted(mark));
                diagnostics.problem(
                    at.key("route").location,
                    message,
                    "write the mark in the application's ids, like app1",
                );
            }
            Some(mark) => marks.see(mark, "route", at.key("route").location, diagnostics),
        }
    }
}
