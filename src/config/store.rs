//! The store, checked.

use std::path::PathBuf;
use std::time::Duration;

use crate::store::shared::settings::Remote;

/// Where bindings live: in the table of this process, and with `remote` in an engine that several proxies share, of which
/// the table is then the near copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Most sessions that the table keeps.
    pub max_sessions: usize,
    /// The table on disk; `None` = it ends with the process.
    pub snapshot: Option<TableSnapshot>,
    /// The engine that is shared; `None` = `type: memory`.
    pub remote: Option<Remote>,
}

/// The table on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSnapshot {
    /// Its file; absolute.
    pub path: PathBuf,
    /// How often it is written, a second to an hour.
    pub interval: Duration,
}
