//! Reloads: read, check and build the whole next version, then swap. A file with a problem changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::config::{Config, Server};
use crate::persistence::PoolRuntime;
use crate::proxy::context::wall_clock;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::events::{self, EventKind, cause};
use crate::telemetry::log;
use crate::telemetry::metrics::SeriesHold;
use crate::telemetry::trace::SpanExporter;

use super::acme;
use super::apply::{open_access_log, set_limits};
use super::build::{BuildContext, build};
use super::certificates::report_certificates;
use super::changes::{Change, changes, keep_restart_only};
use super::discovery::{Discoveries, forget_sessions};
use super::drains;
use super::log_lines;
use super::low_priority;
use super::overrides::record_changes;
use super::reload_trigger::{ReloadReport, ReloadTrigger};
use super::removed_servers::{keep_draining, without_drained};
use super::runtime::Runtime;
use super::server_tasks::{ServerTasks, check_new_servers};
use super::span_exporter;
use super::state::AppState;
use super::systemd;
use super::watched_files::{FileContents, FileWatcher};

/// Most changes that the log has a line for, each, and that an event names: a reload may change thousands of servers.
const MOST_LOGGED: usize = 100;
const MOST_IN_EVENT: usize = 10;
/// The name of the thread that reads, checks and builds.
const THREAD: &str = "reload";

/// Runs reloads, one after the other.
pub(super) struct Reloader {
    app: Arc<AppState>,
    /// `None` without a configuration file.
    file: Option<PathBuf>,
    tasks: ServerTasks,
    discoveries: Discoveries,
    watcher: Option<FileWatcher>,
    /// What the watched files held when they were read last.
    read: Option<FileContents>,
}

impl Reloader {
    pub(super) fn new(
        app: Arc<AppState>,
        file: Option<PathBuf>,
        tasks: ServerTasks,
        discoveries: Discoveries,
        watcher: Option<FileWatcher>,
    ) -> Self {
        let read = watcher.as_ref().map(FileWatcher::contents);
        Self { app, file, tasks, discoveries, watcher, read }
    }

    pub(super) async fn run(mut self, mut triggers: Receiver<ReloadTrigger>) {
        while let Some(trigger) = triggers.recv().await {
            // A process that stops needs no other configuration, and one that has handed over must not write files.
            if self.app.is_draining() {
                continue;
            }
            let trigger = match trigger {
                ReloadTrigger::ServerDrained => {
                    self.drop_drained().await;
                    continue;
                }
                ReloadTrigger::Discovered { pool, servers } => {
                    self.take_discovered(&pool, servers).await;
                    continue;
                }
                trigger => trigger,
            };
            let who = trigger.who().to_owned();
            systemd::reloading();
            let result = self.reload(matches!(trigger, ReloadTrigger::FileChanged)).await;
            systemd::reloaded();
            let report = match result {
                // The file is as it was.
                Ok(None) => continue,
                Ok(Some(changes)) => self.report(who, changes, Vec::new()),
                Err(problems) => self.report(who, Vec::new(), problems),
            };
            if let ReloadTrigger::Operator { reply, .. } = trigger {
                // The operator may have left.
                drop(reply.send(report));
            }
        }
    }

    /// Returns what has changed, or why nothing did. `only_changes`: a file without changes is not worth a reload.
    async fn reload(&mut self, only_changes: bool) -> Result<Option<Vec<String>>, Vec<String>> {
        let Some(file) = self.file.clone() else {
            tracing::warn!("started without a file, so there is nothing to reload");
            return Err(vec!["the proxy was started without a file, so there is nothing to reload".to_owned()]);
        };
        // Before it is read: what changes meanwhile is another change.
        let contents = self.watcher.as_ref().map(FileWatcher::contents);
        if only_changes && contents.is_some() && contents == self.read {
            return Ok(None);
        }
        self.read = contents;
        let Some(loaded) = low_priority::run(THREAD, move || Config::load(&file)).await else {
            self.reject(PANICKED);
            return Err(vec![PANICKED.to_owned()]);
        };
        match loaded {
            Ok(loaded) => {
                loaded.warnings.iter().for_each(log_lines::warn);
                self.apply(loaded.config, only_changes).await.map_err(|why| vec![why])
            }
            Err(problems) => {
                problems.iter().for_each(log_lines::error);
                self.reject("the file has problems");
                Err(problems.iter().map(ToString::to_string).collect())
            }
        }
    }

