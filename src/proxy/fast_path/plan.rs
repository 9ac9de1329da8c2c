//! What the fast path serves, worked out when a configuration is built.
//!
//! The settings are taken apart without `..`: a new key does not compile until it is said here whether the fast path does what
//! the key asks for. What is not known to be served is not.

use std::collections::HashMap;

use http::{HeaderName, header};

use crate::config::{
    Config, Connection, Cookie, FastPath, Handoff, Listener, ListenerLimits, Persistence, Pool, RequestHeaders, Route,
    RouteTarget, SourceSettings, UpstreamProtocol,
};
use crate::session::source::client_ip::ClientIpSettings;
use crate::session::source::cookie::CookieSettings;
use crate::session::source::header::HeaderSettings;
use crate::session::source::jvm_route::JvmRouteSettings;
use crate::session::source::learn::LearnSettings;
use crate::session::source::query::QuerySettings;

/// Which listeners, routes and pools of a configuration the fast path serves, in the configuration's order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FastPathPlan {
    listeners: Vec<bool>,
    routes: Vec<bool>,
    pools: Vec<bool>,
}

impl FastPathPlan {
    /// Works it out.
    pub fn new(config: &Config) -> Self {
        if config.proxy.fast_path == FastPath::Off {
            return Self::default();
        }
        let pools: Vec<bool> = config.pools.iter().map(serves_pool).collect();
        let by_name: HashMap<&str, bool> = config.pool_names().into_iter().zip(pools.iter().copied()).collect();
        let serves = |name: &str| by_name.get(name).copied().unwrap_or_default();
        Self {
            listeners: config.listeners.iter().map(serves_listener).collect(),
            routes: config.routes.iter().map(|route| serves_route(route, serves)).collect(),
            pools,
        }
    }

    /// Whether it serves connections of this listener.
    pub(super) fn has_listener(&self, index: usize) -> bool {
        self.listeners.get(index).copied().unwrap_or_default()
    }

    /// Whether it serves requests of this route; without routes, of the only pool.
    pub(super) fn has_route(&self, index: Option<usize>) -> bool {
        match index {
            Some(index) => self.routes.get(index).copied().unwrap_or_default(),
            None => self.pools.first().copied().unwrap_or_default(),
        }
    }
}

fn serves_listener(listener: &Listener) -> bool {
    let Listener {
        address: _,
        http1,
        // A connection of HTTP/2 is told from others before the fast path sees it.
        http2: _,
        // Done before the fast path sees the connection; the client's certificate goes on by what both ways share.
        tls: _,
        proxy_protocol: _,
        // Decided by what both ways share.
        trusted_proxies: _,
        max_header_size: _,
        // Asked before the body is read.
        max_body_size: _,
        // Of heads and between requests they are the connection's; the fast path has that of writes.
        timeouts: _,
        on_client_half_close: _,
        limits,
    } = listener;
    *http1 && serves_limits(limits)
}

fn serves_limits(limits: &ListenerLimits) -> bool {
    let ListenerLimits {
        // Of connections: kept before the fast path sees one.
        connections: _,
        connections_per_client: _,
        // A request that is handed over would be counted twice.
        requests_per_second,
        new_sessions_per_second,
        // Checked by what both ways share.
        max_uri_length: _,
        max_headers: _,
        // Bodies that the fast path serves are there already.
        min_body_rate: _,
        tracked_clients: _,
    } = limits;
    requests_per_second.is_none() && new_sessions_per_second.is_none()
}

fn serves_route(route: &Route, serves: impl Fn(&str) -> bool) -> bool {
    let Route {
        name: _,
        // Matched by what both ways share.
        hosts: _,
        path_prefix: _,
        headers: _,
        target,
        request_headers: RequestHeaders { set, remove },
    } = route;
    let mut changed = set.iter().map(|(name, _)| name).chain(remove);
    // A pool that cannot serve leaves its requests to the others of a split, so it must serve all of them.
    let serves = match target {
        RouteTarget::Pool(_) | RouteTarget::Split(_) => route.pools().all(serves),
        RouteTarget::Redirect(_) => false,
    };
    serves && !changed.any(frames_message)
}

/// Fields by which Pingora's proxy frames a message, or that it completes.
fn frames_message(name: &HeaderName) -> bool {
    [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
        header::TE,
        header::TRAILER,
    ]
    .contains(name)
}

fn serves_pool(pool: &Pool) -> bool {
    let Pool {
        name: _,
        // Decided by what both ways share: which server, and whether it takes the request now.
        balance: _,
        hash_on: _,
        servers: _,
        discovery: _,
        health_check: _,
        circuit_breaker: _,
        limits: _,
        slow_start: _,
        drain_deadline: _,
        rebalance: _,
        // What follows a failed attempt takes the full path.
        retries: _,
        // Carried out on sockets that are listed, as those of the fast path are.
        streams_on_down: _,
        connection,
        tls,
        persistence,
    } = pool;
    let Connection {
        // As `tls`, with what its files held.
        tls: _,
        protocol,
        connect_timeout: _,
        read_timeout: _,
        write_timeout: _,
        idle_timeout: _,
        preserve_header_case: _,
    } = connection;
    let http1 = match (protocol, tls) {
        // Without TLS nothing is agreed on.
        (UpstreamProtocol::Http1, _) | (UpstreamProtocol::Auto, None) => true,
        // The server may choose HTTP/2.
        (UpstreamProtocol::Auto, Some(_)) | (UpstreamProtocol::H2, _) => false,
    };
    http1 && persistence.as_ref().is_none_or(serves_persistence)
}

