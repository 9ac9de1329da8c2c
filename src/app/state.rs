//! What outlives every version of the configuration: one for the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::persistence::Sessions;
use crate::session::token::keyring::Keyring;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Metrics, RenderError, ServerReading, TableReading};

use super::runtime::Runtime;

/// The state of the process.
pub struct AppState {
    /// The version that requests take now.
    pub current: ArcSwap<Runtime>,
    /// The sessions.
    pub sessions: Sessions,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Where requests are written down, if anywhere.
    pub access_log: ArcSwapOption<AccessLog>,
    /// Keys of a process that was given none.
    pub made_keys: Keyring,
    /// Set when the process stops: readiness is off, connections are not kept.
    pub draining: AtomicBool,
    /// Requests under way, of all pools and of none.
    pub in_flight: AtomicUsize,
}

impl AppState {
    /// The `/metrics` text.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn render_metrics(&self) -> Result<Vec<u8>, RenderError> {
        let snapshot = self.current.load();
        let table = TableReading {
            entries: self.sessions.table.len(),
            capacity: self.sessions.table.capacity(),
            bytes: self.sessions.table.bytes(),
            handoff_bytes: self.sessions.data.bytes(),
        };
        let servers = snapshot.pools.iter().flat_map(|plan| {
            plan.pool.servers.iter().enumerate().map(|(index, server)| ServerReading {
                pool: &plan.pool.name,
                server: &server.name,
                up: server.condition().takes_bound(),
                state: server.state.into(),
                in_flight: server.live.in_flight(),
                weight: server.weight,
                sessions: plan
                    .persistence
                    .as_ref()
                    .and_then(|persistence| persistence.targets.get(index))
                    .map_or(0, |place| place.sessions()),
            })
        });
        self.metrics.render(&table, servers)
    }

    /// The process stops.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
