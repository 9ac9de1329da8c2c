//! The shared store as requests use it: its state, and the call to the engine behind timeout, breaker and counters.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::settings::{OnError, Remote};
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::engine::record::node_word;
use crate::store::engine::{Capabilities, Engine, Event, Name, StoreError, Value, WriteResult};
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;
use crate::store::targets::Target;
use crate::telemetry::events::{self, Change, EventKind};
use crate::telemetry::metrics::{Metrics, StoreOperation, StoreResult};

use super::breaker::Breaker;
use super::freshness::FreshnessTable;
use super::pending::PendingWrites;
use super::queue::Queues;

/// The store did not answer: the request is decided by the table and by tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUnavailable;

impl From<StoreError> for StoreUnavailable {
    /// The reason has been counted, and logged where it is new.
    fn from(_: StoreError) -> Self {
        Self
    }
}

/// What the shared store keeps in sync.
pub struct StoreContext {
    /// The table that requests are decided by.
    pub table: Arc<Table>,
    /// The data that servers handed over.
    pub data: Arc<SessionData>,
    /// For the counters.
    pub metrics: Arc<Metrics>,
}

/// The shared store as requests use it. Share it in an `Arc`.
pub struct SharedStore {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) context: StoreContext,
    /// This process's name in records.
    pub(super) node: Box<str>,
    /// Moves are announced, as of the last connection. Relaxed: seeing it late costs a read, or saves one.
    pub(super) announces: AtomicBool,
    pub(super) timeout: Duration,
    /// What a request does that needs the store during an outage.
    pub on_error: OnError,
    pub(super) freshness: FreshnessTable,
    pub(super) breaker: Breaker,
    /// The last ping failed. Relaxed, like everything that only reports.
    unavailable: AtomicBool,
    /// The last logged response was a refusal.
    refusing: AtomicBool,
    /// Sessions being read, so that parallel requests of one session share a read.
    pub(super) reads: Mutex<HashMap<SessionKey, watch::Receiver<Option<bool>>>>,
    pub(super) pending: PendingWrites,
    pub(super) queues: Queues,
}

impl SharedStore {
    /// With an engine that was started. `node` is this proxy's name, for people; `incarnation` is random and distinguishes
    /// its process from all others. [`run_background`](Self::run_background) must run concurrently.
    pub fn new(
        engine: Arc<dyn Engine>,
        settings: &Remote,
        node: &str,
        incarnation: u32,
        context: StoreContext,
    ) -> Self {
        Self {
            announces: AtomicBool::new(engine.capabilities().announces),
            freshness: FreshnessTable::new(
                context.table.capacity(),
                settings.near_ttl,
                engine.partition(&Name::of_pool("")).is_some(),
            ),
            engine,
            context,
            node: format!("{} {incarnation:08x}", node_word(node)).into(),
            timeout: settings.timeout,
            on_error: settings.on_error,
            breaker: Breaker::new(),
            unavailable: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            reads: Mutex::default(),
            pending: PendingWrites::new(),
            queues: Queues::new(),
        }
    }

    /// Handles an event of the engine.
    pub fn on_event(&self, event: Event, now: UnixMillis) {
        match event {
            Event::Announced(name, value) => {
                self.context.metrics.store.announcements.inc();
                self.apply_announcement(&name, &value, now);
            }
            Event::Reconnected => {
                let Capabilities { server, compare_and_set, announces, .. } = self.engine.capabilities();
                tracing::info!(%server, compare_and_set, announces, "shared store connected");
                self.announces.store(announces, Relaxed);
                // Announcements were missed meanwhile, and the store may be another one, or empty.
                self.freshness.invalidate_all();
                self.queues.stop_gathering();
                self.queues.resync.restart();
                self.resume();
            }
            Event::Lost(why) => {
                tracing::warn!(%why, "shared store unreachable; falling back to tokens and the local table");
                self.breaker.probe.notify_one();
            }
        }
    }

    /// The store answers again.
    pub(super) fn resume(&self) {
        self.breaker.close();
        self.set_unavailable(false);
        self.queues.wake.notify_one();
    }

    /// Whether it is known not to answer.
    pub fn is_unavailable(&self) -> bool {
        self.unavailable.load(Relaxed)
    }

