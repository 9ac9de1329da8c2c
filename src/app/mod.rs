//! From a checked configuration to a running process, and back: state → background → listeners → run → drain.

mod background;
pub mod build;
pub mod changes;
mod listeners;
mod reload;
pub mod runtime;
mod server_tasks;
mod shared_store;
mod signals;
mod snapshot_task;
pub mod state;
mod table_file;
mod tls;
mod watched_files;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use rand::RngCore;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::admin::Readiness;
use crate::app::build::{Materials, build};
use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::{self, Config, Loaded};
use crate::persistence::Sessions;
use crate::proxy::context::wall_clock;
use crate::session::token::keyring::Keyring;
use crate::store::engine::Event;
use crate::store::local::data::{self, SessionData};
use crate::store::local::first_requests::FirstRequests;
use crate::store::local::table::Table;
use crate::store::shared::StoreContext;
use crate::telemetry::access_log::{AccessLog, Target};
use crate::telemetry::metrics::Metrics;

use self::background::Background;
use self::signals::Stop;
use self::snapshot_task::Keeper;

/// Why a process did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something of the system was refused: a port, a file, a thread.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl RunError {
    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Where the configuration came from.
pub enum Origin {
    /// A file, which is watched and read again on HUP.
    File(PathBuf),
    /// The command line; it stays as it is.
    CommandLine,
}

/// Runs until the process is told to stop. Logging has been started.
///
/// # Errors
/// When the process cannot start.
pub fn run(loaded: Loaded, origin: &Origin) -> Result<(), RunError> {
    for warning in &loaded.warnings {
        tell_warning(warning);
    }
    let config = loaded.config;
    keep_pages_small();
    raise_file_limit();
    let runtime = background::runtime()?;
    let (app, events) = make_parts(config, runtime.handle())?;
    note_panics(&app);
    let config = Arc::clone(&app.current.load().config);
    let _pid_file = PidFile::write(config.proxy.pid_file.as_deref())?;

    let readiness = Arc::new(Readiness { started: AtomicBool::new(false), app: Arc::clone(&app) });
    let stop = signals::StopSwitch::default();
    listeners::check_addresses(&config)?;
    listeners::start_doors(&config, &readiness)?;
    let keeper = Arc::new(Keeper::load(Arc::clone(&app)));
    // First verdicts before traffic; then the tasks go on by themselves.
    let background = Background::start(runtime, Arc::clone(&app), events, origin, &stop, &keeper);
    listeners::start_proxy(&config, &app, &stop)?;
    listeners::await_listeners(&config)?;
    readiness.started.store(true, Ordering::Release);
    announce(&config);

    wait_and_drain(&app, &config, &stop);
    background.finish(&app);
    keeper.write_last();
    listeners::remove_sockets(&config);
    if let Some(log) = app.access_log.swap(None) {
        log.flush();
    }
    tracing::info!("stopped");
    Ok(())
}

/// A warning of the configuration, in the log's form.
fn tell_warning(warning: &config::Warning) {
    tracing::warn!(at = %place(warning), help = warning.help.as_deref(), "{}", warning.message);
}

/// `file:line:column`, as far as known.
fn place(problem: &config::Problem) -> String {
    match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", problem.file),
        _ => problem.file.clone(),
    }
}

fn make_parts(config: Config, runtime: &Handle) -> Result<(Arc<AppState>, Option<UnboundedReceiver<Event>>), RunError> {
    let metrics = Arc::new(Metrics::new().map_err(RunError::internal)?);
    let ended = Arc::clone(&metrics);
    let on_end = Box::new(move |place: &crate::store::targets::Target, reason: crate::store::EndReason| {
        ended.session_ended(place.pool(), reason as usize);
    });
    let table = Arc::new(Table::new(config.store.max_sessions, wall_clock(), on_end));
    let evicted = Arc::clone(&metrics);
    let on_evicted = Box::new(move |place: &crate::store::targets::Target| evicted.handoff_evicted(place.pool()));
    let data = Arc::new(SessionData::new(data::MAX_BYTES, wall_clock(), on_evicted));
    let context = StoreContext { table: Arc::clone(&table), data: Arc::clone(&data), metrics: Arc::clone(&metrics) };
    let shared = config.store.remote.as_ref();
    let shared = shared.map(|remote| shared_store::start(remote, &config.proxy, context, runtime)).transpose()?;
    let (shared, events) = shared.map(|shared| (shared.store, shared.events)).unzip();
    let mut secret = [0; 32];
    rand::thread_rng().fill_bytes(&mut secret);
    let made_keys = Keyring::random(secret).map_err(RunError::internal)?;
    let access_log = open_access_log(&config.log.access)?;
    let materials = Materials { table: &table, metrics: &metrics, made_keys: &made_keys, former: None };
    let snapshot = build(config, &materials).map_err(RunError::internal)?;
    set_limits(&table, &snapshot);
    metrics.config_accepted(&snapshot.config.hash, true);
    tell_certificates(&metrics, &snapshot.config);
    let app = Arc::new(AppState {
        current: ArcSwap::from_pointee(snapshot),
        sessions: Sessions { table, data, shared, first_requests: FirstRequests::new() },
        metrics,
        access_log: ArcSwapOption::from_pointee(access_log),
        made_keys,
        draining: AtomicBool::new(false),
        in_flight: AtomicUsize::new(0),
    });
    Ok((app, events))
}

