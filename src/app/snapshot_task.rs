//! Keeps the table and session data over restarts (`store.snapshot`): loads them before the first request, writes them at an
//! interval and when the process stops. An error is logged once and does not keep the proxy from serving.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::TableSnapshot;
use crate::persistence::PoolPersistence;
use crate::proxy::context::wall_clock;
use crate::store::disk::{self, LoadResult, LoadScope, LocalStore, ReadError, SessionCounts};

use super::runtime::Runtime;
use super::state::AppState;
use super::table_file::{self, FileError, TableFile};

/// Reads and writes the file that the current configuration names.
pub(super) struct SnapshotTask {
    app: Arc<AppState>,
    /// Locked for as long as a write takes, so that the last write at a stop waits for the one before it. Never by a request.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The file, locked by this process. `None` when it cannot be locked, and without `store.snapshot`.
    file: Option<TableFile>,
    /// The last error in the log, so that it is not repeated at every interval.
    logged_error: Option<String>,
    /// Another process writes it.
    paused: bool,
}

impl SnapshotTask {
    /// Reads the sessions of the process that this one takes over from. It still has the file.
    pub(super) fn inherit(app: Arc<AppState>, sessions: File) -> Result<Self, ReadError> {
        let task = Self { app, state: Mutex::default() };
        let start = Instant::now();
        let loaded = disk::load(task.local_store(), sessions, wall_clock(), &load_scopes(&task.app.current.load()))?;
        let LoadResult { loaded: SessionCounts { sessions, data }, skipped, .. } = loaded;
        tracing::info!(sessions, data, left_out = skipped.sessions, took = ?start.elapsed(), "the sessions were taken over");
        Ok(task)
    }

    /// Another process writes the file from now on.
    pub(super) fn pause(&self) {
        let mut state = self.state.lock();
        state.paused = true;
        state.file = None;
    }

    /// This process writes it again.
    pub(super) fn resume(&self) {
        self.state.lock().paused = false;
    }

    /// Reads the file into the table and the session data, before anything uses them.
    pub(super) fn load(app: Arc<AppState>) -> Self {
        let task = Self { app, state: Mutex::default() };
        if let Some(TableSnapshot { path, .. }) = task.settings() {
            let mut state = task.state.lock();
            match TableFile::lock(&path) {
                Ok(file) => state.file = Some(file),
                Err(error) => state.log_write_error(&path, &error),
            }
            let start = Instant::now();
            let runtime = task.app.current.load();
            match table_file::load(&path, task.local_store(), wall_clock(), &load_scopes(&runtime)) {
                Ok(Some(loaded)) => task.note_restored(&path, &loaded, start.elapsed()),
                Ok(None) => tracing::info!(path = %path.display(), "no snapshot of the sessions yet"),
                Err(error) => state.log_read_error(&path, &error),
            }
        }
        task
    }

    fn note_restored(&self, path: &Path, loaded: &LoadResult, took: Duration) {
        self.app.table_restored.store(true, Ordering::Relaxed);
        log_loaded(path, loaded, took);
    }

    /// Writes the table at its interval, for as long as the process runs.
    pub(super) async fn run(self: Arc<Self>) {
        let (mut path, mut last_write) = (self.settings().map(|settings| settings.path), Instant::now());
        loop {
            let settings = self.settings();
            let left = settings.as_ref().map(|settings| settings.interval.saturating_sub(last_write.elapsed()));
            // A reload may change the settings meanwhile.
            tokio::time::sleep(left.unwrap_or(SETTINGS_INTERVAL).min(SETTINGS_INTERVAL)).await;
            let Some(settings) = self.settings() else {
                self.state.lock().file = None;
                path = None;
                continue;
            };
            if last_write.elapsed() >= settings.interval || path.as_ref() != Some(&settings.path) {
                let task = Arc::clone(&self);
                let _ = tokio::task::spawn_blocking(move || task.write()).await;
                (path, last_write) = (Some(settings.path), Instant::now());
            }
        }
    }

