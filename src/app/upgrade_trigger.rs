//! What starts an upgrade, and what it reports.

use tokio::sync::oneshot;

/// Why an upgrade starts.
#[derive(Debug)]
pub enum UpgradeTrigger {
    /// QUIT: another process waits for the sockets.
    Quit,
    /// An operator asks for it: the process is started first.
    Operator {
        /// The name of the operator's token.
        who: String,
        /// Gets the result, or why there is none.
        reply: oneshot::Sender<Result<UpgradeReport, UpgradeError>>,
    },
}

/// The process that serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeReport {
    /// Its id.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
}

/// Why this process serves on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The configuration has no socket for it, or this process stops.
    #[error("{0}")]
    Unavailable(String),
    /// The new process failed.
    #[error("{0}")]
    Failed(String),
    /// There is no new process.
    #[error("no process waits at {0}: start one with --upgrade")]
    NotWaiting(String),
}
