//! What holds for a connection from its beginning.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Listener, ListenerTimeouts, OnClientHalfClose};
use crate::limits::ListenerLimits;
use crate::pool::descriptors::RefusalPermit;

/// The settings of its listener, and whether it is refused.
pub(super) struct ConnectionSettings {
    pub(super) timeouts: ListenerTimeouts,
    /// A client that closes its side of the connection has cancelled its request.
    pub(super) cancels_at_half_close: bool,
    pub(super) limits: Arc<ListenerLimits>,
    /// Its request is refused, since descriptors run out.
    pub(super) refusal: Option<RefusalPermit>,
}

/// How long a connection that is refused may hold its descriptor before its request has arrived.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

impl ConnectionSettings {
    pub(super) fn new(listener: &Listener, limits: &Arc<ListenerLimits>, refusal: Option<RefusalPermit>) -> Self {
        let mut timeouts = listener.timeouts;
        if refusal.is_some() {
            timeouts.request_header = timeouts.request_header.min(REFUSAL_TIMEOUT);
        }
        let cancels_at_half_close = listener.on_client_half_close == OnClientHalfClose::Cancel;
        Self { timeouts, cancels_at_half_close, limits: Arc::clone(limits), refusal }
    }
}
