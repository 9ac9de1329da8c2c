//! Persistence: sources, times and the cookie, whose attributes browsers hold to rules of their own.

use std::time::Duration;

use crate::config::address;
use crate::config::bind_to::BindTo;
use crate::config::check_context::NodeRef;
use crate::config::cookie::{Cookie, CookieMode, Lifetime, SameSite, Secure};
use crate::config::diagnostics::Diagnostics;
use crate::config::process::Listener;
use crate::config::raw::{Issue, Persistence};
use crate::config::routes::{HostPattern, Route};
use crate::config::settings::Config;
use crate::config::suggest;
use crate::config::units::duration_text;
use crate::session::source::SourceSettings;

/// Browsers keep no cookie longer (RFC 6265bis).
const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 3600);

pub(super) fn persistence(one: &Persistence, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Persistence {
    let sources = super::sources::sources(one, at.key("sources"), diagnostics);
    let issue = super::sources::issue(one, &sources, at, diagnostics);
    let idle_timeout = times(one, at, diagnostics);
    mode(one, issue, at, diagnostics);
    bind_to(one, at, diagnostics);
    super::handoff::handoff(one, &sources, issue, at.key("handoff"), diagnostics);
    let cookie = cookie(&one.cookie, at.key("cookie"), diagnostics);
    Persistence { sources, issue, idle_timeout, cookie, ..one.clone() }
}

/// In the modes prefix and rewrite the token travels in a cookie that the application sets, or not at all.
fn mode(one: &Persistence, issue: Issue, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if one.cookie.mode == CookieMode::Insert {
        return;
    }
    let word: &str = one.cookie.mode.into();
    let location = at.key("cookie").key("mode").location;
    if issue != Issue::Cookie {
        let message = format!("cookie.mode: {word} means nothing where no cookie is given");
        diagnostics.problem(location, message, "write issue: cookie and the source cookie, or remove the mode");
    } else if !at.key("cookie").key("name").is_written() {
        let message = format!("cookie.mode: {word} needs the name of the application's cookie");
        diagnostics.problem(location, message, "write cookie.name, like JSESSIONID");
    }
}

fn bind_to(one: &Persistence, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let Some(text) = &one.bind_to else { return };
    let location = at.key("bind_to").location;
    match BindTo::parse(text) {
        None => {
            let message = format!("\"bind_to\" cannot be {}", suggest::quoted(text));
            diagnostics.problem(location, message, suggest::help(text, &BindTo::FORMS, "it can be"));
        }
        Some(bind_to) if bind_to.is_reserved() => {
            let message = format!("\"bind_to\" cannot be {}: it has a meaning of its own", suggest::quoted(text));
            diagnostics.problem(
                location,
                message,
                "name the header in which a proxy in front says the user, like X-Remote-User",
            );
        }
        Some(_) => {}
    }
    if one.sources.iter().any(|source| matches!(source, SourceSettings::Route(_))) {
        let message = "bind_to cannot hold with the source route: the application's id names its server itself";
        diagnostics.problem(location, message, "remove bind_to, or use the source cookie or learn in place of route");
    }
}

/// Clients present certificates only where they are asked for them.
pub(super) fn certificates_for_sessions(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let asks = |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if config.listeners.iter().any(asks) {
        return;
    }
    for pool in &config.pools {
        let bind_to = pool.persistence.as_ref().and_then(|persistence| persistence.bind_to.as_deref());
        if bind_to.and_then(BindTo::parse) == Some(BindTo::ClientCertificate) {
            let location = at.key(&pool.name).key("persistence").key("bind_to").location;
            let message = "no listener asks clients for a certificate, so there is none that a session could belong to";
            diagnostics.problem(location, message, "give a listener tls with client_ca, or remove bind_to");
        }
    }
}

/// Returns the idle timeout: its default yields to the `absolute_timeout` that is written.
fn times(one: &Persistence, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Duration {
    let written = at.key("idle_timeout");
    if written.is_written() && one.idle_timeout > one.absolute_timeout {
        let (idle, absolute) = (duration_text(one.idle_timeout), duration_text(one.absolute_timeout));
        let message = format!("idle_timeout ({idle}) is longer than absolute_timeout ({absolute})");
        diagnostics.problem(
            written.location,
            message,
            format!("write an idle_timeout of at most {absolute}, or a longer absolute_timeout"),
        );
    }
    if one.cookie.lifetime == Lifetime::Permanent && one.absolute_timeout > LONGEST_COOKIE {
        let message = "browsers keep no cookie longer than 400 days";
        diagnostics.problem(
            at.key("absolute_timeout").location,
            message,
            "write an absolute_timeout of at most 400d, or lifetime: session",
        );
    }
    one.idle_timeout.min(one.absolute_timeout)
}

fn cookie(cookie: &Cookie, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> Cookie {
    grammar(cookie, at, diagnostics);
    let forced = secure_rules(cookie, at, diagnostics);
    Cookie {
        domain: cookie.domain.as_ref().map(|domain| domain.trim_start_matches('.').to_lowercase()),
        secure: if forced && cookie.secure == Secure::Auto { Secure::Always } else { cookie.secure },
        ..cookie.clone()
    }
}

fn grammar(cookie: &Cookie, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if !address::is_token(&cookie.name) || cookie.name.len() > 128 {
        let message = format!("{} is no name for a cookie", suggest::quoted(&cookie.name));
        diagnostics.problem(at.key("name").location, message, "use letters, digits and !#$%&'*+-.^_`|~, at most 128");
    }
    let path = cookie.path.as_str();
    if !path.starts_with('/') || !address::is_header_text(path) || path.contains([';', ',']) || path.len() > 512 {
        let message = format!("{} is not the path of a cookie", suggest::quoted(path));
        diagnostics.problem(
            at.key("path").location,
            message,
            "write a path that begins with \"/\", without \";\" and \",\"",
        );
    }
    if let Some(domain) = &cookie.domain {
        let name = domain.strip_prefix('.').unwrap_or(domain);
        if !address::is_host_name(name)
            || name.ends_with('.')
            || !name.contains('.')
            || name.parse::<std::net::Ipv4Addr>().is_ok()
        {
            let message = format!("{} is not the domain of a cookie", suggest::quoted(domain));
            diagnostics.problem(
                at.key("domain").location,
                message,
                "write a domain like example.org, or null for the host of the request",
            );
        }
    }
    if let Some(value) = &cookie.cache_control
        && !address::is_header_text(value)
    {
        let message = format!("{} is not a value of Cache-Control", suggest::quoted(value));
        diagnostics.problem(at.key("cache_control").location, message, "write private, no-store or the like, or null");
    }
}

/// Browsers drop a cookie that breaks these rules, and with it the session. Returns whether the cookie must be
/// `Secure`.
fn secure_rules(cookie: &Cookie, at: NodeRef<'_>, diagnostics: &mut Diagnostics) -> bool {
    let lower = cookie.name.to_lowercase();
    let host_prefix = lower.starts_with("__host-");
    let secure_prefix = lower.starts_with("__secure-");
    if host_prefix && (cookie.domain.is_some() || cookie.path != "/") {
        let key = if cookie.domain.is_some() { "domain" } else { "path" };
        let message = format!(
            "a cookie named {} has no domain and the path \"/\", or browsers drop it",
            suggest::quoted(&cookie.name)
        );
        diagnostics.problem(at.key(key).location, message, format!("remove {key}, or the prefix \"__Host-\""));
    }
    let reasons = [
        (host_prefix, "the name begins with \"__Host-\""),
        (secure_prefix, "the name begins with \"__Secure-\""),
        (cookie.same_site == SameSite::None, "same_site is none"),
        (cookie.partitioned, "it is partitioned"),
    ];
    let reason = reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason);
    if let (Some(reason), Secure::Never) = (reason, cookie.secure) {
        let message = format!("the cookie must be Secure, because {reason}; browsers drop it otherwise");
        diagnostics.problem(at.key("secure").location, message, "write secure: true, or remove the line");
    }
    reason.is_some()
}

/// A cookie that browsers never send with a request to its pool: every request would be a new client.
pub(super) fn unreachable_cookies(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let by_pool = config.routes_by_pool();
    for pool in &config.pools {
        let Some(persistence) = pool.persistence.as_ref().filter(|one| one.issue == Issue::Cookie) else { continue };
        let cookie = &persistence.cookie;
        let routes = by_pool.get(&*pool.name).map(Vec::as_slice).unwrap_or_default();
        if routes.is_empty() || routes.iter().any(|route| may_meet(cookie, route)) {
            continue;
        }
        let at = at.key(&pool.name).key("persistence").key("cookie");
        let (written, key) = match &cookie.domain {
            Some(domain) => (format!("domain {domain}, path {}", cookie.path), "domain"),
            None => (format!("path {}", cookie.path), "path"),
        };
        let message = format!(
            "no route leads requests with the cookie of pool {} to it ({written}): browsers never send it there",
            suggest::quoted(&pool.name)
        );
        diagnostics.warn(
            at.key(key).location,
            message,
            "write a path and a domain that one of the pool's routes serves",
        );
    }
}

/// Whether a request of this route can carry the cookie (RFC 6265, sections 5.1.3 and 5.1.4).
fn may_meet(cookie: &Cookie, route: &Route) -> bool {
    let below = |path: &str, prefix: &str| {
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let path_fits = below(&cookie.path, &route.path_prefix) || below(&route.path_prefix, &cookie.path);
    let domain_fits = cookie.domain.as_ref().is_none_or(|domain| {
        let domain = [HostPattern::Exact(domain.clone()), HostPattern::Below(domain.clone())];
        route.hosts.is_empty() || route.hosts.iter().any(|host| domain.iter().any(|domain| domain.overlaps(host)))
    });
    path_fits && domain_fits
}

/// Nothing here speaks TLS: without a proxy before us that does, browsers drop a `Secure` cookie.
pub(super) fn secure_on_plain_listeners(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    if config.sees_tls() {
        return;
    }
    for pool in &config.pools {
        if pool.persistence.as_ref().is_some_and(|persistence| persistence.cookie.secure == Secure::Always) {
            let message = format!(
                "the cookie of pool {} is Secure, but no listener speaks TLS: browsers keep it for localhost only",
                suggest::quoted(&pool.name)
            );
            let help = "give a listener tls, or end TLS at a proxy before this one and name it in trusted_proxies";
            diagnostics.warn(at.key(&pool.name).key("persistence").key("cookie").key("secure").location, message, help);
        }
    }
}