    fn reject(&self, why: &str) {
        self.app.metrics.config_refused();
        tracing::error!(why, "reload rejected; the previous configuration stays in effect");
    }

    /// Remembers the result, for operators who ask later.
    fn report(&self, who: String, changes: Vec<String>, problems: Vec<String>) -> Arc<ReloadReport> {
        let (result, reason) = match (problems.first(), changes.as_slice()) {
            (Some(problem), _) => ("refused", problem.lines().next().unwrap_or_default().to_owned()),
            (None, []) => ("done", "no changes".to_owned()),
            (None, changes) => ("done", shortened(changes)),
        };
        let mut change = events::Change::new(EventKind::Reload).reason(&reason).who(&who);
        change.to = Some(result.into());
        events::record(change);
        let report = Arc::new(ReloadReport { at: wall_clock(), who, changes, problems });
        self.app.last_reload.store(Some(Arc::clone(&report)));
        report
    }

    async fn apply(&mut self, mut new: Config, only_changes: bool) -> Result<Option<Vec<String>>, String> {
        let previous = self.app.current.load_full();
        Discoveries::fill(&mut new, &previous.config).await;
        let before = Arc::clone(&previous.config);
        let compared =
            low_priority::run(THREAD, move || (changes(&before, &new), keep_restart_only(&before, new))).await;
        let Some((changes, new)) = compared else {
            self.reject(PANICKED);
            return Err(PANICKED.to_owned());
        };
        if changes.is_empty() && only_changes && self.app.metrics.last_reload_succeeded() {
            return Ok(None);
        }
        log(&changes);
        let new = keep_draining(new, &previous, &self.app.table_history(), wall_clock());
        match self.prepare(new, &previous).await {
            Ok(update) => {
                self.publish(update, previous, cause::FILE).await;
                let hash = &self.app.current.load().config.hash;
                self.app.metrics.config_accepted(hash, false);
                tracing::info!(config = %hash, "reload done");
            }
            Err(why) => {
                self.reject(&why);
                return Err(why);
            }
        }
        Ok(Some(changes.iter().map(ToString::to_string).collect()))
    }

    /// Puts the servers of a discovered pool into force.
    async fn take_discovered(&mut self, pool: &str, found: Vec<Server>) {
        let (previous, now) = (self.app.current.load_full(), wall_clock());
        let mut config = (*previous.config).clone();
        let Some(of_pool) = config.pools.iter_mut().find(|one| one.name == pool && one.discovery.is_some()) else {
            return;
        };
        let servers = self.discoveries.with_times(of_pool, found, now);
        of_pool.servers.clone_from(&servers);
        log(&changes(&previous.config, &config));
        let config = keep_draining(config, &previous, &self.app.table_history(), now);
        match self.prepare(config, &previous).await {
            Ok(update) => {
                forget_sessions(&self.app.sessions.table, pool, &servers, now);
                self.publish(update, previous, cause::DISCOVERY).await;
            }
            Err(why) => tracing::error!(pool, why, "discovered servers cannot be put into force"),
        }
    }

    /// Takes the servers away that the file no longer has and that have drained.
    async fn drop_drained(&mut self) {
        let previous = self.app.current.load_full();
        let Some(config) = without_drained(&previous, &self.app.table_history(), wall_clock()) else { return };
        match self.prepare(config, &previous).await {
            Ok(update) => self.publish(update, previous, cause::FILE).await,
            Err(why) => tracing::error!(why, "a server that has drained cannot be taken away"),
        }
    }