/// Tells the metrics when certificates expire.
fn tell_certificates(metrics: &Metrics, config: &Config) {
    let certificates = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let certificates = certificates.flat_map(|tls| &tls.certificates);
    metrics.certificates(certificates.map(|one| (one.name(), one.not_after)));
}

/// Tells the table how long sessions live.
fn set_limits(table: &Table, snapshot: &Runtime) {
    for plan in &snapshot.pools {
        if let Some(persistence) = &plan.persistence {
            table.set_limits(&plan.pool.name, persistence.limits.idle, persistence.limits.absolute);
        }
    }
}

fn open_access_log(target: &config::AccessLog) -> Result<Option<AccessLog>, RunError> {
    let target = match target {
        config::AccessLog::None => return Ok(None),
        config::AccessLog::Stdout => Target::Stdout,
        config::AccessLog::File(path) => Target::File(path.clone()),
    };
    let what = match &target {
        Target::Stdout => "log.access: standard output".to_owned(),
        Target::File(path) => format!("log.access: {}", path.display()),
    };
    AccessLog::start(target).map(Some).map_err(RunError::system(what))
}

/// The table's shards are a little over a power of two, and the allocator rounds them up. What is rounded up is never
/// touched, so it costs nothing, unless the kernel backs it by huge pages: a fifth more memory for ten million sessions.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages cannot be switched off; sessions take a fifth more memory");
    }
}

/// Two sockets a request: the usual soft limit of 1,024 is soon reached. What the system allows is taken.
fn raise_file_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// A panic ends one request. It is a bug, so it is counted and told with its place.
fn note_panics(app: &Arc<AppState>) {
    let metrics = Arc::clone(&app.metrics);
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(%place, message, "panic: please report this as a bug");
    }));
}

fn announce(config: &Config) {
    let listeners: Vec<String> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %config.proxy.node,
        listeners = %listeners.join(", "),
        admin = config.admin.as_ref().map(|admin| admin.address.to_string()),
        pools = config.pools.len(),
        servers,
        config = %config.hash,
        "homing is ready"
    );
}

/// How long nothing may be under way before a stop is done: a request that was just accepted shows itself within this.
const QUIET: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for a signal; after TERM, until the last request is done or the grace is over.
fn wait_and_drain(app: &AppState, config: &Config, stop: &signals::StopSwitch) {
    stop.wait_for(|stop| stop != Stop::No);
    if stop.now() == Stop::Graceful {
        app.draining.store(true, Ordering::Relaxed);
        stop.close_listeners();
        let grace = config.proxy.shutdown_grace;
        tracing::info!(in_flight = app.in_flight.load(Ordering::Relaxed), ?grace, "stopping: finishing requests");
        let until = Instant::now() + grace;
        let mut quiet_since = Instant::now();
        while Instant::now() < until && stop.now() == Stop::Graceful {
            if app.in_flight.load(Ordering::Relaxed) > 0 {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= QUIET {
                return;
            }
            stop.pause(LOOK_EVERY);
        }
        let left = app.in_flight.load(Ordering::Relaxed);
        if left > 0 {
            tracing::warn!(requests = left, "the grace is over, or a second signal came: requests are cut off");
        }
    }
}

/// The file with the process id, for as long as the process runs.
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(path: Option<&Path>) -> Result<Self, RunError> {
        if let Some(path) = path {
            std::fs::write(path, format!("{}\n", std::process::id()))
                .map_err(RunError::system(format!("proxy.pid_file: {}", path.display())))?;
        }
        Ok(Self(path.map(Path::to_owned)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Already gone is as good as removed.
            let _ = std::fs::remove_file(path);
        }
    }
}
