//! The server of a session, from two records that may disagree: the client's token and the table's record.
//!
//! The rules are pure and the same on every proxy, so proxies agree without communication:
//!
//! - The higher epoch wins, always. At equal epochs the token wins: every proxy sees it, so all proxies converge to it.
//! - A session began at the earlier of the two times, and was last seen at the later one.
//! - Clocks differ: times up to [`FUTURE_TOLERANCE`] ahead are accepted. A token with later ones is not honoured: it would
//!   outlive both timeouts. In a record of the table later ones count as now.

use std::time::Duration;

use strum::{IntoStaticStr, VariantNames};

use super::key::{ServerId, SessionId};
use super::token::{Token, UnixMillis};

/// The tolerated difference between the clocks of two proxies.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The record of a session, without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The server that the session is bound to.
    pub server: ServerId,
    /// How many times it has moved.
    pub epoch: u32,
    /// When it began.
    pub created: UnixMillis,
    /// When its client was last seen.
    pub last_seen: UnixMillis,
}

impl Binding {
    /// The binding of a new session.
    #[must_use]
    pub const fn new(server: ServerId, now: UnixMillis) -> Self {
        Self { server, epoch: 0, created: now, last_seen: now }
    }

    /// A token with this binding, issued now.
    #[must_use]
    pub const fn token(&self, session: SessionId, now: UnixMillis) -> Token {
        Token { session, server: self.server, epoch: self.epoch, created: self.created, issued: now }
    }
}

/// When sessions expire. Neither is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// This long after its last request.
    pub idle: Duration,
    /// This long after its start.
    pub absolute: Duration,
}

/// The result of looking up a request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Lookup {
    /// The request names none.
    None,
    /// The table knows it.
    Hit,
    /// The table did not know it and the token restored it.
    Restored,
    /// No record of the id in the request.
    Unknown,
    /// The idle timeout has passed.
    ExpiredIdle,
    /// The absolute timeout has passed.
    ExpiredAbsolute,
    /// The token does not open.
    Forged,
    /// It was ended.
    Ended,
    /// The session's server is not configured.
    UnknownServer,
    /// The shared store could not be queried.
    StoreError,
    /// The token opens, and belongs to another certificate or user than the client's (`bind_to`).
    OtherClient,
}

impl Lookup {
    /// The `result` of `homing_session_lookups_total`.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// The result of merging two records of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The session lives.
    Live {
        /// The merged binding, last seen now.
        binding: Binding,
        /// [`Lookup::Hit`] or [`Lookup::Restored`].
        lookup: Lookup,
        /// The table has no record or a different one and must store this one; otherwise a touch is enough.
        adopted: bool,
    },
    /// The session has expired, by [`Lookup::ExpiredIdle`] or [`Lookup::ExpiredAbsolute`]; its client is new.
    Expired(Lookup),
    /// The token is of a clock too far ahead: it opens, so it is not forged, but it names no session here
    /// ([`Lookup::Unknown`]); its client is new.
    FromTheFuture,
}

/// Merges a token with the table's record of its session.
#[must_use]
pub fn resolve(token: &Token, known: Option<&Binding>, limits: &Limits, now: UnixMillis) -> Resolution {
    if token.issued.max(token.created) > now.plus(FUTURE_TOLERANCE) {
        return Resolution::FromTheFuture;
    }
    let (mut created, mut last_seen) = (token.created, token.issued);
    if let Some(known) = known {
        created = created.min(credible(known.created, now));
        last_seen = last_seen.max(credible(known.last_seen, now));
    }
    if now.since(created) >= limits.absolute {
        return Resolution::Expired(Lookup::ExpiredAbsolute);
    }
    if now.since(last_seen) >= limits.idle {
        return Resolution::Expired(Lookup::ExpiredIdle);
    }
    let (server, epoch) = match known {
        Some(known) if known.epoch > token.epoch => (known.server, known.epoch),
        _ => (token.server, token.epoch),
    };
    let binding = Binding { server, epoch, created, last_seen: last_seen.max(now) };
    let same = |known: &Binding| (known.server, known.epoch, known.created) == (server, epoch, created);
    Resolution::Live {
        binding,
        lookup: if known.is_some() { Lookup::Hit } else { Lookup::Restored },
        adopted: !known.is_some_and(same),
    }
}

/// Why a client that has a token is given a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reissue {
    /// The token has another server or epoch.
    Moved,
    /// Another key seals tokens now.
    KeyRotated,
    /// A quarter of the idle timeout has passed.
    Refreshed,
}

impl Reissue {
    /// The `reason` of `homing_tokens_issued_total`; that of a first token is `new`.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// Whether the client must be given a new token. Most requests need none, and a `Set-Cookie` makes a response private and
/// costs bytes.
#[must_use]
pub fn must_reissue(
    token: &Token,
    binding: &Binding,
    sealed_by_first: bool,
    limits: &Limits,
    now: UnixMillis,
) -> Option<Reissue> {
    if (token.server, token.epoch) != (binding.server, binding.epoch) {
        return Some(Reissue::Moved);
    }
    if !sealed_by_first {
        return Some(Reissue::KeyRotated);
    }
    let stale = now.since(token.issued) >= limits.idle / 4;
    stale.then_some(Reissue::Refreshed)
}

/// The time, or now when it is later than any correct clock could have written.
fn credible(time: UnixMillis, now: UnixMillis) -> UnixMillis {
    if time > now.plus(FUTURE_TOLERANCE) { now } else { time }
}

#[cfg(test)]
mod tests;
