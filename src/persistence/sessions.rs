//! Where the sessions of this proxy are kept: the table, session data, the shared store, and recent first requests.

use std::sync::Arc;

use crate::session::token::UnixMillis;
use crate::store::local::data::SessionData;
use crate::store::local::first_requests::FirstRequests;
use crate::store::local::open_requests::OpenRequests;
use crate::store::local::table::Table;
use crate::store::shared::SharedStore;

use super::pool::PoolRuntime;
use super::resolve::lookup::{PoolSessions, ResolvedSession};

/// All sessions that this proxy knows.
pub struct Sessions {
    /// Bindings.
    pub table: Arc<Table>,
    /// What servers handed over.
    pub data: Arc<SessionData>,
    /// The store that other proxies share with this one; `None` with `store.type: memory`.
    pub shared: Option<Arc<SharedStore>>,
    /// Where the last new client of an address went.
    pub first_requests: FirstRequests,
    /// The sessions of requests in flight.
    pub open: OpenRequests,
}

impl Sessions {
    /// The sessions of one pool; `None` when it keeps none.
    pub fn of<'a>(&'a self, runtime: &'a PoolRuntime) -> Option<PoolSessions<'a>> {
        runtime.persistence.as_ref().map(|persistence| PoolSessions {
            table: &self.table,
            pool: &runtime.pool,
            targets: &persistence.targets,
            tombstone: &persistence.tombstone,
            limits: &persistence.limits,
            data: &self.data,
            shared: self.shared.as_deref(),
            hands_over: persistence.handoff.is_some(),
            looks_only: false,
        })
    }

    /// The session is over, and its client begins a new one with its next request.
    pub fn end(&self, session: &ResolvedSession, runtime: &PoolRuntime, now: UnixMillis) {
        if let Some(sessions) = self.of(runtime) {
            session.end(&sessions, now);
        }
    }
}
