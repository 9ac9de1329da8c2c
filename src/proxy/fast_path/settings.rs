//! The settings of the fast path, of the process and of an exchange.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::app::state::AppState;
use crate::config::Connection;
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::context::RequestContext;
use crate::telemetry::metrics::FullPathReason;

/// The fast path of the process.
pub struct FastPath {
    /// The state of the process.
    pub app: Arc<AppState>,
    /// Whether requests may take it.
    pub enabled: bool,
    /// Most connections to servers that are kept idle.
    pub max_idle: usize,
    /// With so many requests under way in the process, what they send goes out together.
    pub batches_from: usize,
}

/// Requests under way for each thread from which on it pays to send together. With fewer the thread is seldom ready with
/// another request, and asks the system for events in vain.
pub const BATCHES_FROM: usize = 12;

/// What has become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServeResult {
    /// It is served, and the connection takes the next one.
    Next,
    /// It is served, and the connection is closed.
    Closed,
    /// It takes the full path.
    FullPath,
}

/// The timeouts towards the server and the client of an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) write: Duration,
    pub(super) read: Duration,
    pub(super) idle: Duration,
    pub(super) client_write: Duration,
}

impl FastPath {
    /// Whether requests send together now.
    pub(super) fn batches(&self) -> bool {
        self.app.in_flight.load(Ordering::Relaxed) >= self.batches_from
    }

    /// Counts a request that takes the full path.
    pub(super) fn leave_to_full_path(&self, why: FullPathReason) -> ServeResult {
        self.app.metrics.full_requests.inc(why);
        ServeResult::FullPath
    }
}

impl Timeouts {
    /// Those of the request's pool and listener.
    pub(super) fn of(connection: &DeadlineStream, ctx: &RequestContext) -> Self {
        let config = &ctx.runtime.config;
        let settings = ctx.session.pool.and_then(|pool| config.pools.get(pool)).map(|pool| &pool.connection);
        let listener = config.listeners.get(connection.listener(&config.listeners));
        // A request has both.
        let of_server = |one: fn(&Connection) -> Duration| settings.map(one).unwrap_or_default();
        Self {
            connect: of_server(|one| one.connect_timeout),
            write: of_server(|one| one.write_timeout),
            read: of_server(|one| one.read_timeout),
            idle: of_server(|one| one.idle_timeout),
            client_write: listener.map(|one| one.timeouts.write).unwrap_or_default(),
        }
    }
}
