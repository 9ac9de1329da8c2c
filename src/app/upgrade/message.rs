//! What the two processes say to each other: JSON, so that the next version can add fields.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::app::state_file::Entry;
use crate::session::key::SessionKey;

/// The version of the protocol. Another one is refused, and the old process serves on.
pub(super) const PROTOCOL: u32 = 1;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The first, from the old process. Its descriptors follow.
    Hello(Hello),
    /// The new process can serve.
    Ready {
        pid: u32,
        /// The version of its program.
        version: String,
    },
    /// The new process ends.
    Failure(String),
    /// The new process may accept connections.
    Go,
    /// The new process accepts connections.
    Serving,
    /// The old process accepts no more.
    Done,
    /// Asks for [`Pong`](Self::Pong) when all changes before it are applied.
    Ping,
    /// All changes before the first unanswered [`Ping`](Self::Ping) are applied.
    Pong,
    /// A session is new, or bound to another server.
    Session(SessionChange),
    /// A session is no longer known.
    Removal(Key),
    /// What a session's server handed over.
    Data(DataChange),
}

/// What the new process gets besides listeners and sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    /// The version of the program.
    pub(super) version: String,
    pub(super) pid: u32,
    /// The listeners' addresses, in the order of their descriptors: of TCP, or the path of a unix socket.
    pub(super) listeners: Vec<String>,
    /// Seals tokens when the configuration has no keys.
    pub(super) generated_secret: Bytes,
    /// How long the table has been filled, in milliseconds.
    pub(super) table_age: u64,
    /// The table was complete when that began.
    pub(super) table_restored: bool,
    /// What operators set for servers.
    pub(super) overrides: Vec<Entry>,
}

/// A session as the table has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionChange {
    pub(super) key: Key,
    pub(super) pool: String,
    /// Empty: it has ended.
    pub(super) server: String,
    pub(super) epoch: u32,
    /// Unix milliseconds, as `seen`.
    pub(super) created: u64,
    pub(super) seen: u64,
}

/// A session's handoff data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DataChange {
    pub(super) key: Key,
    pub(super) pool: String,
    pub(super) epoch: u32,
    pub(super) created: u64,
    pub(super) seen: u64,
    pub(super) data: Option<Bytes>,
    pub(super) moved_header: Option<Bytes>,
}

/// A session's key, in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Key(pub(super) SessionKey);

impl TryFrom<String> for Key {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(|key| Self(SessionKey(key)))
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        format!("{:032x}", key.0.0)
    }
}

/// Bytes, in base64. Not shown: they are a secret or a login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl TryFrom<String> for Bytes {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD_NO_PAD.decode(text).map(Self)
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        STANDARD_NO_PAD.encode(bytes.0)
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
