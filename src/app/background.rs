//! All tasks outside of requests: health checks, name resolution, expiry, the snapshot on disk, signals, reloads. They run on
//! a separate executor of one thread, so that a busy proxy does not delay its checks and a slow check does not delay a request.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use crate::proxy::connection::memory;
use crate::proxy::context::wall_clock;
use crate::store::engine::Event;
use crate::store::local::data::SessionData;
use crate::store::local::table::Table;
use crate::telemetry::metrics::LOOK_INTERVAL;

use super::acme;
use super::connection_closer;
use super::discovery::Discoveries;
use super::drains;
use super::error::RunError;
use super::history_sampler;
use super::low_priority;
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

/// How long the last spans may take.
const LAST_SPANS_TIMEOUT: Duration = Duration::from_secs(2);

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
        acme::worker::load(&app, &runtime.config);
        for pool in runtime.pools.iter() {
            pool.pool.take_effect();
            pool.pool.prepare();
        }
        let (tasks, discoveries) = executor.block_on(async {
            check_new_servers(&runtime).await;
            let mut tasks = ServerTasks::default();
            tasks.update(&runtime);
            (tasks, Discoveries::start(&runtime.config, reloads.clone(), wall_clock()))
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
        executor.spawn(remove_series(Arc::clone(&app)));
        executor.spawn(return_memory());
        executor.spawn(history_sampler::run(Arc::clone(&app)));
        executor.spawn(close_idle_connections(Arc::clone(&app)));
        let file = file.map(Path::to_owned);
        let watcher = file.clone().map(|file| FileWatcher::new(file, &runtime.config, reloads));
        executor.spawn(Reloader::new(app, file, tasks, discoveries, watcher).run(triggers));
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

    /// Orders certificates from now on: the listeners are open, so that challenges are answered.
    pub(super) fn run_acme(&self, app: &Arc<AppState>) {
        if let Some(executor) = &self.executor {
            executor.spawn(acme::worker::run(Arc::clone(app)));
        }
    }

    /// Writes to the shared store and to the collector what is still pending. No request is in flight any more.
    pub(super) fn finish(self, app: &AppState) {
        if let Some((executor, shared)) = self.executor.as_ref().zip(app.sessions.shared.as_ref()) {
            let flush = async { tokio::time::timeout(LAST_WRITES_TIMEOUT, shared.flush(wall_clock)).await };
            if executor.block_on(flush).is_err() {
                tracing::warn!("the last decisions were not written to the shared store: it did not answer in time");
            }
        }
        if let Some((executor, exporter)) = self.executor.as_ref().zip(app.span_exporter.swap(None)) {
            let flush = async { tokio::time::timeout(LAST_SPANS_TIMEOUT, exporter.flush()).await };
            if executor.block_on(flush).is_err() {
                tracing::warn!("the last spans were not sent: the collector did not answer in time");
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

/// Removes the series of what reloads took away, and what the table knows of servers that are gone.
async fn remove_series(app: Arc<AppState>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let (runtime, now) = (app.current.load_full(), Instant::now().into_std());
        if app.metrics.note_in_use(&runtime.in_use(), now) {
            let app = Arc::clone(&app);
            // A panic is in the log.
            low_priority::run("series", move || app.metrics.remove_unused(now)).await;
        }
        app.sessions.table.free_unused_targets(now);
    }
}

/// How often the idle connections of the fast path are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Closes connections to servers that have been idle for too long, and those that their servers have closed.
async fn close_idle_connections(app: Arc<AppState>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let runtime = app.current.load_full();
        let servers = runtime.pools.iter().flat_map(|pool| &pool.pool.servers);
        servers.for_each(|server| server.live.idle.sweep(Instant::now().into_std()));
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::build::{BuildContext, build};
    use super::super::startup::build_state;
    use super::*;
    use crate::config::{Config, ProcessEnvironment};

    /// A pool of so many servers, named after the generation, with a route of its own.
    fn config(generation: usize, servers: usize) -> Config {
        let server = |n| format!("{{ name: s{generation}-{n}, address: '127.0.0.1:1' }}");
        let servers: Vec<_> = (0..servers).map(server).collect();
        let text = format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:8080' }}]\n\
             routes: [{{ name: r{generation}, match: {{ path_prefix: / }}, pool: web }}]\n\
             pools: {{ web: {{ servers: [{}] }} }}\n",
            servers.join(", ")
        );
        Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    fn reload(app: &AppState, config: Config) {
        let previous = app.current.load_full();
        let context = BuildContext {
            table: &app.sessions.table,
            metrics: &app.metrics,
            generated_keys: &app.generated_keys,
            acme: &app.acme.live,
            previous: Some(&previous),
        };
        app.current.store(Arc::new(build(config, &context).unwrap()));
    }

    fn series(app: &AppState) -> usize {
        let text = String::from_utf8(app.render_metrics().unwrap()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[tokio::test(start_paused = true)]
    async fn series_of_removed_servers_vanish_within_five_minutes() {
        let (app, _) = build_state(config(0, 2), &tokio::runtime::Handle::current(), None).unwrap();
        let task = tokio::spawn(remove_series(Arc::clone(&app)));
        let first = series(&app);
        reload(&app, config(1, 2));
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert!(series(&app) > first, "several scrapes have the last counts");
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(series(&app), first);
        task.abort();
    }

    /// In kilobytes.
    #[cfg(target_os = "linux")]
    fn resident_memory() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn a_hundred_reloads_with_other_servers_each_time_leave_no_series_and_no_memory() {
        const ALONE: &str = "HOMING_TEST_ALONE";
        const NAME: &str = "app::background::tests::\
                            a_hundred_reloads_with_other_servers_each_time_leave_no_series_and_no_memory";
        const SERVERS: usize = 10;
        // In a process without other tests, which use memory too.
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            let output = alone.args([NAME, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let (app, _) = build_state(config(0, SERVERS), &tokio::runtime::Handle::current(), None).unwrap();
        let task = tokio::spawn(remove_series(Arc::clone(&app)));
        let (mut after_ten, first) = (0, series(&app));
        for generation in 1..=110 {
            reload(&app, config(generation, SERVERS));
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert_eq!(series(&app), first, "after reload {generation}");
            if generation == 10 {
                after_ten = resident_memory();
            }
        }
        task.abort();
        let grown = resident_memory().saturating_sub(after_ten);
        assert!(grown < 4 * 1024, "{grown} KiB more than after ten reloads, {after_ten} KiB");
    }
}
