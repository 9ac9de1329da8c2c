//! Why an attempt at a server has not begun.

use crate::pool::ServerIndex;

use super::refusal::Refusal;

/// Why an attempt has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAttempt {
    /// The request fails.
    Refused(Refusal),
    /// Not yet.
    Wait(NextStep),
}

/// What a request without a server does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// The server that was selected takes no request any more: another selection is due.
    Select,
    /// It waits for its session's server to come back.
    Hold(ServerIndex),
    /// It waits until this server has room, or any.
    Queue(Option<ServerIndex>),
}
