//! What starts a reload, and what it reports.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::Server;
use crate::session::token::UnixMillis;
use crate::telemetry::events::cause;

/// Why a reload starts.
#[derive(Debug)]
pub enum ReloadTrigger {
    /// HUP.
    Hangup,
    /// The file's content is different.
    FileChanged,
    /// A server that the file no longer has is empty, or its time is over: it is taken away.
    ServerDrained,
    /// The servers of a pool with discovery are others now.
    Discovered {
        /// The pool.
        pool: String,
        /// Its servers.
        servers: Vec<Server>,
    },
    /// An operator asks for it.
    Operator {
        /// The name of the operator's token.
        who: String,
        /// Gets the result.
        reply: oneshot::Sender<Arc<ReloadReport>>,
    },
}

impl ReloadTrigger {
    /// Who caused it, for the event list.
    pub(super) fn who(&self) -> &str {
        match self {
            Self::Hangup => cause::SIGNAL,
            Self::FileChanged | Self::ServerDrained => cause::FILE,
            Self::Discovered { .. } => cause::DISCOVERY,
            Self::Operator { who, .. } => who,
        }
    }
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadReport {
    /// When it was over.
    pub at: UnixMillis,
    /// Who asked for it: the name of a token, or a cause of the event list.
    pub who: String,
    /// What is different now.
    pub changes: Vec<String>,
    /// Why it was refused, as `check` prints it; empty when it was not.
    pub problems: Vec<String>,
}
