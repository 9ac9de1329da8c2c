//! Where a session belongs, told from two records that may disagree: the client's token and our table's.
//!
//! Pure rules, the same on every proxy, so that proxies which never talk agree all the same:
//!
//! - The higher epoch wins, always. At the same epoch the token wins: it is what the client shows to every proxy, so
//!   all come round to it.
//! - A session is as old as the older record says, and was last seen when the later one says.
//! - Clocks differ: times up to [`FUTURE_TOLERANCE`] ahead are taken as they are, later ones count as now.

use std::time::Duration;

use super::key::{ServerId, SessionId};
use super::token::{Token, UnixMillis};

/// How far the clocks of two proxies may be apart.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What is known of a session besides its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The server that the session belongs to.
    pub server: ServerId,
    /// How many times it has moved.
    pub epoch: u32,
    /// When it began.
    pub created: UnixMillis,
    /// When its client was last seen.
    pub last_seen: UnixMillis,
}

impl Binding {
    /// A new session's.
    #[must_use]
    pub const fn new(server: ServerId, now: UnixMillis) -> Self {
        Self { server, epoch: 0, created: now, last_seen: now }
    }

    /// The token that says so, issued now.
    #[must_use]
    pub const fn token(&self, session: SessionId, now: UnixMillis) -> Token {
        Token { session, server: self.server, epoch: self.epoch, created: self.created, issued: now }
    }
}

/// When sessions end. Neither is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// After its client has stayed away this long.
    pub idle: Duration,
    /// This long after its start.
    pub absolute: Duration,
}

/// What came of looking for a request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// The request names none.
    None,
    /// The table knows it.
    Hit,
    /// The table did not know it, the token did.
    Restored,
    /// Nobody knows what the request names.
    Unknown,
    /// Its client stayed away too long.
    ExpiredIdle,
    /// It lasted as long as a session may.
    ExpiredAbsolute,
    /// Its token does not open.
    Forged,
    /// It was ended.
    Ended,
    /// Its server is not configured.
    UnknownServer,
    /// The store could not be asked.
    StoreError,
}

impl Lookup {
    /// The `result` of `homing_session_lookups_total`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hit => "hit",
            Self::Restored => "restored",
            Self::Unknown => "unknown",
            Self::ExpiredIdle => "expired_idle",
            Self::ExpiredAbsolute => "expired_absolute",
            Self::Forged => "forged",
            Self::Ended => "ended",
            Self::UnknownServer => "unknown_server",
            Self::StoreError => "store_error",
        }
    }
}

/// What two records of a session say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The session lives.
    Live {
        /// Where it belongs; seen now.
        binding: Binding,
        /// [`Lookup::Hit`] or [`Lookup::Restored`].
        lookup: Lookup,
        /// The table has no record, or one that is not this: it must take this one. Else it need only be touched.
        adopted: bool,
    },
    /// The session is over: [`Lookup::ExpiredIdle`] or [`Lookup::ExpiredAbsolute`]. Its client is new.
    Expired(Lookup),
}

/// Decides between a token and what the table knows of its session.
#[must_use]
pub fn resolve(token: &Token, known: Option<&Binding>, limits: &Limits, now: UnixMillis) -> Resolution {
    let (mut created, mut last_seen) = (credible(token.created, now), credible(token.issued, now));
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

/// Why a client that has a token is given another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reissue {
    /// Its token says another server or epoch.
    Moved,
    /// Another key seals now.
    KeyRotated,
    /// A quarter of the idle time has gone, or its token is from a future that cannot be.
    Refreshed,
}

impl Reissue {
    /// The `reason` of `homing_tokens_issued_total`; a first token's is `new`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::KeyRotated => "key_rotated",
            Self::Refreshed => "refreshed",
        }
    }
}

/// Whether the client must be given a new token. Most requests must not: a `Set-Cookie` makes an answer private and
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
    let incredible = token.issued.max(token.created) > now.plus(FUTURE_TOLERANCE);
    let stale = now.since(token.issued) >= limits.idle / 4;
    (incredible || stale).then_some(Reissue::Refreshed)
}

/// A time as it is, unless no proxy's clock can have been right to write it.
fn credible(time: UnixMillis, now: UnixMillis) -> UnixMillis {
    if time > now.plus(FUTURE_TOLERANCE) { now } else { time }
}

#[cfg(test)]
mod tests;
