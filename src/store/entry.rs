//! What the table says of a session, as copies: nothing is locked while they are looked at.

use crate::session::token::UnixMillis;
use crate::store::targets::TargetIndex;

/// A session in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// The server that the session is bound to.
    pub target: TargetIndex,
    /// How often the session has moved. Of two records the one with the higher epoch wins.
    pub epoch: u32,
    /// When the session began.
    pub created: UnixMillis,
    /// The last visit *before* this lookup, to the tenth of a second.
    pub last_seen: UnixMillis,
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableLookup {
    /// A session within its limits.
    Live(TableEntry),
    /// Not seen for longer than its pool's idle limit.
    ExpiredIdle,
    /// Older than its pool's absolute limit.
    ExpiredAbsolute,
    /// Not in the table: it never returned, was evicted, or ended.
    Absent,
}

/// The result of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebindResult {
    /// It moved.
    Moved {
        /// The new epoch.
        epoch: u32,
    },
    /// Another request moved it first. Its entry stands.
    AlreadyMoved(TableEntry),
}
