//! What a source reads from a request.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::message::RequestView;
use crate::session::client_identity::ClientIdentity;
use crate::session::key::{ServerId, SessionKey};
use crate::session::token::codec::{OpenOutcome, PoolCodec};
use crate::session::token::{Token, TokenError, TokenText};
use crate::session::{cookie, url_params};

/// Upper limit of tokens or ids that are tried for one request: each costs a decryption or a hash, and a client may send
/// hundreds. A value that does not have the length of a token costs neither and does not count.
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
    pub(super) fn cookies(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        cookie::read::values(self.request.fields.all(&http::header::COOKIE), name.as_bytes())
    }

    /// The values of the query and path parameters of this name.
    pub(super) fn parameters(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        url_params::values(self.request.path(), self.request.query(), name).map(str::as_bytes)
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
    /// A token of another client, where sessions belong to one.
    OtherClient,
    /// No token opens; the error of the first one for this pool.
    Forged(TokenError),
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

    /// The same claim under the client's identity: a token of another client is none, and ids are looked up among those of this
    /// client.
    #[must_use]
    pub fn bound_to(self, identity: &ClientIdentity) -> Self {
        let bound = |id: ExternalId| ExternalId {
            key: identity.key(id.key),
            former: id.former.into_iter().map(|key| identity.key(key)).collect(),
        };
        match self {
            Self::Token { token, .. } if !identity.owns(token.session) => Self::OtherClient,
            Self::Ids(ids) => Self::Ids(ids.into_iter().map(bound).collect()),
            Self::Routed { key, server } => Self::Routed { key: identity.key(key), server },
            Self::Unrouted(key) => Self::Unrouted(identity.key(key)),
            Self::Address(id) => Self::Address(bound(id)),
            same => same,
        }
    }

    /// The first of several tokens that opens; at most [`MAX_TRIED`] are tried.
    pub fn first_that_opens<'a>(texts: impl Iterator<Item = &'a [u8]>, codec: &PoolCodec) -> Self {
        let mut claim = Self::Nothing;
        let mut tried = 0;
        for text in texts {
            if text.len() == TokenText::LEN {
                if tried == MAX_TRIED {
                    break;
                }
                tried += 1;
            }
            claim = match (codec.reopen(text), claim) {
                (OpenOutcome::Valid { token, sealed_by_first, .. }, _) => {
                    return Self::Token { token, sealed_by_first };
                }
                (OpenOutcome::Forged(error), Self::Nothing | Self::OtherPool) => Self::Forged(error),
                (OpenOutcome::OtherPool, Self::Nothing) => Self::OtherPool,
                (_, before) => before,
            };
        }
        claim
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::{HeaderMap, Method, Version};

    use super::*;
    use crate::message::Fields;
    use crate::session::token::keyring::Keyring;

    /// Opens no token.
    pub(in crate::session::source) fn codec() -> PoolCodec {
        PoolCodec::new(&Keyring::random([1; 32]).unwrap(), "shop")
    }

    /// A GET request with these headers, from a client without an address.
    pub(in crate::session::source) fn input<'a>(
        headers: &'a HeaderMap,
        path: &'a str,
        query: Option<&'a str>,
    ) -> SourceInput<'a> {
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        // A view borrows its target; a test may keep it to the end.
        let target: &'static [u8] = target.leak().as_bytes();
        let request = RequestView::http1(&Method::GET, target, Version::HTTP_11, Fields::Map(headers));
        SourceInput { request, client: None }
    }
}
