//! Persistence, written as the file has it.

use crate::config::persistence::{
    Cookie, CookieMode, Issue, Learn, NewSessionHint, OnForged, OnServerDown, OnServerDrain, Persistence, RouteMark,
    SameSite, Secure, Source,
};
use crate::config::raw;
use crate::config::units::{Size, Span};

pub(super) fn persistence(one: &Persistence) -> raw::Persistence {
    raw::Persistence {
        sources: one.sources.iter().map(source).collect(),
        issue: match one.issue {
            Issue::Cookie => raw::Issue::Cookie,
            Issue::Query => raw::Issue::Query,
            Issue::Header => raw::Issue::Header,
            Issue::None => raw::Issue::None,
        },
        idle_timeout: Span(one.idle_timeout),
        absolute_timeout: Span(one.absolute_timeout),
        on_server_down: match one.on_server_down {
            OnServerDown::Reassign => raw::OnServerDown::Reassign,
            OnServerDown::Borrow => raw::OnServerDown::Borrow,
            OnServerDown::Refuse => raw::OnServerDown::Refuse,
        },
        hold: Span(one.hold),
        refuse_status: one.refuse_status,
        on_server_drain: match one.on_server_drain {
            OnServerDrain::Keep => raw::OnServerDrain::Keep,
            OnServerDrain::Reassign => raw::OnServerDrain::Reassign,
        },
        on_forged: match one.on_forged {
            OnForged::Ignore => raw::OnForged::Ignore,
            OnForged::Refuse => raw::OnForged::Refuse,
        },
        new_session_hint: match one.new_session_hint {
            NewSessionHint::None => raw::NewSessionHint::None,
            NewSessionHint::ClientIp => raw::NewSessionHint::ClientIp,
        },
        cookie: cookie(&one.cookie),
        handoff: raw::Handoff {
            enabled: one.handoff.enabled,
            header: one.handoff.header.clone(),
            max_size: Size(one.handoff.max_size as u64),
        },
    }
}

fn source(one: &Source) -> raw::Source {
    let mut source = raw::Source::default();
    match one {
        Source::Cookie => source.cookie = Some(raw::TokenCookie {}),
        Source::Query { name, rewrite_links } => {
            source.query = Some(raw::Query { name: name.clone(), rewrite_links: *rewrite_links });
        }
        Source::Header { name } => source.header = Some(raw::Header { name: name.clone() }),
        Source::Learn(Learn { cookie, header, query, ends_on }) => {
            source.learn = Some(raw::Learn {
                cookie: cookie.clone(),
                header: header.clone(),
                query: query.clone(),
                ends_on: ends_on.clone(),
            });
        }
        Source::Route(RouteMark { cookie, query, separator }) => {
            source.route =
                Some(raw::RouteMark { cookie: cookie.clone(), query: query.clone(), separator: separator.clone() });
        }
        Source::ClientIp { ipv4_prefix, ipv6_prefix } => {
            source.client_ip = Some(raw::ClientIp { ipv4_prefix: *ipv4_prefix, ipv6_prefix: *ipv6_prefix });
        }
    }
    source
}

fn cookie(one: &Cookie) -> raw::Cookie {
    raw::Cookie {
        name: one.name.clone(),
        mode: match one.mode {
            CookieMode::Insert => raw::CookieMode::Insert,
            CookieMode::Prefix => raw::CookieMode::Prefix,
            CookieMode::Rewrite => raw::CookieMode::Rewrite,
        },
        path: one.path.clone(),
        domain: one.domain.clone(),
        secure: match one.secure {
            Secure::Always => raw::Secure::Fixed(true),
            Secure::Never => raw::Secure::Fixed(false),
            Secure::Auto => raw::Secure::Auto,
        },
        http_only: one.http_only,
        same_site: match one.same_site {
            SameSite::Strict => raw::SameSite::Strict,
            SameSite::Lax => raw::SameSite::Lax,
            SameSite::None => raw::SameSite::None,
        },
        partitioned: one.partitioned,
        lifetime: if one.permanent { raw::Lifetime::Permanent } else { raw::Lifetime::Session },
        hide_from_server: one.hide_from_server,
        cache_control: one.cache_control.clone(),
    }
}