    /// Writes the table for the last time, when no request can change it any more.
    pub(super) fn write_last(&self) {
        let start = Instant::now();
        if let Some(SessionCounts { sessions, data }) = self.write() {
            tracing::info!(sessions, data, took = ?start.elapsed(), "the sessions were written to disk");
        }
    }

    /// Writes the file now. `None` = there is none, or it could not be written.
    fn write(&self) -> Option<SessionCounts> {
        let TableSnapshot { path, .. } = self.settings()?;
        let mut state = self.state.lock();
        if state.paused {
            return None;
        }
        let (start, now) = (Instant::now(), wall_clock());
        let metrics = &self.app.metrics.table_snapshot;
        match state.file_at(&path).and_then(|file| file.write(self.local_store(), now)) {
            Ok(written) => {
                metrics.succeeded(written.sessions, start.elapsed(), Duration::from_millis(now.0));
                if state.logged_error.take().is_some() {
                    tracing::info!(path = %path.display(), "the sessions are written to disk again");
                }
                Some(written)
            }
            Err(error) => {
                metrics.failed();
                state.log_write_error(&path, &error);
                None
            }
        }
    }

    fn local_store(&self) -> LocalStore<'_> {
        LocalStore { table: &self.app.sessions.table, data: &self.app.sessions.data }
    }

    fn settings(&self) -> Option<TableSnapshot> {
        self.app.current.load().config.store.snapshot.clone()
    }
}

/// What is loaded from a snapshot, by the names of pools.
fn load_scopes(runtime: &Runtime) -> impl Fn(&str) -> LoadScope + use<'_> {
    let pools = runtime.pools.iter().map(|pool| (&*pool.pool.name, load_scope(pool.persistence.as_ref())));
    let pools: HashMap<&str, LoadScope> = pools.collect();
    move |pool| pools.get(pool).copied().unwrap_or(LoadScope::Skip)
}

/// What of a pool is loaded from a snapshot.
pub(super) fn load_scope(persistence: Option<&PoolPersistence>) -> LoadScope {
    match persistence.map(|persistence| &persistence.handoff) {
        None => LoadScope::Skip,
        Some(None) => LoadScope::Sessions,
        Some(Some(_)) => LoadScope::SessionsAndData,
    }
}

/// How soon a change of `store.snapshot` by a reload takes effect.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(1);

impl State {
    /// The file at this path; a file at another path is unlocked.
    fn file_at(&mut self, path: &Path) -> Result<&TableFile, FileError> {
        let locked = self.file.take().filter(|file| file.path() == path);
        let file = locked.map_or_else(|| TableFile::lock(path), Ok)?;
        Ok(self.file.insert(file))
    }

    fn log_write_error(&mut self, path: &Path, error: &FileError) {
        let why = error.to_string();
        if self.logged_error.as_ref() != Some(&why) {
            tracing::error!(path = %path.display(), why, "the sessions cannot be written to disk; requests go on");
            self.logged_error = Some(why);
        }
    }

    fn log_read_error(&mut self, path: &Path, error: &FileError) {
        let shown = path.display();
        if let (FileError::Read(ReadError::Corrupt { .. } | ReadError::Io(_)), Some(file)) = (error, &self.file) {
            let aside = file.set_aside().map_or_else(|error| error.to_string(), |aside| aside.display().to_string());
            tracing::error!(path = %shown, why = %error, %aside, "the snapshot of the sessions was skipped, all of it");
        } else {
            tracing::error!(path = %shown, why = %error, "the snapshot of the sessions was skipped and left as it is");
            // The next write fails for the same reason.
            self.logged_error = Some(error.to_string());
        }
    }
}

fn log_loaded(path: &Path, loaded: &LoadResult, took: Duration) {
    let age = Duration::from_millis(wall_clock().0.saturating_sub(loaded.taken_at.0));
    let LoadResult { loaded: SessionCounts { sessions, data }, skipped, .. } = loaded;
    let (path, left_out, data_left_out) = (path.display(), skipped.sessions, skipped.data);
    tracing::info!(%path, sessions, left_out, data, data_left_out, ?age, ?took, "the sessions were read from disk");
}
