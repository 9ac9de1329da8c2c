//! Persistence, written as the file has it.

use crate::config::persistence::{
    Cookie, CookieMode, Issue, Learn, NewSessionHint, OnForged, OnServerDown, OnServerDrain, Persistence, RouteMark,
    SameSite, Secure, Source,
};
use crate::config::shape;
use crate::config::units::{Size, Span};

pub(super) fn persistence(one: &Persistence) -> shape::Persistence {
    shape::Persistence {
        sources: one.sources.iter().map(source).collect(),
        issue: match one.issue {
            Issue::Cookie => shape::Issue::Cookie,
            Issue::Query => shape::Issue::Query,
            Issue::Header => shape::Issue::Header,
            Issue::None => shape::Issue::None,
        },
        idle_timeout: Span(one.idle_timeout),
        absolute_timeout: Span(one.absolute_timeout),
        on_server_down: match one.on_server_down {
            OnServerDown::Reassign => shape::OnServerDown::Reassign,
            OnServerDown::Borrow => shape::OnServerDown::Borrow,
            OnServerDown::Refuse => shape::OnServerDown::Refuse,
        },
        hold: Span(one.hold),
        refuse_status: one.refuse_status,
        on_server_drain: match one.on_server_drain {
            OnServerDrain::Keep => shape::OnServerDrain::Keep,
            OnServerDrain::Reassign => shape::OnServerDrain::Reassign,
        },
        on_forged: match one.on_forged {
            OnForged::Ignore => shape::OnForged::Ignore,
            OnForged::Refuse => shape::OnForged::Refuse,
        },
        new_session_hint: match one.new_session_hint {
            NewSessionHint::None => shape::NewSessionHint::None,
            NewSessionHint::ClientIp => shape::NewSessionHint::ClientIp,
        },
        cookie: cookie(&one.cookie),
        handoff: shape::Handoff {
            enabled: one.handoff.enabled,
            header: one.handoff.header.clone(),
            max_size: Size(one.handoff.max_size as u64),
        },
    }
}

fn source(one: &Source) -> shape::Source {
    let mut source = shape::Source::default();
    match one {
        Source::Cookie => source.cookie = Some(shape::TokenCookie {}),
        Source::Query { name, rewrite_links } => {
            source.query = Some(shape::Query { name: name.clone(), rewrite_links: *rewrite_links });
        }
        Source::Header { name } => source.header = Some(shape::Header { name: name.clone() }),
        Source::Learn(Learn { cookie, header, query, ends_on }) => {
            source.learn = Some(shape::Learn {
                cookie: cookie.clone(),
                header: header.clone(),
                query: query.clone(),
                ends_on: ends_on.clone(),
            });
        }
        Source::Route(RouteMark { cookie, query, separator }) => {
            source.route =
                Some(shape::RouteMark { cookie: cookie.clone(), query: query.clone(), separator: separator.clone() });
        }
        Source::ClientIp { ipv4_prefix, ipv6_prefix } => {
            source.client_ip = Some(shape::ClientIp { ipv4_prefix: *ipv4_prefix, ipv6_prefix: *ipv6_prefix });
        }
    }
    source
}

fn cookie(one: &Cookie) -> shape::Cookie {
    shape::Cookie {
        name: one.name.clone(),
        mode: match one.mode {
            CookieMode::Insert => shape::CookieMode::Insert,
            CookieMode::Prefix => shape::CookieMode::Prefix,
            CookieMode::Rewrite => shape::CookieMode::Rewrite,
        },
        path: one.path.clone(),
        domain: one.domain.clone(),
        secure: match one.secure {
            Secure::Always => shape::Secure::Fixed(true),
            Secure::Never => shape::Secure::Fixed(false),
            Secure::Auto => shape::Secure::Auto,
        },
        http_only: one.http_only,
        same_site: match one.same_site {
            SameSite::Strict => shape::SameSite::Strict,
            SameSite::Lax => shape::SameSite::Lax,
            SameSite::None => shape::SameSite::None,
        },
        partitioned: one.partitioned,
        lifetime: if one.permanent { shape::Lifetime::Permanent } else { shape::Lifetime::Session },
        hide_from_server: one.hide_from_server,
        cache_control: one.cache_control.clone(),
    }
}
