//! The token that a client carries: a sealed record of its session that only proxies with the keys can read or write.
//!
//! [`keyring`] holds the keys, [`codec`] seals and opens the tokens of one pool, [`cache`] keeps recently opened tokens,
//! [`explain`](mod@explain) describes a token of any pool, [`ticket`] seals the tickets of TLS sessions. Sealing is authenticated encryption by XChaCha20-Poly1305, whose
//! 192-bit nonces may be random without a counter.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::key::{ServerId, SessionId};

mod cache;
pub mod codec;
pub mod explain;
pub mod keyring;
mod layout;
pub mod ticket;
pub mod vault;
mod xchacha;

/// The content of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The id of the session.
    pub session: SessionId,
    /// The server that the session is bound to.
    pub server: ServerId,
    /// How many times the session has moved. Between two records of one session the higher epoch wins, always.
    pub epoch: u32,
    /// When the session began.
    pub created: UnixMillis,
    /// When this token was made; not before `created`.
    pub issued: UnixMillis,
}

/// Wall-clock time in milliseconds since 1970 UTC: comparable between proxies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The time this many seconds after 1970.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long ago `earlier` was; zero when it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This much later, or the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This much earlier, or 1970.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<SystemTime> for UnixMillis {
    /// A clock set before 1970 counts as 1970.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis))
    }
}

impl fmt::Debug for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// A sealed token as the client carries it: base64url without padding, always [`TokenText::LEN`] characters.
///
/// A bearer secret, so `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenText([u8; TokenText::LEN]);

impl TokenText {
    /// Characters in a token of this version.
    pub const LEN: usize = 115;

    /// As ASCII bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; TokenText::LEN] {
        &self.0
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The base64url alphabet is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Whether a text has the shape of a token, valid or not.
#[must_use]
pub fn has_token_shape(text: &[u8]) -> bool {
    // The first byte is the version, so the first character is always this.
    text.len() == TokenText::LEN
        && text.first() == Some(&b'A')
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(hidden)")
    }
}

/// Why a token does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not as long as a token.
    Length,
    /// Not base64url in its one canonical form.
    Encoding,
    /// Of an unknown version.
    Version,
    /// Sealed by a key that is not configured.
    UnknownKey,
    /// The seal does not verify: changed in transit, or sealed elsewhere.
    Seal,
}

impl TokenError {
    /// A word for logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Encoding => "encoding",
            Self::Version => "version",
            Self::UnknownKey => "unknown_key",
            Self::Seal => "seal",
        }
    }
}

impl fmt::Display for TokenError {
    /// A clause that continues "the token …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "does not have the length of a token",
            Self::Encoding => "is not canonical base64url",
            Self::Version => "has a version that this program does not know",
            Self::UnknownKey => "was sealed by a key that is not configured",
            Self::Seal => "was changed in transit, or sealed by another key with the same id",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stop_at_both_ends() {
        let (start, end) = (UnixMillis(0), UnixMillis(u64::MAX));
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(start.minus(Duration::MAX), start);
        assert_eq!(start.since(end), Duration::ZERO);
        assert_eq!(UnixMillis::from_secs(u64::MAX), end);
        assert_eq!(UnixMillis::from(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), start);
    }

    #[test]
    fn system_time_keeps_its_milliseconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_234_567);
        assert_eq!(UnixMillis::from(time), UnixMillis(1_234));
        assert_eq!(format!("{:?}", UnixMillis(1_234)), "1.234s");
        assert_eq!(UnixMillis(1_999).as_secs(), 1);
    }
}
