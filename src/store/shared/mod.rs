//! A store that several proxies share, with a guard before it: what this process knows is in the table, requests wait for
//! the store only for what the table cannot know, never longer than `store.timeout`, and not at all while it is away.
//!
//! The table stays what requests are decided by. Before, [`SharedStore::query_for`] says whether the table's word is good
//! enough ([`freshness`]) and [`SharedStore::ask`] brings in what the store knows; when something changes, the store is told
//! ([`mod@write`]), first where another proxy may be deciding the same at this moment, else as soon as it can be. Every write
//! is a merge by epoch, so what could not be written is simply written later ([`pending`], [`write_behind`]).
//!
//! What only a token holds is never written: a session with a token is in the store once it has moved or ended.

mod breaker;
mod freshness;
mod pending;
mod read_through;
mod resync;
pub mod settings;
#[cfg(test)]
mod tests;
mod write;
mod write_behind;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use self::settings::{OnError, Remote};
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableLookup;
use crate::store::engine::record::node_word;
use crate::store::engine::{Capabilities, Engine, Event, StoreError, Value, WriteResult};
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;
use crate::store::targets::Target;
use crate::telemetry::metrics::{Metrics, StoreOperation, StoreResult};

use self::breaker::Gate;
use self::freshness::Near;
use self::pending::Pending;

pub use self::read_through::StoreQuery;
pub use self::write::Move;
pub use self::write_behind::Clock;

/// The store could not be asked, or did not answer: what the table and tokens say must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUnavailable;

impl From<StoreError> for StoreUnavailable {
    /// Why was counted, and told where it is news.
    fn from(_: StoreError) -> Self {
        Self
    }
}

/// What the shared store stands between.
pub struct StoreContext {
    /// What requests are decided by.
    pub table: Arc<Table>,
    /// What servers handed over.
    pub data: Arc<SessionData>,
    /// For the counters.
    pub metrics: Arc<Metrics>,
}

/// The shared store as requests use it. Share it in an `Arc`.
pub struct SharedStore {
    engine: Arc<dyn Engine>,
    context: StoreContext,
    /// This process's name in records.
    node: Box<str>,
    /// Moves are announced, as of the last connection. Relaxed: who sees it late asks once more, or once less.
    announces: AtomicBool,
    timeout: Duration,
    /// What a request does that needs the store while it is away.
    pub on_error: OnError,
    near: Near,
    gate: Gate,
    /// It did not answer when it was last asked whether it does. Relaxed, as all that only tells of it.
    away: AtomicBool,
    /// The last that was told of its answers is that it refuses.
    refuses: AtomicBool,
    /// Sessions that the store is being asked for, so that parallel requests of one ask once.
    flights: Mutex<HashMap<SessionKey, watch::Receiver<Option<bool>>>>,
    pending: Pending,
    behind: write_behind::Queues,
}

impl SharedStore {
    /// StoreContext an engine that was started; `node` is this proxy's name, for people, and `incarnation` tells its process from
    /// all others, so a random number. [`write_behind`](Self::run_background) must run beside it.
    pub fn new(
        engine: Arc<dyn Engine>,
        settings: &Remote,
        node: &str,
        incarnation: u32,
        context: StoreContext,
    ) -> Self {
        Self {
            announces: AtomicBool::new(engine.capabilities().announces),
            near: Near::new(context.table.capacity(), settings.near_ttl),
            engine,
            context,
            node: format!("{} {incarnation:08x}", node_word(node)).into(),
            timeout: settings.timeout,
            on_error: settings.on_error,
            gate: Gate::new(),
            away: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            flights: Mutex::default(),
            pending: Pending::new(),
            behind: write_behind::Queues::new(),
        }
    }

    /// The engine told something.
    pub fn on_event(&self, event: Event, now: UnixMillis) {
        match event {
            Event::Announced(name, value) => {
                self.context.metrics.store.announcements.inc();
                self.hear_of_move(&name, &value, now);
            }
            Event::Reconnected => {
                let Capabilities { server, compare_and_set, announces, .. } = self.engine.capabilities();
                tracing::info!(%server, compare_and_set, announces, "the shared store answers");
                self.announces.store(announces, Relaxed);
                // What was announced meanwhile was missed, and the store may be another one, or empty.
                self.near.missed_announcements();
                self.behind.recall.begin();
                self.answers();
            }
            Event::Lost(why) => {
                tracing::warn!(%why, "the shared store, or a part of it, is out of reach; sessions go on by tokens and by what is known here");
                self.gate.doubts.notify_one();
            }
        }
    }

