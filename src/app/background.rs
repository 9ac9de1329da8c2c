//! Everything that runs beside requests: health checks, names, expiry, the table on disk, signals, reloads. One small runtime of its own, so
//! that a busy proxy does not delay its checks and a slow check does not delay a request.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::state::AppState;
use crate::proxy::context::wall_clock;
use crate::store::engine::Event;
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;

use super::reload::Reloader;
use super::server_tasks::{Tasks, first_verdicts};
use super::signals::{self, StopSwitch};
use super::snapshot_task::Keeper;
use super::watched_files::Watching;
use super::{Origin, RunError};

/// Keeps the background going; dropped, it stops.
pub(super) struct Background {
    runtime: Option<Runtime>,
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Tasks sleep or wait for sockets; there is nothing to wait for.
            runtime.shutdown_background();
        }
    }
}

/// What the background runs on: one thread.
pub(super) fn runtime() -> Result<Runtime, RunError> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).thread_name("background").enable_all().build();
    runtime.map_err(RunError::system("the background's runtime"))
}

/// How long a store may take for what it was not told before the stop. Longer than the longest pause before an engine
/// looks for a store that was away.
const LAST_WRITES: Duration = Duration::from_secs(3);

impl Background {
    /// Starts the background and waits for the first verdicts. `events` are the shared store's.
    pub(super) fn start(
        runtime: Runtime,
        app: Arc<AppState>,
        events: Option<UnboundedReceiver<Event>>,
        origin: &Origin,
        stop: &StopSwitch,
        keeper: &Arc<Keeper>,
    ) -> Self {
        let (reloads, triggers) = tokio::sync::mpsc::channel(4);
        // Signals first: a start that waits for a slow name must be stoppable.
        let listening = signals::listen(stop.clone(), Arc::clone(&app), reloads.clone());
        runtime.spawn(async move {
            if let Err(error) = listening.await {
                tracing::error!(%error, "signals cannot be listened to");
            }
        });
        let snapshot = app.current.load_full();
        let tasks = runtime.block_on(async {
            first_verdicts(&snapshot).await;
            let mut tasks = Tasks::default();
            tasks.follow(&snapshot);
            tasks
        });
        if let Some((shared, events)) = app.sessions.shared.clone().zip(events) {
            runtime.spawn(shared.run_background(events, wall_clock));
        }
        runtime.spawn(sweep(Arc::clone(&app.sessions.table)));
        runtime.spawn(Arc::clone(keeper).run());
        runtime.spawn(sweep_data(Arc::clone(&app.sessions.table), Arc::clone(&app.sessions.data)));
        let file = match origin {
            Origin::File(path) => Some(path.clone()),
            Origin::CommandLine => None,
        };
        let watching = file.clone().map(|file| Watching::new(file, &snapshot.config, reloads));
        runtime.spawn(Reloader::new(app, file, tasks, watching).run(triggers));
        Self { runtime: Some(runtime) }
    }

    /// No request is under way any more: what the store was not told it is told now.
    pub(super) fn finish(self, app: &AppState) {
        if let Some((runtime, shared)) = self.runtime.as_ref().zip(app.sessions.shared.as_ref()) {
            let written = async { tokio::time::timeout(LAST_WRITES, shared.flush(wall_clock)).await };
            if runtime.block_on(written).is_err() {
                tracing::warn!("the shared store was not told the last decisions: it did not answer in time");
            }
        }
    }
}

/// Lets expired sessions go, a little at a time.
async fn sweep(table: Arc<Table>) {
    loop {
        let pace = table.pace();
        tokio::time::sleep(pace.every).await;
        for _ in 0..pace.steps.get() {
            table.sweep_step(wall_clock());
        }
    }
}

/// The same for what servers handed over for them.
async fn sweep_data(table: Arc<Table>, data: Arc<SessionData>) {
    loop {
        let pace = data.pace(&table);
        tokio::time::sleep(pace.every).await;
        for _ in 0..pace.steps.get() {
            data.sweep_step(&table, wall_clock());
        }
    }
}
