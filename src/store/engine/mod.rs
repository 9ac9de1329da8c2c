//! The contract of a shared store: it holds small values under names; the first writer wins, and from then on the higher
//! epoch.
//!
//! An engine knows nothing of sessions. It keeps [`Value`]s, whose epoch it can read, under [`Name`]s, and every write is
//! a merge: done twice, or late, or by two proxies at once, the result is the same. So a write that failed
//! during an outage is simply repeated after it. The meaning of values is in [`record`]; when a request waits for an engine is
//! decided in `shared`.
//!
//! Every operation is one round trip where the engine allows it, and none waits for a connection: an engine that has none
//! says [`StoreError::Unreachable`] at once and looks for one by itself. A caller may drop any of these futures (it has a
//! deadline); what was sent may be done all the same.

pub mod record;
pub(crate) mod settings;
pub mod value;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::value::{Kind, Name, Value};

/// A store in another process.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What it can do, as far as is known so far.
    fn capabilities(&self) -> Capabilities;

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The values of these names, in order. Extends no time to live.
    ///
    /// # Errors
    /// When one of them could not be read; then none is returned.
    async fn lookup(&self, names: &[Name]) -> Result<Vec<Option<Value>>, StoreError>;

    /// Stores the value for `ttl` if the name has none: the first writer wins.
    ///
    /// # Errors
    /// When the store did not answer. Then the value may have been stored.
    async fn bind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError>;

    /// Stores the value for `ttl` unless the name has one with a higher epoch or, for [`Kind::Binding`], with the same epoch
    /// and another text: a compare-and-set by epoch. A stored binding is announced to the other proxies where the engine
    /// can, in the same step.
    ///
    /// # Errors
    /// When the store did not answer. Then the value may have been stored.
    async fn rebind(&self, name: &Name, value: &Value, ttl: Duration) -> Result<WriteResult, StoreError>;

    /// Extends the time to live of each name that has a value to at least this long from now. Never shortens one.
    ///
    /// # Errors
    /// When some of them could not be.
    async fn touch(&self, touches: &[(Name, Duration)]) -> Result<(), StoreError>;

    /// Removes the values of these names, whatever they are. For session data; the end of a session is a value too, written by
    /// [`rebind`](Self::rebind).
    ///
    /// # Errors
    /// When some of them could not be.
    async fn forget(&self, names: &[Name]) -> Result<(), StoreError>;

    /// About `limit` of the values whose names begin with `prefix`, from the cursor of the previous page. No order; what
    /// is written meanwhile may be missed or returned twice.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] where [`Capabilities::list`] is false, or when the store did not answer.
    async fn list(&self, prefix: &Name, cursor: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// The partition of a name, where a command reads names of one partition only: then reads that can wait are gathered, so that a
    /// command has several names. `None` = a command reads any names. Which of the two never changes.
    fn partition(&self, _name: &Name) -> Option<u32> {
        None
    }
}

/// A part of a list.
#[derive(Debug, Default)]
pub struct Page {
    /// Names and their values.
    pub values: Vec<(Name, Value)>,
    /// Where the next page begins; `None` = this was the last.
    pub next: Option<String>,
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteResult {
    /// The value is stored.
    Stored,
    /// Another value stands, unchanged.
    Conflict(Value),
}

/// What an engine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Which store it is, with its version where it says so: "valkey 9.1.2".
    pub server: String,
    /// How [`Engine::rebind`] compares and sets, in one word: "script", "ifeq", "cas".
    pub compare_and_set: &'static str,
    /// Moves are announced, see [`Event`].
    pub announces: bool,
    /// [`Engine::list`] works.
    pub list: bool,
}

/// What an engine reports by itself.
#[derive(Debug)]
pub enum Event {
    /// Another proxy, or this one, has stored a binding.
    Announced(Name, Value),
    /// The store answers for the first time or again, or another server of it. Announcements may have been missed, and values
    /// may be lost.
    Reconnected,
    /// It cannot be reached; reported once, with the reason.
    Lost(String),
}

/// Called with events, on the engine's task: must not block.
pub type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

/// Why an operation of the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection, or it broke.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// It refused: read-only, out of memory, no permission.
    #[error("the store refused: {0}")]
    Refused(String),
    /// Its response, or a value under one of our names, is not in our format.
    #[error("the store returned an unreadable response: {0}")]
    Unreadable(String),
    /// The breaker is open: it did not answer before, and has not answered a ping since.
    #[error("the store does not answer")]
    Suspended,
    /// This kind of store does not support it.
    #[error("this store does not support that")]
    Unsupported,
}

impl StoreError {
    /// The reason without the prefix, for a sentence that already says that the store is lost.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Unreachable(reason) | Self::Refused(reason) | Self::Unreadable(reason) => reason,
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
impl StoreError {
    /// Its kind in a word.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Refused(_) => "refused",
            Self::Unreadable(_) => "unreadable",
            Self::Suspended => "suspended",
            Self::Unsupported => "unsupported",
        }
    }
}
