//! The life of the process, in order: state, background, listeners, requests, drain, last writes. A process that takes over
//! from another one gets listeners and sessions from it ([`upgrade`](super::upgrade)), and the rest is the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::admin::Readiness;
use crate::config::{Config, LoadedConfig};
use crate::proxy::context::wall_clock;

use super::background::{self, Background};
use super::discovery::discover_all;
use super::error::RunError;
use super::overrides::Overrides;
use super::process::{PidFile, count_panics, disable_huge_pages, hide_memory, keep_descriptors_back, raise_file_limit};
use super::shutdown::wait_and_drain;
use super::signals::StopSwitch;
use super::snapshot_task::SnapshotTask;
use super::sockets::Sockets;
use super::startup::build_state;
use super::state::AppState;
use super::upgrade::handover::Handover;
use super::upgrade::program::Program;
use super::upgrade::takeover::{Inheritance, Predecessor};
use super::{listeners, log_lines, systemd};

/// Where the configuration came from.
pub enum Origin {
    /// A file, which is watched, and read again on HUP.
    File(PathBuf),
    /// The command line, which cannot change.
    CommandLine,
}

impl Origin {
    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::CommandLine => None,
        }
    }
}

/// Runs until a signal stops the process, or until another process has taken over. Logging has been started. With `upgrade`
/// this process takes over from another one.
///
/// # Errors
/// When the process cannot start.
pub fn run(loaded: LoadedConfig, origin: &Origin, upgrade: bool) -> Result<(), RunError> {
    loaded.warnings.iter().for_each(log_lines::warn);
    let config = loaded.into_config();
    disable_huge_pages();
    hide_memory();
    raise_file_limit();
    let program = Program::current(origin.file()).map_err(RunError::system("the path of the program"))?;
    let process = if upgrade {
        let (predecessor, inheritance) = Predecessor::receive(config.proxy.upgrade_socket.as_deref())?;
        let report = predecessor.failure_report();
        take_over(config, origin, program, (predecessor, inheritance)).inspect_err(|error| {
            if let Some(report) = report {
                report.send(error);
            }
        })?
    } else {
        start(config, origin, program)?
    };
    process.run_to_end();
    Ok(())
}

/// A process that serves.
struct Process {
    app: Arc<AppState>,
    config: Arc<Config>,
    stop: StopSwitch,
    background: Background,
    handover: Arc<Handover>,
    _pid_file: PidFile,
}

/// Everything before requests, in a process that listens first.
fn start(mut config: Config, origin: &Origin, program: Program) -> Result<Process, RunError> {
    let executor = background::executor()?;
    executor.block_on(discover_all(&mut config));
    let (app, events) = build_state(config, executor.handle(), None)?;
    count_panics(Arc::clone(&app.metrics));
    let config = Arc::clone(&app.current.load().config);
    let pid_file = PidFile::write(config.proxy.pid_file.as_deref())?;
    let readiness = Arc::new(Readiness { started: AtomicBool::new(false), app: Arc::clone(&app) });
    let (stop, sockets) = (StopSwitch::default(), Sockets::activated(&config)?);
    listeners::open_sockets(&config, &sockets)?;
    listeners::start_admin(&config, &readiness, &stop, &sockets)?;
    let snapshots = Arc::new(SnapshotTask::load(Arc::clone(&app)));
    // Every server is checked once before the first request.
    let background = Background::start(executor, Arc::clone(&app), events, origin.file(), &stop, &snapshots);
    listeners::start_proxy(&config, &app, &stop, &sockets)?;
    listeners::await_listeners(&config, &app.metrics)?;
    let (predecessor, successor) = (Mutex::new(None), Mutex::new(None));
    let handover = Handover { app, stop, snapshots, sockets, program, predecessor, successor };
    Ok(Process::serving(config, &readiness, background, handover, pid_file))
}

/// The same in a process that takes over. It accepts nothing before all that can fail is done, and the old process serves on
/// when it fails.
fn take_over(
    mut config: Config,
    origin: &Origin,
    program: Program,
    (predecessor, inherited): (Predecessor, Inheritance),
) -> Result<Process, RunError> {
    let executor = background::executor()?;
    executor.block_on(discover_all(&mut config));
    let (app, events) = build_state(config, executor.handle(), Some(predecessor.generated_secret))?;
    count_panics(Arc::clone(&app.metrics));
    let config = Arc::clone(&app.current.load().config);
    // When the admin listeners open, this process is ready.
    let readiness = Arc::new(Readiness { started: AtomicBool::new(true), app: Arc::clone(&app) });
    let stop = StopSwitch::default();
    let (sockets, unclaimed) = Sockets::inherit(inherited.sockets, &config);
    listeners::open_sockets(&config, &sockets)?;
    app.table_restored.store(inherited.table_restored, Ordering::Relaxed);
    let _ = app.table_age_before.set(inherited.table_age);
    Overrides::inherit(&app.current.load(), inherited.overrides, wall_clock());
    let sessions = SnapshotTask::inherit(Arc::clone(&app), inherited.sessions);
    let snapshots = Arc::new(sessions.map_err(|error| RunError::Internal(format!("the sessions: {error}")))?);
    let background = Background::start(executor, Arc::clone(&app), events, origin.file(), &stop, &snapshots);
    let takeover = predecessor.await_go(&app)?;
    listeners::start_admin(&config, &readiness, &stop, &sockets)?;
    listeners::start_proxy(&config, &app, &stop, &sockets)?;
    listeners::await_listeners(&config, &app.metrics)?;
    let (predecessor, successor) = (Mutex::new(Some(takeover.complete()?)), Mutex::new(None));
    listeners::remove_socket_files(&unclaimed);
    let pid_file = PidFile::write(config.proxy.pid_file.as_deref())?;
    let handover = Handover { app, stop, snapshots, sockets, program, predecessor, successor };
    Ok(Process::serving(config, &readiness, background, handover, pid_file))
}

impl Process {
    fn serving(
        config: Arc<Config>,
        readiness: &Readiness,
        background: Background,
        handover: Handover,
        pid_file: PidFile,
    ) -> Self {
        keep_descriptors_back();
        let (app, stop) = (Arc::clone(&handover.app), handover.stop.clone());
        let handover = Arc::new(handover);
        background.run_upgrades(&handover);
        background.run_acme(&app);
        readiness.started.store(true, Ordering::Release);
        log_lines::ready(&config);
        systemd::ready();
        Self { app, config, stop, background, handover, _pid_file: pid_file }
    }

    /// Until the process has stopped.
    fn run_to_end(self) {
        wait_and_drain(&self.app, &self.config, &self.stop, || self.handover.is_predecessor_gone());
        self.background.finish(&self.app);
        self.handover.finish();
        if !self.stop.is_handed_over() {
            self.handover.snapshots.write_last();
            listeners::remove_sockets(&self.config);
        }
        if let Some(log) = self.app.access_log.swap(None) {
            log.flush();
        }
        tracing::info!("stopped");
    }
}