fn serves_persistence(persistence: &Persistence) -> bool {
    let Persistence {
        sources,
        // Decided by what both ways share.
        issue: _,
        cookie,
        idle_timeout: _,
        absolute_timeout: _,
        on_server_down: _,
        hold: _,
        on_server_drain: _,
        refuse_status: _,
        on_forged: _,
        bind_to: _,
        guest_cookies: _,
        new_session_hint: _,
        handoff,
    } = persistence;
    let Cookie {
        name: _,
        // Edits to fields, as all others.
        mode: _,
        path: _,
        domain: _,
        secure: _,
        http_only: _,
        same_site: _,
        partitioned: _,
        lifetime: _,
        hide_from_server: _,
        cache_control: _,
    } = cookie;
    let Handoff { enabled, header: _, max_size: _ } = handoff;
    !enabled && sources.iter().all(serves_source)
}

fn serves_source(source: &SourceSettings) -> bool {
    match source {
        SourceSettings::Cookie(CookieSettings {})
        | SourceSettings::Header(HeaderSettings { name: _ })
        | SourceSettings::Route(JvmRouteSettings { cookie: _, query: _, separator: _ })
        | SourceSettings::Learn(LearnSettings { cookie: _, header: _, query: _, ends_on: _ })
        | SourceSettings::ClientIp(ClientIpSettings { ipv4_prefix: _, ipv6_prefix: _ }) => true,
        // Pages are rewritten while they pass.
        SourceSettings::Query(QuerySettings { name: _, rewrite_links }) => !rewrite_links,
        #[cfg(test)]
        SourceSettings::UserHeader(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;

    fn plan(proxy: &str, routes: &str, pool: &str) -> FastPathPlan {
        let text = format!(
            "version: 1\nproxy: {{ {proxy} }}\nlisteners: [{{ address: \"127.0.0.1:8080\" }}, {{ address: \"127.0.0.1:8081\", protocols: [h2c] }}]\n\
             routes: [{routes}]\npools:\n  web: {{ servers: [{{ name: a, address: \"10.0.0.1:80\" }}]{pool} }}\n  \
             api: {{ servers: [{{ name: a, address: \"10.0.0.1:80\" }}], persistence: null }}\n"
        );
        FastPathPlan::new(&Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|e| panic!("{e}")).config)
    }

    const ROUTES: &str = "{ name: w, pool: web }, { name: p, match: { path_prefix: /p }, pool: api }";

    #[test]
    fn pools_are_served_unless_they_need_what_only_the_full_path_does() {
        let served = |pool: &str| plan("", ROUTES, pool).has_route(Some(0));
        for pool in [
            "",
            ", persistence: {}",
            ", persistence: { sources: [{ learn: { cookie: SID } }, { client_ip: {} }, { cookie: {} }] }",
            ", connection: { protocol: auto, preserve_header_case: true }",
            ", connection: { tls: { verify: false } }",
            ", persistence: { cookie: { name: SID, mode: rewrite } }",
            ", persistence: { cookie: { name: SID, mode: prefix } }",
            ", persistence: { sources: [{ header: { name: X-Session } }] }",
            ", persistence: { sources: [{ query: { name: sid } }, { cookie: {} }] }",
            ", persistence: { sources: [{ route: { cookie: SID, query: sid } }] }",
            ", limits: { max_requests_per_server: 5 }, circuit_breaker: {}, drain_deadline: 5m, rebalance: {}",
        ] {
            assert!(served(pool), "{pool}");
        }
        for pool in [
            ", persistence: { handoff: { enabled: true } }",
            ", persistence: { sources: [{ query: { name: sid, rewrite_links: true } }, { cookie: {} }] }",
            ", connection: { protocol: h2 }",
            ", connection: { tls: { verify: false }, protocol: auto }",
        ] {
            assert!(!served(pool), "{pool}");
        }
    }

    #[test]
    fn a_split_is_served_when_all_of_its_pools_are() {
        let routes = "{ name: s, split: [{ pool: web, weight: 1 }, { pool: api, weight: 1 }] }";
        assert!(plan("", routes, ", persistence: {}").has_route(Some(0)));
        assert!(!plan("", routes, ", persistence: { handoff: { enabled: true } }").has_route(Some(0)));
    }

    #[test]
    fn listeners_of_http1_are_served_and_nothing_is_with_the_key_off() {
        let auto = plan("", ROUTES, "");
        assert!(auto.has_listener(0) && !auto.has_listener(1) && !auto.has_listener(2));
        let off = plan("fast_path: off", ROUTES, "");
        assert!(!off.has_listener(0) && !off.has_route(Some(0)));
    }
}
