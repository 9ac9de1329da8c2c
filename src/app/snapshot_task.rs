//! Keeps the table and session data over restarts (`store.snapshot`): loads them before clients come, writes them at their
//! interval and when the process stops. Whatever goes wrong with that is told, once, and no reason not to serve.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::app::state::AppState;
use crate::config::TableSnapshot;
use crate::persistence::PoolPersistence;
use crate::proxy::context::wall_clock;
use crate::store::disk::{LoadResult, LoadScope, LocalStore, ReadError, SessionCounts};

use super::table_file::{self, FileError, TableFile};

/// The table's file, as the configuration of the moment says.
pub(super) struct Keeper {
    app: Arc<AppState>,
    /// Locked for as long as a write takes, so that the last one at a stop waits for the one under way. Never by a request.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The file that this process writes. None while it could not be had, and while there is none to be written.
    file: Option<TableFile>,
    /// What is wrong, as the log was told: it need not be told again at every interval.
    told: Option<String>,
}

impl Keeper {
    /// Reads the file into the memory that nobody uses yet.
    pub(super) fn load(app: Arc<AppState>) -> Self {
        let keeper = Self { app, state: Mutex::default() };
        if let Some(TableSnapshot { path, .. }) = keeper.settings() {
            let mut state = keeper.state.lock();
            match TableFile::hold(&path) {
                Ok(file) => state.file = Some(file),
                Err(error) => state.tell_unwritten(&path, &error),
            }
            let start = Instant::now();
            let snapshot = keeper.app.current.load();
            let pools = snapshot.pools.iter().map(|plan| (&*plan.pool.name, wanted(plan.persistence.as_ref())));
            let pools: HashMap<&str, LoadScope> = pools.collect();
            let wanted = |pool: &str| pools.get(pool).copied().unwrap_or(LoadScope::Skip);
            match table_file::load(&path, keeper.memory(), wall_clock(), &wanted) {
                Ok(Some(loaded)) => tell_loaded(&path, &loaded, start.elapsed()),
                Ok(None) => tracing::info!(path = %path.display(), "there is no snapshot of the sessions yet"),
                Err(error) => state.tell_unread(&path, &error),
            }
        }
        keeper
    }

    /// Writes the table at its interval, for as long as the process runs.
    pub(super) async fn run(self: Arc<Self>) {
        let mut written = (self.settings().map(|settings| settings.path), Instant::now());
        loop {
            let settings = self.settings();
            let left = settings.as_ref().map(|settings| settings.interval.saturating_sub(written.1.elapsed()));
            // A reload may change it meanwhile.
            tokio::time::sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)).await;
            let Some(settings) = self.settings() else {
                self.state.lock().file = None;
                written.0 = None;
                continue;
            };
            if written.1.elapsed() >= settings.interval || written.0.as_ref() != Some(&settings.path) {
                let keeper = Arc::clone(&self);
                let _ = tokio::task::spawn_blocking(move || keeper.write()).await;
                written = (Some(settings.path), Instant::now());
            }
        }
    }

    /// Writes the table once more: nobody changes it now.
    pub(super) fn write_last(&self) {
        let start = Instant::now();
        if let Some(SessionCounts { sessions, data }) = self.write() {
            tracing::info!(sessions, data, took = ?start.elapsed(), "the sessions were written to disk");
        }
    }

    /// Writes all now, if it is to be written. Returns how much; `None` = it was not.
    fn write(&self) -> Option<SessionCounts> {
        let TableSnapshot { path, .. } = self.settings()?;
        let mut state = self.state.lock();
        let (start, now) = (Instant::now(), wall_clock());
        let metrics = &self.app.metrics.table_snapshot;
        match state.file_at(&path).and_then(|file| file.write(self.memory(), now)) {
            Ok(written) => {
                metrics.succeeded(written.sessions, start.elapsed(), Duration::from_millis(now.0));
                if state.told.take().is_some() {
                    tracing::info!(path = %path.display(), "the sessions are written to disk again");
                }
                Some(written)
            }
            Err(error) => {
                metrics.failed();
                state.tell_unwritten(&path, &error);
                None
            }
        }
    }

    fn memory(&self) -> LocalStore<'_> {
        LocalStore { table: &self.app.sessions.table, data: &self.app.sessions.data }
    }

    fn settings(&self) -> Option<TableSnapshot> {
        self.app.current.load().config.store.snapshot.clone()
    }
}

/// What a pool wants of a snapshot.
fn wanted(persistence: Option<&PoolPersistence>) -> LoadScope {
    match persistence.map(|persistence| &persistence.handoff) {
        None => LoadScope::Skip,
        Some(None) => LoadScope::Sessions,
        Some(Some(_)) => LoadScope::SessionsAndData,
    }
}

/// How long a reload may wait to be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl State {
    /// The file of that path; another one is let go of.
    fn file_at(&mut self, path: &Path) -> Result<&TableFile, FileError> {
        let held = self.file.take().filter(|file| file.path() == path);
        let file = held.map_or_else(|| TableFile::hold(path), Ok)?;
        Ok(self.file.insert(file))
    }

    fn tell_unwritten(&mut self, path: &Path, error: &FileError) {
        let why = error.to_string();
        if self.told.as_ref() != Some(&why) {
            tracing::error!(path = %path.display(), why, "the sessions cannot be written to disk; requests go on");
            self.told = Some(why);
        }
    }

    fn tell_unread(&mut self, path: &Path, error: &FileError) {
        let shown = path.display();
        if let (FileError::Unread(ReadError::Corrupt { .. } | ReadError::Io(_)), Some(file)) = (error, &self.file) {
            let aside = file.set_aside().map_or_else(|error| error.to_string(), |aside| aside.display().to_string());
            tracing::error!(path = %shown, why = %error, %aside, "the snapshot of the sessions was skipped, all of it");
        } else {
            tracing::error!(path = %shown, why = %error, "the snapshot of the sessions was skipped and left as it is");
            // The next write will find the same.
            self.told = Some(error.to_string());
        }
    }
}

fn tell_loaded(path: &Path, loaded: &LoadResult, took: Duration) {
    let age = Duration::from_millis(wall_clock().0.saturating_sub(loaded.taken_at.0));
    let LoadResult { loaded: SessionCounts { sessions, data }, skipped, .. } = loaded;
    let (path, left_out, data_left_out) = (path.display(), skipped.sessions, skipped.data);
    tracing::info!(%path, sessions, left_out, data, data_left_out, ?age, ?took, "the sessions were read from disk");
}
