//! A request that the fast path has begun with, and that Pingora's proxy goes on with.

use crate::proxy::context::RequestContext;
use crate::telemetry::metrics::Rejection;

/// Everything that was found out: nothing is counted or tried twice.
pub(crate) struct HandedOver {
    pub(crate) context: Box<RequestContext>,
    pub(crate) stage: Stage,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// Its route is known; the shared store has to be asked for its session.
    Resolving,
    /// It is refused because of its session.
    Rejected(Rejection),
    /// Its session is known, maybe a server was selected, maybe one has failed: the context says so.
    Resolved,
}
