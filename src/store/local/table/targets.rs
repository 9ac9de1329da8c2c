//! The table's targets, for reloads, operators and the metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::session::key::ServerId;
use crate::store::local::table::Table;
use crate::store::targets::Target;

impl Table {
    /// All targets with their number of sessions.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.targets.all()
    }

    /// Frees what is known of servers that have left: see [`targets`](crate::store::targets).
    pub fn free_unused_targets(&self, now: Instant) {
        self.targets.free_unused(now);
    }

    /// The name of a pool's server with this id, also of one that left some time ago.
    pub fn server_name(&self, pool: &str, id: ServerId) -> Option<Arc<str>> {
        self.targets.name_of(pool, id)
    }

    /// Sets the limits of a pool; without, its sessions never expire. Takes effect at once, for existing sessions too.
    pub fn set_limits(&self, pool: &str, idle: Duration, absolute: Duration) {
        self.targets.set_limits(pool, idle, absolute);
    }
}
