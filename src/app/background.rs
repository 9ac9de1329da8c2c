//! All tasks outside of requests: health checks, name resolution, expiry, the snapshot on disk, signals, reloads. They run on
//! a separate executor of one thread, so that a busy proxy does not delay its checks and a slow check does not delay a request.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::proxy::connection::memory;
use crate::proxy::context::wall_clock;
use crate::store::engine::Event;
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;

use super::connection_closer;
use super::drains;
use super::error::RunError;
use super::history_sampler;
use super::rebalancer;
use super::reload::Reloader;
use super::server_clock;
use super::server_tasks::{ServerTasks, check_new_servers};
use super::signals::{self, StopSwitch};
use super::snapshot_task::SnapshotTask;
use super::state::AppState;
use super::upgrade::handover::Handover;
use super::watched_files::FileWatcher;

/// The background tasks; they stop when it is dropped.
pub(super) struct Background {
    /// `None` only while it is dropped.
    executor: Option<Runtime>,
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(executor) = self.executor.take() {
            // Tasks sleep or wait for sockets; there is nothing to wait for.
            executor.shutdown_background();
        }
    }
}

/// The executor of the background, with one thread.
pub(super) fn executor() -> Result<Runtime, RunError> {
    let mut executor = tokio::runtime::Builder::new_multi_thread();
    let executor = executor.worker_threads(1).thread_name("background").enable_all().build();
    executor.map_err(RunError::system("the executor of the background"))
}

/// How long the last writes to a store may take. Longer than the longest pause before an engine reconnects to a store.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(3);

impl Background {
    /// Starts the background and waits until every server has been checked once. `events` are the shared store's; `file` is
    /// the configuration's, if there is one.
    pub(super) fn start(
        executor: Runtime,
        app: Arc<AppState>,
        events: Option<UnboundedReceiver<Event>>,
        file: Option<&Path>,
        stop: &StopSwitch,
        snapshots: &Arc<SnapshotTask>,
    ) -> Self {
        let (reloads, triggers) = tokio::sync::mpsc::channel(4);
        let _ = app.reloads.set(reloads.clone());
        // Signals first: a start that waits for a slow name must be stoppable.
        let signals = signals::listen(stop.clone(), Arc::clone(&app), reloads.clone());
        executor.spawn(async move {
            if let Err(error) = signals.await {
                tracing::error!(%error, "cannot listen to signals");
            }
        });
        let runtime = app.current.load_full();
        runtime.pools.iter().for_each(|pool| pool.pool.take_effect());
        let tasks = executor.block_on(async {
            check_new_servers(&runtime).await;
            let mut tasks = ServerTasks::default();
            tasks.update(&runtime);
            tasks
        });
        if let Some((shared, events)) = app.sessions.shared.clone().zip(events) {
            executor.spawn(shared.run_background(events, wall_clock));
        }
        executor.spawn(sweep(Arc::clone(&app.sessions.table)));
        executor.spawn(connection_closer::run(Arc::clone(&app)));
        executor.spawn(server_clock::run(Arc::clone(&app)));
        executor.spawn(drains::run(Arc::clone(&app), reloads.clone()));
        executor.spawn(rebalancer::run(Arc::clone(&app)));
        executor.spawn(extend_open_sessions(Arc::clone(&app)));
        executor.spawn(Arc::clone(snapshots).run());
        executor.spawn(sweep_data(Arc::clone(&app.sessions.table), Arc::clone(&app.sessions.data)));
        executor.spawn(return_memory());
        executor.spawn(history_sampler::run(Arc::clone(&app)));
        let file = file.map(Path::to_owned);
        let watcher = file.clone().map(|file| FileWatcher::new(file, &runtime.config, reloads));
        executor.spawn(Reloader::new(app, file, tasks, watcher).run(triggers));
        Self { executor: Some(executor) }
    }

    /// Answers requests for an upgrade from now on.
    pub(super) fn run_upgrades(&self, handover: &Arc<Handover>) {
        let (upgrades, triggers) = tokio::sync::mpsc::channel(1);
        let _ = handover.app.upgrades.set(upgrades);
        if let Some(executor) = &self.executor {
            executor.spawn(Arc::clone(handover).run(triggers));
        }
    }

    /// Writes to the shared store what is still pending. No request is in flight any more.
    pub(super) fn finish(self, app: &AppState) {
        if let Some((executor, shared)) = self.executor.as_ref().zip(app.sessions.shared.as_ref()) {
            let flush = async { tokio::time::timeout(LAST_WRITES_TIMEOUT, shared.flush(wall_clock)).await };
            if executor.block_on(flush).is_err() {
                tracing::warn!("the last decisions were not written to the shared store: it did not answer in time");
            }
        }
    }
}

/// Keeps the sessions of requests in flight alive.
async fn extend_open_sessions(app: Arc<AppState>) {
    loop {
        let pause = app.sessions.extend_open(wall_clock());
        tokio::time::sleep(pause).await;
    }
}

/// Removes expired sessions, a few at a time.
async fn sweep(table: Arc<Table>) {
    loop {
        let pace = table.pace();
        tokio::time::sleep(pace.every).await;
        for _ in 0..pace.steps.get() {
            table.sweep_step(wall_clock());
        }
    }
}

/// The same for the sessions' handoff data.
async fn sweep_data(table: Arc<Table>, data: Arc<SessionData>) {
    loop {
        let pace = data.pace(&table);
        tokio::time::sleep(pace.every).await;
        for _ in 0..pace.steps.get() {
            data.sweep_step(&table, wall_clock());
        }
    }
}

/// How often unused memory is returned to the system.
const RETURN_INTERVAL: Duration = Duration::from_secs(5);

async fn return_memory() {
    loop {
        tokio::time::sleep(RETURN_INTERVAL).await;
        memory::return_unused().await;
    }
}
