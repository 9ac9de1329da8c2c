//! The state of the process, which outlives every reload.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

use crate::persistence::{PoolRuntime, Sessions, TableHistory};
use crate::pool::breaker::BreakerState;
use crate::session::token::UnixMillis;
use crate::session::token::keyring::Keyring;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::history::History;
use crate::telemetry::metrics::{Metrics, PoolReading, RenderError, ServerReading, TableReading};
use crate::telemetry::trace::SpanExporter;

use super::acme::state::AcmeState;
use super::overrides::Overrides;
use super::reload_trigger::{ReloadReport, ReloadTrigger};
use super::runtime::Runtime;
use super::upgrade_trigger::UpgradeTrigger;

/// The state of the process.
pub struct AppState {
    /// The runtime that new requests take.
    pub current: ArcSwap<Runtime>,
    /// The sessions.
    pub sessions: Sessions,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The access log, if there is one.
    pub access_log: ArcSwapOption<AccessLog>,
    /// The exporter of spans, if they are sent.
    pub span_exporter: ArcSwapOption<SpanExporter>,
    /// Seal tokens when the configuration has no keys.
    pub generated_keys: Keyring,
    /// What they are derived from, for a process that takes over.
    pub generated_secret: [u8; 32],
    /// Set when the process stops: `/readyz` answers 503, connections are not kept alive.
    pub draining: AtomicBool,
    /// When the process started.
    pub started: Instant,
    /// The same by the wall clock.
    pub started_at: UnixMillis,
    /// The table was read from a snapshot at start. Set before the first request.
    pub table_restored: AtomicBool,
    /// How long the table had been filled when this process took it over. Set before the first request.
    pub table_age_before: OnceLock<Duration>,
    /// The certificates that the proxy orders itself.
    pub acme: AcmeState,
    /// What operators set for servers at run time.
    pub overrides: Overrides,
    /// Requests in flight, with and without a pool.
    pub in_flight: AtomicUsize,
    /// The last reload, if there was one.
    pub last_reload: ArcSwapOption<ReloadReport>,
    /// The last hour, for charts.
    pub history: Mutex<History>,
    /// The wall clock.
    pub clock: fn() -> UnixMillis,
    /// Asks for a reload. Set when the background has started.
    pub reloads: OnceLock<Sender<ReloadTrigger>>,
    /// Asks for an upgrade. Set before the first request.
    pub upgrades: OnceLock<Sender<UpgradeTrigger>>,
}

impl AppState {
    /// The `/metrics` text.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn render_metrics(&self) -> Result<Vec<u8>, RenderError> {
        let runtime = self.current.load();
        let table = TableReading {
            entries: self.sessions.table.len(),
            capacity: self.sessions.table.capacity(),
            bytes: self.sessions.table.bytes(),
            handoff_bytes: self.sessions.data.bytes(),
        };
        let servers = runtime.pools.iter().flat_map(|pool| {
            pool.pool.servers.iter().enumerate().map(|(index, server)| ServerReading {
                pool: &pool.pool.name,
                server: &server.name,
                up: server.is_up(),
                state: server.state_in_force().into(),
                breaker: server.breaker().map(BreakerState::label),
                in_flight: server.live.in_flight(),
                queued: server.live.queued(),
                streams: server.live.streams(),
                weight: pool.pool.weight_now(server),
                sessions: pool
                    .persistence
                    .as_ref()
                    .and_then(|persistence| persistence.targets.get(index))
                    .map_or(0, |target| target.sessions()),
            })
        });
        let history = self.table_history();
        let pools = runtime.pools.iter().map(|pool| PoolReading {
            pool: &pool.pool.name,
            complete: pool.has_all_sessions(&history),
            queued: pool.pool.queue.any(),
        });
        self.metrics.render(&table, servers, pools)
    }

    /// Whether the table has all sessions of a pool.
    pub fn has_all_sessions(&self, pool: &PoolRuntime) -> bool {
        pool.has_all_sessions(&self.table_history())
    }

    /// How the table came to what it has.
    pub fn table_history(&self) -> TableHistory {
        TableHistory {
            age: self.started.elapsed() + self.table_age_before.get().copied().unwrap_or_default(),
            restored: self.table_restored.load(Ordering::Relaxed),
            shared: self.sessions.shared.is_some(),
        }
    }

    /// Whether the process stops.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
