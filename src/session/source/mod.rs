//! Where a request may name its session: one file for each kind of source.
//!
//! A source is asked what a request presents, and answers with a [`Presented`]: a sealed token, a name that others gave,
//! or nobody. Whether that names a session that lives is for the store and [`binding`](super::binding) to say.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::key::{ServerId, SessionKey};
use super::token::codec::{Opened, PoolCodec};
use super::token::keyring::Keyring;
use super::token::{Flaw, Token};
use crate::config;
use crate::message::RequestView;

pub mod client_ip;
pub mod cookie;
pub mod header;
pub mod learn;
pub mod query;
pub mod route;

/// At most this many tokens or ids of one request are tried: each costs a decryption or a hash, and a client may send
/// hundreds.
pub const MAX_TRIED: usize = 4;

/// What sources read.
#[derive(Debug, Clone, Copy)]
pub struct SourceInput<'a> {
    /// The request.
    pub request: RequestView<'a>,
    /// The client's address, as trusted proxies report it.
    pub client: Option<IpAddr>,
}

impl<'a> SourceInput<'a> {
    /// The values of the cookies of this name.
    fn cookies(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        super::cookie::read::values(self.request.fields.all(&http::header::COOKIE), name.as_bytes())
    }

    /// The values of the query and path parameters of this name.
    fn parameters(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        super::url_params::values(self.request.path, self.request.query, name).map(str::as_bytes)
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
    pub fn presented(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> Presented {
        match self {
            Self::Cookie(source) => source.presented(input, codec),
            Self::Query(source) => source.presented(input, codec),
            Self::Header(source) => source.presented(input, codec),
            Self::Learn(source) => source.presented(input),
            Self::Route(source) => source.presented(input),
            Self::ClientIp(source) => source.presented(input),
        }
    }
}

/// Whom a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No session.
    Nothing,
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
    Ids(SmallVec<[ExternalId; 1]>),
    /// The session of an id that contains a server's route id.
    Routed {
        /// The key of the id.
        key: SessionKey,
        /// The server of that route id.
        server: ServerId,
    },
    /// An id without the route id of any server.
    Unrouted(SessionKey),
    /// The session of the client's network.
    Address(ExternalId),
}

/// The keys of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalId {
    /// Its key.
    pub key: SessionKey,
    /// The keys that it had before the keyring was rotated.
    pub former: SmallVec<[SessionKey; 1]>,
}

impl Presented {
    /// Whether it may be a session that lives.
    #[must_use]
    pub const fn names_session(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::Ids(_) | Self::Routed { .. } | Self::Address(_))
    }

    /// Of several tokens the first that opens; at most [`MAX_TRIED`] are tried.
    pub fn first_that_opens<'a>(texts: impl Iterator<Item = &'a [u8]>, codec: &PoolCodec) -> Self {
        let mut presented = Self::Nothing;
        for text in texts.take(MAX_TRIED) {
            presented = match (codec.reopen(text), presented) {
                (Opened::Valid { token, sealed_by_first, .. }, _) => return Self::Token { token, sealed_by_first },
                (Opened::Forged(flaw), Self::Nothing | Self::OtherPool) => Self::Forged(flaw),
                (Opened::OtherPool, Self::Nothing) => Self::OtherPool,
                (_, before) => before,
            };
        }
        presented
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Version};

    use super::*;
    use crate::message::Fields;

    /// A GET request with these headers, from a client without an address.
    pub(super) fn input<'a>(headers: &'a HeaderMap, path: &'a str, query: Option<&'a str>) -> SourceInput<'a> {
        let request = RequestView {
            method: &Method::GET,
            target: path.as_bytes(),
            path,
            query,
            authority: None,
            version: Version::HTTP_11,
            fields: Fields::Map(headers),
        };
        SourceInput { request, client: None }
    }
}
