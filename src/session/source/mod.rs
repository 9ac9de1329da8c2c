//! Sources: the parts of a request that can name a session, one file for each kind.
//!
//! A source reads a [`SessionClaim`] from the request: a sealed token, an external id, or nothing. Whether the claim names a
//! live session is decided by the store and [`binding`](super::binding).

use std::net::IpAddr;

use smallvec::SmallVec;

use super::key::{ServerId, SessionKey};
use super::token::codec::{OpenOutcome, PoolCodec};
use super::token::keyring::Keyring;
use super::token::{Flaw, Token};
use crate::config;
use crate::message::RequestView;

pub mod client_ip;
pub mod cookie;
pub mod header;
pub mod learn;
pub mod query;
pub mod jvm_route;

/// Upper limit of tokens or ids that are tried for one request: each costs a decryption or a hash, and a client may send
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

/// A part of a request that can name its session.
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
    /// The server's route id in the application's own id.
    Route(jvm_route::JvmRouteSource),
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
            config::Source::Route(route) => Self::Route(jvm_route::JvmRouteSource::new(route, pool, keys)),
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

    /// What the request names here.
    #[must_use]
    pub fn claim(&self, input: &SourceInput<'_>, codec: &PoolCodec) -> SessionClaim {
        match self {
            Self::Cookie(source) => source.claim(input, codec),
            Self::Query(source) => source.claim(input, codec),
            Self::Header(source) => source.claim(input, codec),
            Self::Learn(source) => source.claim(input),
            Self::Route(source) => source.claim(input),
            Self::ClientIp(source) => source.claim(input),
        }
    }
}

/// A request's claim to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionClaim {
    /// No session.
    Nothing,
    /// The session of a token that opens.
    Token {
        /// The content of the token.
        token: Token,
        /// Whether the first key of the keyring sealed it.
        sealed_by_first: bool,
    },
    /// A token of another pool: in this pool the client is new.
    OtherPool,
    /// No token opens; the flaw of the first one for this pool.
    Forged(Flaw),
    /// The session of one of these ids, if the store knows one.
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

/// The keys of one external id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalId {
    /// Its key.
    pub key: SessionKey,
    /// The keys that it had before the keyring was rotated.
    pub former: SmallVec<[SessionKey; 1]>,
}

impl SessionClaim {
    /// Whether it may name a live session.
    #[must_use]
    pub const fn names_session(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::Ids(_) | Self::Routed { .. } | Self::Address(_))
    }

    /// The first of several tokens that opens; at most [`MAX_TRIED`] are tried.
    pub fn first_that_opens<'a>(texts: impl Iterator<Item = &'a [u8]>, codec: &PoolCodec) -> Self {
        let mut claim = Self::Nothing;
        for text in texts.take(MAX_TRIED) {
            claim = match (codec.reopen(text), claim) {
                (OpenOutcome::Valid { token, sealed_by_first, .. }, _) => {
                    return Self::Token { token, sealed_by_first };
                }
                (OpenOutcome::Forged(flaw), Self::Nothing | Self::OtherPool) => Self::Forged(flaw),
                (OpenOutcome::OtherPool, Self::Nothing) => Self::OtherPool,
                (_, before) => before,
            };
        }
        claim
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
