//! The life of the process, in order: state, background, listeners, requests, drain, last writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::admin::Readiness;
use crate::config::Loaded;

use super::background::{self, Background};
use super::discovery::discover_all;
use super::error::RunError;
use super::process::{PidFile, count_panics, disable_huge_pages, hide_memory, keep_descriptors_back, raise_file_limit};
use super::shutdown::wait_and_drain;
use super::signals::StopSwitch;
use super::snapshot_task::SnapshotTask;
use super::startup::build_state;
use super::{listeners, log_lines};

/// Where the configuration came from.
pub enum Origin {
    /// A file, which is watched, and read again on HUP.
    File(PathBuf),
    /// The command line, which cannot change.
    CommandLine,
}

/// Runs until a signal stops the process. Logging has been started.
///
/// # Errors
/// When the process cannot start.
pub fn run(loaded: Loaded, origin: Origin) -> Result<(), RunError> {
    loaded.warnings.iter().for_each(log_lines::warn);
    disable_huge_pages();
    hide_memory();
    raise_file_limit();
    let executor = background::executor()?;
    let mut config = loaded.config;
    executor.block_on(discover_all(&mut config));
    let (app, events) = build_state(config, executor.handle())?;
    count_panics(Arc::clone(&app.metrics));
    let config = Arc::clone(&app.current.load().config);
    let _pid_file = PidFile::write(config.proxy.pid_file.as_deref())?;

    let readiness = Arc::new(Readiness { started: AtomicBool::new(false), app: Arc::clone(&app) });
    let stop = StopSwitch::default();
    listeners::check_addresses(&config)?;
    listeners::start_admin(&config, &readiness)?;
    let snapshots = Arc::new(SnapshotTask::load(Arc::clone(&app)));
    // Every server is checked once before the first request.
    let file = match origin {
        Origin::File(path) => Some(path),
        Origin::CommandLine => None,
    };
    let background = Background::start(executor, Arc::clone(&app), events, file, &stop, &snapshots);
    listeners::start_proxy(&config, &app, &stop)?;
    listeners::await_listeners(&config, &app.metrics)?;
    keep_descriptors_back();
    readiness.started.store(true, Ordering::Release);
    log_lines::ready(&config);

    wait_and_drain(&app, &config, &stop);
    background.finish(&app);
    snapshots.write_last();
    listeners::remove_sockets(&config);
    if let Some(log) = app.access_log.swap(None) {
        log.flush();
    }
    tracing::info!("stopped");
    Ok(())
}
