//! The sessions as a process that starts now would know them, from the snapshot on disk and the shared store, without
//! serving any request: for `homing explain`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;

use crate::config::{AccessLog, Config};
use crate::message::RequestView;
use crate::persistence::{RequestSession, Scope};
use crate::proxy::context::wall_clock;
use crate::session::token::UnixMillis;
use crate::store::disk::{LoadScope, LocalStore};

use super::background;
use super::error::RunError;
use super::runtime::Runtime;
use super::snapshot_task::load_scope;
use super::startup::build_state;
use super::state::AppState;
use super::table_file;

/// How long the shared store may take at least: no request waits for it here.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the snapshot on disk has contributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotSource {
    /// `store.snapshot` is not set.
    NotConfigured,
    /// There is no file yet.
    Missing,
    /// It was loaded, as of this time.
    Loaded(UnixMillis),
    /// It cannot be read.
    Unreadable(String),
}

/// The sessions, to be looked up.
pub struct Inspection {
    app: Arc<AppState>,
    executor: tokio::runtime::Runtime,
    /// What is known from the snapshot.
    pub snapshot: SnapshotSource,
}

impl Inspection {
    /// Reads the snapshot, without locking it, and connects to the shared store. Writes nothing.
    ///
    /// # Errors
    /// When the configuration cannot be built.
    pub fn start(mut config: Config) -> Result<Self, RunError> {
        config.log.access = AccessLog::None;
        if let Some(remote) = &mut config.store.remote {
            remote.timeout = remote.timeout.max(PATIENCE);
        }
        let executor = background::executor()?;
        let (app, _) = build_state(config, executor.handle(), None)?;
        let snapshot = load_snapshot(&app);
        Ok(Self { app, executor, snapshot })
    }

    /// The configuration, built.
    pub fn runtime(&self) -> Arc<Runtime> {
        self.app.current.load_full()
    }

    /// What a request of this client finds in a pool. No session is begun, moved or ended.
    pub fn resolve(&self, pool: usize, request: RequestView<'_>, client: Option<IpAddr>) -> RequestSession {
        let runtime = self.runtime();
        let scope = Scope {
            pools: &runtime.pools,
            route: None,
            request,
            client,
            secure: false,
            peer_trusted: false,
            forwarded_host: None,
            certificate: None,
            now: wall_clock(),
            random: |bytes| rand::thread_rng().fill_bytes(bytes),
        };
        let mut state = RequestSession::default();
        state.pool = Some(pool);
        // A refusal says that the store does not answer; then nothing is known.
        let _ = self.executor.block_on(self.app.sessions.resolve(&scope, &mut state));
        state
    }
}

fn load_snapshot(app: &AppState) -> SnapshotSource {
    let runtime = app.current.load();
    let Some(settings) = &runtime.config.store.snapshot else { return SnapshotSource::NotConfigured };
    let scope = |name: &str| {
        let pool = runtime.pools.iter().find(|pool| &*pool.pool.name == name);
        pool.map_or(LoadScope::Skip, |pool| load_scope(pool.persistence.as_ref()))
    };
    let store = LocalStore { table: &app.sessions.table, data: &app.sessions.data };
    match table_file::load(&settings.path, store, wall_clock(), &scope) {
        Ok(Some(loaded)) => SnapshotSource::Loaded(loaded.taken_at),
        Ok(None) => SnapshotSource::Missing,
        Err(error) => SnapshotSource::Unreadable(error.to_string()),
    }
}
