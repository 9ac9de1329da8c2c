//! Where a request may name its session: one file per source.
//!
//! A source is one file and one variant of [`Source`]. Those that carry a sealed token find its candidates and leave
//! the rest to [`Presented::first_that_opens`].

use http::HeaderMap;

use super::token::codec::{Opened, PoolCodec};
use super::token::{Flaw, Token};
use crate::config;

pub mod cookie;

/// At most this many tokens of one request are tried: each costs a decryption, and a client may send hundreds.
pub const MAX_TRIED: usize = 4;

/// A place where a request may name its session.
#[derive(Debug, Clone)]
pub enum Source {
    /// The sealed token in the pool's cookie.
    Cookie(cookie::CookieSource),
}

impl Source {
    /// As configured.
    #[must_use]
    pub fn new(source: config::Source, persistence: &config::Persistence) -> Self {
        match source {
            config::Source::Cookie => Self::Cookie(cookie::CookieSource::new(&persistence.cookie.name)),
        }
    }

    /// The `source` of metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
        }
    }

    /// Whom the request names here.
    #[must_use]
    pub fn presented(&self, headers: &HeaderMap, codec: &PoolCodec) -> Presented {
        match self {
            Self::Cookie(source) => source.presented(headers, codec),
        }
    }
}

/// Whom a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Presented {
    /// Of several tokens the first that opens; at most [`MAX_TRIED`] are tried.
    pub fn first_that_opens<'a>(texts: impl Iterator<Item = &'a [u8]>, codec: &PoolCodec) -> Self {
        let mut presented = Self::Nobody;
        for text in texts.take(MAX_TRIED) {
            presented = match (codec.open(text), presented) {
                (Opened::Valid { token, sealed_by_first, .. }, _) => return Self::Token { token, sealed_by_first },
                (Opened::Forged(flaw), Self::Nobody | Self::OtherPool) => Self::Forged(flaw),
                (Opened::OtherPool, Self::Nobody) => Self::OtherPool,
                (_, before) => before,
            };
        }
        presented
    }
}
