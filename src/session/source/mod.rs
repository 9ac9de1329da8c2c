//! Where a request may name its session: one file for each kind of source.
//!
//! A source is asked what a request presents, and answers with a [`Presented`]: a sealed token, a name that others gave,
//! or nobody. Whether that names a session that lives is for the store and [`binding`](super::binding) to say.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::key::{ServerId, SessionKey};
use super::token::codec::{Opened, PoolCodec};
use super::token::keyring::Keyring;
use super::token::{Flaw, Token};
use crate::config;

pub mod client_ip;
pub mod cookie;
pub mod crowd;
pub mod header;
pub mod learn;
pub mod query;
pub mod route;

/// At most this many tokens or ids of one request are tried: each costs a decryption or a hash, and a client may send
/// hundreds.
pub const MAX_TRIED: usize = 4;

/// What of a request may name its session.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its path, as it came.
    pub path: &'a str,
    /// Its query, as it came.
    pub query: Option<&'a str>,
    /// Its client, behind trusted proxies.
    pub client: Option<IpAddr>,
}

impl<'a> Asked<'a> {
    /// The values of the cookies of this name.
    fn cookies(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = self.headers.get_all(http::header::COOKIE).into_iter().map(HeaderValue::as_bytes);
        super::cookie::read::values(fields, name.as_bytes())
    }

    /// The values of the query and path parameters of this name.
    fn parameters(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        super::url_params::values(self.path, self.query, name).map(str::as_bytes)
    }
}

/// A place where a request may name its session.
#[derive(Debug)]
pub enum Source {
    /// The sealed token in the pool's cookie.
    Cookie(cookie::CookieSource),
    /// The sealed token in the URL.
    Query(query::QuerySource),
    /// The sealed token in a header.
    Header(header::HeaderSource),
    /// The application's own id.
    Learn(Box<learn::LearnSource>),
    /// The server's mark in the application's own id.
    Route(route::RouteSource),
    /// The client's address.
    ClientIp(client_ip::ClientIpSource),
}

impl Source {
    /// As a pool has it.
    #[must_use]
    pub fn new(source: &config::Source, pool: &config::Pool, cookie: &config::Cookie, keys: &Keyring) -> Self {
        match source {
            config::Source::Cookie(_) => Self::Cookie(cookie::CookieSource::new(&cookie.name, cookie.mode)),
            config::Source::Query(query) => Self::Query(query::QuerySource::new(&query.name, query.rewrite_links)),
            config::Source::Header(header) => Self::Header(header::HeaderSource::new(&header.name)),
            config::Source::Learn(learn) => Self::Learn(Box::new(learn::LearnSource::new(learn, &pool.name, keys))),
            config::Source::Route(mark) => Self::Route(route::RouteSource::new(mark, pool, keys)),
            config::Source::ClientIp(networks) => {
                let prefixes = (networks.ipv4_prefix, networks.ipv6_prefix);
                Self::ClientIp(client_ip::ClientIpSource::new(prefixes, &pool.name, keys))
            }
        }
    }

    /// The `source` of metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
            Self::Query(_) => "query",
            Self::Header(_) => "header",
            Self::Learn(_) => "learn",
            Self::Route(_) => "route",
            Self::ClientIp(_) => "client_ip",
        }
    }

    /// The query and path parameter that names sessions here: a secret, not for logs.
    #[must_use]
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Query(source) => Some(&*source.name),
            Self::Learn(source) => source.parameter(),
            Self::Route(source) => source.parameter(),
            Self::Cookie(_) | Self::Header(_) | Self::ClientIp(_) => None,
        }
    }

    /// Whom the request names here.
    #[must_use]
    pub fn presented(&self, asked: &Asked<'_>, codec: &PoolCodec) -> Presented {
        match self {
            Self::Cookie(source) => source.presented(asked, codec),
            Self::Query(source) => source.presented(asked, codec),
            Self::Header(source) => source.presented(asked, codec),
            Self::Learn(source) => source.presented(asked),
            Self::Route(source) => source.presented(asked),
            Self::ClientIp(source) => source.presented(asked),
        }
    }
}

/// Whom a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// Nobody.
    Nobody,
    /// The session of a token that opens.
    Token {
        /// What the token says.
        token: Token,
        /// Whether the key that would seal it today has sealed it.
        sealed_by_first: bool,
    },
    /// A session of another pool: for this one the client is new.
    OtherPool,
    /// No token opens, and this is what is wrong with the first that claims to be ours.
    Forged(Flaw),
    /// The session that one of these ids names, if the store knows one.
    Ids(SmallVec<[Id; 1]>),
    /// The session whose id says its server itself.
    Mark {
        /// Of the id.
        key: SessionKey,
        /// Whose mark it bears.
        server: ServerId,
    },
    /// An id that should bear the mark of a server and bears none.
    Unmarked(SessionKey),
    /// Whoever comes from this address.
    Address(Id),
}

/// The keys of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// Its key.
    pub key: SessionKey,
    /// The keys that it had before the keyring was rotated.
    pub former: SmallVec<[SessionKey; 1]>,
}

impl Presented {
    /// Whether it may be a session that lives.
    #[must_use]
    pub const fn names_somebody(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::Ids(_) | Self::Mark { .. } | Self::Address(_))
    }

    /// Of several tokens the first that opens; at most [`MAX_TRIED`] are tried.
    pub fn first_that_opens<'a>(texts: impl Iterator<Item = &'a [u8]>, codec: &PoolCodec) -> Self {
        let mut presented = Self::Nobody;
        for text in texts.take(MAX_TRIED) {
            presented = match (codec.reopen(text), presented) {
                (Opened::Valid { token, sealed_by_first, .. }, _) => return Self::Token { token, sealed_by_first },
                (Opened::Forged(flaw), Self::Nobody | Self::OtherPool) => Self::Forged(flaw),
                (Opened::OtherPool, Self::Nobody) => Self::OtherPool,
                (_, before) => before,
            };
        }
        presented
    }
}