    /// Everything that may fail, before anything changes.
    async fn prepare(&self, config: Config, previous: &Arc<Runtime>) -> Result<Update, String> {
        let access_log = if config.log.access == previous.config.log.access {
            AccessLogChange::Keep
        } else {
            AccessLogChange::Replace(open_access_log(&config.log.access).map_err(|error| error.to_string())?)
        };
        let (otlp, node) = (&config.tracing.otlp, &config.proxy.node);
        let span_exporter = if *otlp == previous.config.tracing.otlp {
            SpanExporterChange::Keep
        } else {
            let started = span_exporter::start(otlp.as_ref(), node, &self.app.metrics, &Handle::current());
            SpanExporterChange::Replace(started.map_err(|error| error.to_string())?)
        };
        let (app, previous) = (Arc::clone(&self.app), Arc::clone(previous));
        let series = app.metrics.hold_series();
        let built = low_priority::run(THREAD, move || build_next(config, &app, &previous)).await;
        let runtime = built.ok_or_else(|| PANICKED.to_owned())??;
        // New servers are checked before their first request.
        check_new_servers(&runtime).await;
        Ok(Update { runtime, access_log, span_exporter, series })
    }

    /// `who` caused what changes of servers' states and weights.
    async fn publish(&mut self, update: Update, previous: Arc<Runtime>, who: &str) {
        let app = &self.app;
        let runtime = Arc::new(update.runtime);
        set_limits(&app.sessions.table, &runtime);
        drains::observe(&runtime, wall_clock());
        acme::worker::load(app, &runtime.config);
        app.current.store(Arc::clone(&runtime));
        drop(update.series);
        let now = Instant::now().into_std();
        let has_unused = app.metrics.note_in_use(&runtime.in_use(), now);
        app.acme.wake.notify_one();
        runtime.pools.iter().for_each(|pool| pool.pool.take_effect());
        record_changes(&previous, &runtime, who);
        drop_handoff_data(app, &previous, &runtime);
        self.tasks.update(&runtime);
        self.discoveries.update(&previous.config, &runtime.config, wall_clock());
        if let Some(watcher) = &mut self.watcher {
            watcher.update(&runtime.config);
        }
        report_certificates(&app.metrics, &app.acme.live, Some(&previous.config), &runtime.config);
        if let AccessLogChange::Replace(access_log) = update.access_log {
            let replaced = app.access_log.swap(access_log.map(Arc::new));
            // Dropping it writes its last lines, perhaps to a slow disk: not on the thread that checks servers.
            tokio::task::spawn_blocking(move || drop(replaced));
        }
        if let SpanExporterChange::Replace(span_exporter) = update.span_exporter {
            // The one before ends when it has sent what is in its queue.
            app.span_exporter.store(span_exporter.map(Arc::new));
        }
        log::set_level(runtime.config.log.level.into());
        if runtime.config.store.max_sessions != previous.config.store.max_sessions {
            let (table, capacity) = (Arc::clone(&app.sessions.table), runtime.config.store.max_sessions);
            // May evict many sessions: not on the thread that checks servers.
            let _ = tokio::task::spawn_blocking(move || table.set_capacity(capacity)).await;
        }
        let (of_app, current) = (Arc::clone(app), Arc::clone(&runtime));
        let _ = tokio::task::spawn_blocking(move || of_app.overrides.update_file(&current)).await;
        tokio::spawn(free(previous));
        // After the configuration has taken effect, so as not to delay it.
        tokio::spawn(low_priority::run(THREAD, {
            let app = Arc::clone(app);
            move || {
                runtime.pools.iter().for_each(|pool| pool.pool.prepare());
                if has_unused {
                    // The next reload may follow soon, and memory grow with each.
                    app.metrics.remove_unused(now);
                }
            }
        }));
    }
}