    /// The store answers again.
    fn answers(&self) {
        self.gate.open();
        self.set_away(false);
        self.behind.wake.notify_one();
    }

    /// Whether it is out of reach, as far as is known.
    pub fn is_unavailable(&self) -> bool {
        self.away.load(Relaxed)
    }

    fn set_away(&self, away: bool) {
        self.away.store(away, Relaxed);
        self.context.metrics.store.set_up(!away);
    }

    /// A session goes by this record in the table and is not beyond its limits.
    fn is_live(&self, key: &SessionKey, now: UnixMillis) -> bool {
        matches!(self.context.table.find(key, now), TableLookup::Live(_))
    }

    /// Asks the engine, within the time that a request has for it, unless it has not answered lately.
    async fn guarded<T>(
        &self,
        operation: StoreOperation,
        asked: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let metrics = &self.context.metrics.store;
        if self.gate.is_shut() {
            metrics.count(operation, StoreResult::Suspended);
            return Err(StoreError::Suspended);
        }
        let timer = metrics.timer(operation);
        let answer = timeout(self.timeout, asked).await.unwrap_or(Err(StoreError::Timeout));
        drop(timer);
        match &answer {
            Err(StoreError::Timeout) => {
                if self.gate.timed_out() {
                    self.set_away(true);
                    let timeout = self.timeout;
                    tracing::warn!(
                        ?timeout,
                        "the shared store does not answer in time; requests no longer wait for it"
                    );
                }
            }
            _ => self.gate.answered(),
        }
        if let Err(error) = &answer {
            metrics.count(operation, word(error));
        }
        self.tell_refusals(answer.as_ref().err());
        answer
    }

    /// A store that refuses, or that somebody else writes to, refuses every request: it is told once, and once when it is over.
    fn tell_refusals(&self, error: Option<&StoreError>) {
        match error {
            Some(why @ (StoreError::Refused(_) | StoreError::Unreadable(_))) if !self.refuses.swap(true, Relaxed) => {
                tracing::warn!(%why, "the shared store is of no help; sessions go on by tokens and by what is known here");
            }
            None if self.refuses.load(Relaxed) => {
                self.refuses.store(false, Relaxed);
                tracing::info!("the shared store does as it is asked again");
            }
            _ => {}
        }
    }

    /// The same for a write, which may have come too late.
    async fn written(
        &self,
        operation: StoreOperation,
        asked: impl Future<Output = Result<WriteResult, StoreError>> + Send,
    ) -> Result<Option<Value>, StoreError> {
        let theirs = match self.guarded(operation, asked).await? {
            WriteResult::Stored => None,
            WriteResult::Conflict(value) => Some(value),
        };
        let result = if theirs.is_some() { StoreResult::Lost } else { StoreResult::Ok };
        self.context.metrics.store.count(operation, result);
        Ok(theirs)
    }

    /// For a read.
    async fn read<T>(
        &self,
        operation: StoreOperation,
        asked: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let answer = self.guarded(operation, asked).await?;
        self.context.metrics.store.count(operation, StoreResult::Ok);
        Ok(answer)
    }

    /// How often the store is told that sessions of a pool were here: a tenth of the idle time. What it keeps lives longer
    /// by as much, so no session ends early in the store.
    fn touch_every(pool: &Target) -> Duration {
        (pool.idle() / 10).max(Duration::from_secs(1))
    }

    /// How long the store is to keep a session of a pool that was here now.
    fn ttl(pool: &Target, created: UnixMillis, now: UnixMillis) -> Duration {
        let idle = pool.idle() + Self::touch_every(pool) + SLACK;
        let left = pool.absolute().saturating_sub(now.since(created));
        idle.min(left + SLACK).min(LONGEST)
    }
}

/// Clocks and networks: what the store keeps should rather live a little too long.
const SLACK: Duration = Duration::from_secs(5);
/// No session lives longer than its token can: 400 days.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 60 * 60);

const fn word(error: &StoreError) -> StoreResult {
    match error {
        StoreError::Unreachable(_) => StoreResult::Unreachable,
        StoreError::Timeout => StoreResult::Timeout,
        StoreError::Refused(_) | StoreError::Unsupported => StoreResult::Refused,
        StoreError::Unreadable(_) => StoreResult::Unreadable,
        StoreError::Suspended => StoreResult::Suspended,
    }
}

/// Everything that it needs is there: for those who only pass it on.
impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}