    /// Notes whether it answers.
    pub fn set_unavailable(&self, unavailable: bool) {
        if self.unavailable.swap(unavailable, Relaxed) != unavailable {
            let (from, to) = if unavailable { ("up", "down") } else { ("down", "up") };
            events::record(Change::new(EventKind::Store).values(from, to));
        }
        self.context.metrics.store.set_up(!unavailable);
    }

    /// Whether the table has an entry within its limits, a tombstone included.
    pub(super) fn is_live(&self, key: &SessionKey, now: UnixMillis) -> bool {
        matches!(self.context.table.find(key, now), TableLookup::Live(_))
    }

    /// A call to the engine within `store.timeout`, unless the breaker is open.
    async fn call<T>(
        &self,
        operation: StoreOperation,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let metrics = &self.context.metrics.store;
        if self.breaker.is_open() {
            metrics.count(operation, StoreResult::Suspended);
            return Err(StoreError::Suspended);
        }
        let timer = metrics.timer(operation);
        let response = timeout(self.timeout, call).await.unwrap_or(Err(StoreError::Timeout));
        drop(timer);
        match &response {
            Err(StoreError::Timeout) => {
                if self.breaker.record_timeout() {
                    self.set_unavailable(true);
                    let timeout = self.timeout;
                    tracing::warn!(
                        ?timeout,
                        "shared store does not answer in time; falling back to tokens and the local table"
                    );
                }
            }
            _ => self.breaker.record_response(),
        }
        if let Err(error) = &response {
            metrics.count(operation, result_of(error));
        }
        self.log_refusal(response.as_ref().err());
        response
    }

    /// A store that refuses, or that holds foreign values, fails every request: the first failure is logged, and the
    /// recovery.
    fn log_refusal(&self, error: Option<&StoreError>) {
        match error {
            Some(why @ (StoreError::Refused(_) | StoreError::Unreadable(_))) if !self.refusing.swap(true, Relaxed) => {
                tracing::warn!(%why, "shared store unavailable; falling back to tokens and the local table");
            }
            None if self.refusing.load(Relaxed) => {
                self.refusing.store(false, Relaxed);
                tracing::info!("shared store recovered");
            }
            _ => {}
        }
    }

    /// A write. Returns the existing value that it conflicts with.
    pub(super) async fn write(
        &self,
        operation: StoreOperation,
        call: impl Future<Output = Result<WriteResult, StoreError>> + Send,
    ) -> Result<Option<Value>, StoreError> {
        let conflict = match self.call(operation, call).await? {
            WriteResult::Stored => None,
            WriteResult::Conflict(value) => Some(value),
        };
        let result = if conflict.is_some() { StoreResult::Lost } else { StoreResult::Ok };
        self.context.metrics.store.count(operation, result);
        Ok(conflict)
    }

    /// Any other call.
    pub(super) async fn read<T>(
        &self,
        operation: StoreOperation,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let response = self.call(operation, call).await?;
        self.context.metrics.store.count(operation, StoreResult::Ok);
        Ok(response)
    }

    /// How often the lifetime of a pool's sessions is extended in the store: every tenth of the idle time. Lifetimes are
    /// longer by as much, so no session ends early in the store.
    pub(super) fn touch_interval(pool: &Target) -> Duration {
        (pool.idle() / 10).max(Duration::from_secs(1))
    }

    /// How long the store is to keep a session of a pool that was visited now.
    pub(super) fn ttl(pool: &Target, created: UnixMillis, now: UnixMillis) -> Duration {
        let idle = pool.idle() + Self::touch_interval(pool) + SLACK;
        let left = pool.absolute().saturating_sub(now.since(created));
        idle.min(left + SLACK).min(MAX_TTL)
    }
}

/// For clocks and networks: a record should rather outlive its session a little.
const SLACK: Duration = Duration::from_secs(5);
/// No session outlives its token: 400 days.
const MAX_TTL: Duration = Duration::from_secs(400 * 24 * 60 * 60);

pub(super) const fn result_of(error: &StoreError) -> StoreResult {
    match error {
        StoreError::Unreachable(_) => StoreResult::Unreachable,
        StoreError::Timeout => StoreResult::Timeout,
        StoreError::Refused(_) | StoreError::Unsupported => StoreResult::Refused,
        StoreError::Unreadable(_) => StoreResult::Unreadable,
        StoreError::Suspended => StoreResult::Suspended,
    }
}

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}