/// Why nothing was reloaded when the program has a bug.
const PANICKED: &str = "a panic, see the log";

fn build_next(config: Config, app: &AppState, previous: &Runtime) -> Result<Runtime, String> {
    let context = BuildContext {
        table: &app.sessions.table,
        metrics: &app.metrics,
        generated_keys: &app.generated_keys,
        acme: &app.acme.live,
        previous: Some(previous),
    };
    build(config, &context).map_err(|error| error.to_string())
}

/// Frees a runtime when the last request that began with it has ended, but for what streams keep: with thousands of routes that
/// takes milliseconds, which no request should wait for.
async fn free(runtime: Arc<Runtime>) {
    until_unused(&runtime).await;
    let of_streams = runtime.streams();
    low_priority::run(THREAD, move || drop(runtime)).await;
    // Each is freed when the last stream of its pool ends.
    join_all(of_streams.into_iter().map(|of_stream| async move { until_unused(&of_stream).await })).await;
}

/// Waits until all requests of a runtime have ended. Until then it closes idle connections to its servers.
async fn until_unused(runtime: &Arc<Runtime>) {
    let began = Instant::now();
    let (mut pause, mut is_retired) = (FIRST_LOOK, false);
    while Arc::strong_count(runtime) > 1 {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_INTERVAL);
        // Servers that are gone are in no other runtime.
        let servers = runtime.pools.iter().flat_map(|pool| &pool.pool.servers);
        servers.for_each(|server| server.live.idle.sweep(Instant::now().into_std()));
        if !is_retired && began.elapsed() >= RETIREMENT {
            is_retired = true;
            // What is left are WebSockets and long responses.
            runtime.pools.iter().for_each(|pool| pool.pool.retire());
        }
    }
}

/// How often the number of requests of a former runtime is looked at, at first: most requests have ended soon, and when reloads follow
/// one another, memory should be that of few configurations.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// The same later on.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After this time a former runtime keeps what is small only.
const RETIREMENT: Duration = Duration::from_secs(10);

fn log(changes: &[Change]) {
    for change in changes.iter().take(MOST_LOGGED) {
        if matches!(change, Change::NeedsRestart(_)) {
            tracing::warn!("{change}");
        } else {
            tracing::info!("{change}");
        }
    }
    if let Some(more) = changes.len().checked_sub(MOST_LOGGED).filter(|more| *more > 0) {
        tracing::info!("and {more} more changes");
    }
}

/// The changes for the event list, which keeps a thousand events.
fn shortened(changes: &[String]) -> String {
    let shown = changes.iter().take(MOST_IN_EVENT).map(String::as_str).collect::<Vec<_>>().join("; ");
    match changes.len().checked_sub(MOST_IN_EVENT) {
        Some(more) if more > 0 => format!("{shown}; and {more} more"),
        _ => shown,
    }
}

/// Handoff data of a pool whose handoff is now off is dropped: it would be outdated when handoff is enabled again.
fn drop_handoff_data(app: &AppState, previous: &Runtime, current: &Runtime) {
    let has_handoff = |pool: &&PoolRuntime| pool.persistence.as_ref().is_some_and(|one| one.handoff.is_some());
    for before in previous.pools.iter().filter(has_handoff) {
        if current.pools.iter().filter(has_handoff).all(|pool| pool.pool.name != before.pool.name) {
            app.sessions.data.forget_pool(app.sessions.table.target(&before.pool.name, "").index());
        }
    }
}

/// A runtime that is built and not yet in effect.
struct Update {
    runtime: Runtime,
    access_log: AccessLogChange,
    span_exporter: SpanExporterChange,
    series: SeriesHold,
}

enum SpanExporterChange {
    Keep,
    Replace(Option<SpanExporter>),
}

enum AccessLogChange {
    Keep,
    Replace(Option<AccessLog>),
}
