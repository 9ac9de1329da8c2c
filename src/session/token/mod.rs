//! What a client carries: a record of its session, sealed so that only proxies with our keys can read or make it.
//!
//! [`keyring`] holds the keys, [`codec`] seals and opens for one pool, [`cache`] remembers what was opened lately,
//! [`explain`](mod@explain) says what a token means whatever its pool. Sealed is not encrypted *and* signed but both at
//! once: XChaCha20-Poly1305, whose 192-bit nonce may be drawn at random for ever without counting.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::key::{ServerId, SessionId};

mod cache;
pub mod codec;
pub mod explain;
pub mod keyring;
mod layout;
mod xchacha;

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub session: SessionId,
    /// The server that the session belongs to.
    pub server: ServerId,
    /// How many times the session has moved. Between two records of one session the higher epoch wins, always.
    pub epoch: u32,
    /// When the session began.
    pub created: UnixMillis,
    /// When this token was made; not before `created`.
    pub issued: UnixMillis,
}

/// A moment of wall-clock time, in milliseconds since 1970 UTC: means the same on every proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The moment that many seconds after 1970.
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
    pub const LEN: usize = layout::TEXT_LEN;

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

/// Whether a text has the shape of a token, be it one or not.
#[must_use]
pub fn looks_like_one(text: &[u8]) -> bool {
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
pub enum Flaw {
    /// Not as long as a token.
    Length,
    /// Not base64url, or not in the one way that we write it.
    Encoding,
    /// Of a version that we do not know.
    Version,
    /// Sealed by a key that we do not have.
    UnknownKey,
    /// The seal is broken: changed on the way, or never ours.
    Seal,
}

impl Flaw {
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

impl fmt::Display for Flaw {
    /// A clause for people: "it …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "does not have the length of a token",
            Self::Encoding => "is not base64url as tokens are written",
            Self::Version => "is of a version that this program does not know",
            Self::UnknownKey => "was sealed by a key that is not configured",
            Self::Seal => "was changed on the way, or sealed by another key of the same id",
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
