//! Reloads: read, check and build the whole next version, then swap. A file with a problem changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use crate::app::build::{Materials, build};
use crate::app::changes::{Change, changes, keep_restart_only};
use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::Config;
use crate::persistence::PoolRuntime;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::log;

use super::server_tasks::{Tasks, first_verdicts};
use super::watched_files::Watching;
use super::{open_access_log, place, set_limits, tell_certificates, tell_warning};

/// Why a reload was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// HUP.
    Hangup,
    /// The file is another one.
    FileChanged,
}

/// Reloads one after the other.
pub(super) struct Reloader {
    app: Arc<AppState>,
    file: Option<PathBuf>,
    tasks: Tasks,
    watching: Option<Watching>,
}

impl Reloader {
    /// `watching` is what tells of changes on disk; `None` when there is no file.
    pub(super) fn new(app: Arc<AppState>, file: Option<PathBuf>, tasks: Tasks, watching: Option<Watching>) -> Self {
        Self { app, file, tasks, watching }
    }

    pub(super) async fn run(mut self, mut triggers: Receiver<Trigger>) {
        while let Some(trigger) = triggers.recv().await {
            let Some(file) = self.file.clone() else {
                tracing::warn!("started without a file, so there is nothing to reload");
                continue;
            };
            match Config::load(&file) {
                Ok(loaded) => {
                    for warning in &loaded.warnings {
                        tell_warning(warning);
                    }
                    self.apply(loaded.config, trigger).await;
                }
                Err(problems) => {
                    for problem in problems.iter() {
                        tracing::error!(at = %place(problem), help = problem.help.as_deref(), "{}", problem.message);
                    }
                    self.refused("the file has problems");
                }
            }
        }
    }

    fn refused(&self, why: &str) {
        self.app.metrics.config_refused();
        tracing::error!(why, "reload refused: the configuration before stays");
    }

    async fn apply(&mut self, new: Config, trigger: Trigger) {
        let before = self.app.current.load_full();
        let changes = changes(&before.config, &new);
        if changes.is_empty() && trigger == Trigger::FileChanged && self.app.metrics.last_reload_succeeded() {
            return;
        }
        for change in &changes {
            if matches!(change, Change::NeedsRestart(_)) {
                tracing::warn!("{change}");
            } else {
                tracing::info!("{change}");
            }
        }
        let new = keep_restart_only(&before.config, new);
        match self.prepare(new, &before).await {
            Ok(next) => self.publish(next, &before).await,
            Err(why) => self.refused(&why),
        }
    }

    /// Everything that may fail, before anything changes.
    async fn prepare(&self, config: Config, before: &Runtime) -> Result<Prepared, String> {
        let access_log = if config.log.access == before.config.log.access {
            Next::Same
        } else {
            Next::Other(open_access_log(&config.log.access).map_err(|error| error.to_string())?)
        };
        let materials = Materials {
            table: &self.app.sessions.table,
            metrics: &self.app.metrics,
            made_keys: &self.app.made_keys,
            former: Some(before),
        };
        let snapshot = build(config, &materials).map_err(|error| error.to_string())?;
        // Servers that are new get their first verdict before their first request.
        first_verdicts(&snapshot).await;
        Ok(Prepared { snapshot, access_log })
    }

    async fn publish(&mut self, next: Prepared, before: &Runtime) {
        let Prepared { snapshot, access_log } = next;
        let app = &self.app;
        let snapshot = Arc::new(snapshot);
        set_limits(&app.sessions.table, &snapshot);
        app.current.store(Arc::clone(&snapshot));
        forget_handed_over(app, before, &snapshot);
        self.tasks.follow(&snapshot);
        if let Some(watching) = &mut self.watching {
            watching.follow(&snapshot.config);
        }
        tell_certificates(&app.metrics, &snapshot.config);
        if let Next::Other(access_log) = access_log {
            let former = app.access_log.swap(access_log.map(Arc::new));
            // Its writer finishes its lines first, perhaps on a slow disk: nothing for the thread that checks servers.
            tokio::task::spawn_blocking(move || drop(former));
        }
        log::set_level(snapshot.config.log.level.into());
        if snapshot.config.store.max_sessions != before.config.store.max_sessions {
            let (table, capacity) = (Arc::clone(&app.sessions.table), snapshot.config.store.max_sessions);
            // May evict many sessions, which is nothing for a thread that others wait for.
            let _ = tokio::task::spawn_blocking(move || table.set_capacity(capacity)).await;
        }
        app.metrics.config_accepted(&snapshot.config.hash, false);
        tracing::info!(config = %snapshot.config.hash, "reload done");
    }
}

/// What servers say while a pool hands nothing over is not heard, so what they said before is not to be given later.
fn forget_handed_over(app: &AppState, before: &Runtime, now: &Runtime) {
    let hands_over = |plan: &&PoolRuntime| plan.persistence.as_ref().is_some_and(|one| one.handoff.is_some());
    for former in before.pools.iter().filter(hands_over) {
        if now.pools.iter().filter(hands_over).all(|plan| plan.pool.name != former.pool.name) {
            app.sessions.data.forget_pool(app.sessions.table.target(&former.pool.name, "").index());
        }
    }
}

struct Prepared {
    snapshot: Runtime,
    access_log: Next<Option<AccessLog>>,
}

/// What a reload does to a thing that runs.
enum Next<T> {
    Same,
    Other(T),
}
