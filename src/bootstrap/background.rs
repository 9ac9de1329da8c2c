//! Everything that runs beside requests: health checks, names, expiry, the table on disk, signals, reloads. One small runtime of its own, so
//! that a busy proxy does not delay its checks and a slow check does not delay a request.

use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::proxy::context::wall_clock;
use crate::snapshot::Parts;
use crate::store::data::SessionData;
use crate::store::memory::Table;

use super::keeper::Keeper;
use super::reloader::Reloader;
use super::signals::{self, StopSwitch};
use super::tasks::{Tasks, first_verdicts};
use super::watching::Watching;
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

/// Starts the background and waits for the first verdicts.
pub(super) fn start(
    parts: Arc<Parts>,
    origin: &Origin,
    stop: &StopSwitch,
    keeper: &Arc<Keeper>,
) -> Result<Background, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()
        .map_err(RunError::system("the background's runtime"))?;
    let (reloads, triggers) = tokio::sync::mpsc::channel(4);
    // Signals first: a start that waits for a slow name must be stoppable.
    let listening = signals::listen(stop.clone(), Arc::clone(&parts), reloads.clone());
    runtime.spawn(async move {
        if let Err(error) = listening.await {
            tracing::error!(%error, "signals cannot be listened to");
        }
    });
    let snapshot = parts.current.load_full();
    let tasks = runtime.block_on(async {
        first_verdicts(&snapshot).await;
        let mut tasks = Tasks::default();
        tasks.follow(&snapshot);
        tasks
    });
    runtime.spawn(sweep(Arc::clone(&parts.table)));
    runtime.spawn(Arc::clone(keeper).run());
    runtime.spawn(sweep_data(Arc::clone(&parts.table), Arc::clone(&parts.data)));
    let file = match origin {
        Origin::File(path) => Some(path.clone()),
        Origin::CommandLine => None,
    };
    let watching = file.clone().map(|file| Watching::new(file, &snapshot.config, reloads));
    runtime.spawn(Reloader::new(parts, file, tasks, watching).run(triggers));
    Ok(Background { runtime: Some(runtime) })
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
