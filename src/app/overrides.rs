//! What operators set for servers at run time: a layer over the configuration that reloads keep, and restarts with
//! `admin.state_file`.
//!
//! The override itself is in the server's live state. Changes go one after the other, and are on the disk before requests
//! see them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::{Config, ServerState};
use crate::persistence::PoolRuntime;
use crate::pool::operator::{Override, Patch};
use crate::pool::server::Server;
use crate::session::token::UnixMillis;
use crate::telemetry::events::{self, Change, EventKind};

use super::atomic_file::FileStepError;
use super::removed_servers;
use super::runtime::Runtime;
use super::state_file::{RemovedServer, SavedOverride, SavedState, StateFile};

/// Why a server's state or weight could not be set.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// No such pool.
    #[error("pool {0:?} does not exist")]
    UnknownPool(String),
    /// The pool has no such server.
    #[error("pool {pool:?} has no server {server:?}")]
    UnknownServer {
        /// The pool.
        pool: String,
        /// The server.
        server: String,
    },
    /// Nothing was changed, because a restart would lose it.
    #[error("admin.state_file {0}")]
    NotWritten(String),
}

/// Changes overrides.
#[derive(Debug, Default)]
pub struct Overrides {
    /// `None` = they end with the process.
    file: Option<StateFile>,
    /// What the file holds. Locked for the whole of a change, so that the file is never older than an earlier change. Never
    /// locked by a request.
    written: Mutex<SavedState>,
}

impl Overrides {
    /// Reads the file, if there is one.
    pub(super) fn load(config: &Config) -> Self {
        let path = config.admin.as_ref().and_then(|admin| admin.state_file.clone());
        let Some(file) = path.map(StateFile::at) else { return Self::default() };
        let saved = file.load();
        Self { file: Some(file), written: Mutex::new(saved) }
    }

    /// The servers that were removed before this process started, and may still drain.
    pub(super) fn removed_servers(&self) -> Vec<RemovedServer> {
        self.written.lock().removed.clone()
    }

    /// Sets what the file held before the first request. What is in it for servers that are gone is dropped.
    pub(super) fn restore(&self, runtime: &Runtime) {
        let saved = self.written.lock().overrides.clone();
        for SavedOverride { pool, server, details } in saved {
            if let Ok(found) = find(runtime, &pool, &server) {
                let (state, weight, by) = (details.state.map(<&str>::from), details.weight, &*details.by);
                tracing::info!(pool, server, state, weight, by, "server's override restored");
                found.live.set_override(Some(details));
            } else {
                tracing::info!(pool, server, "override dropped: the server is not in the configuration");
            }
        }
    }

    /// Sets what was in force in the process that this one takes over from, before the first request.
    pub(super) fn inherit(runtime: &Runtime, saved: Vec<SavedOverride>, now: UnixMillis) {
        for SavedOverride { pool, server, details } in saved {
            if let Ok(found) = find(runtime, &pool, &server) {
                found.live.set_override(Some(details));
                found.observe_drain(now);
            }
        }
    }

    /// Changes what is set for a server. With a state file it is on the disk when this returns, so it may take as long as a
    /// disk does: not for an executor that must not wait. `who` changes it.
    ///
    /// # Errors
    /// When there is no such server, or the change cannot be written: then nothing has changed.
    pub fn patch(
        &self,
        current: &ArcSwap<Runtime>,
        (pool, server): (&str, &str),
        patch: Patch,
        who: &str,
        now: UnixMillis,
    ) -> Result<(), OverrideError> {
        let mut written = self.written.lock();
        let runtime = &*current.load_full();
        let of_pool = find_pool(runtime, pool)?;
        let found = find(runtime, pool, server)?;
        let before = found.live.operator_override();
        let details = patch.apply(before.as_deref(), who, now);
        let all = collect(runtime, |one| {
            if Arc::ptr_eq(&one.live, &found.live) {
                details.clone()
            } else {
                one.live.operator_override().as_deref().cloned()
            }
        });
        let all = SavedState { overrides: all, removed: removed_servers::draining(runtime) };
        self.save(&mut written, all).map_err(|error| OverrideError::NotWritten(error.to_string()))?;
        let (state, weight) = (found.state(), found.weight());
        found.live.set_override(details);
        found.observe_drain(now);
        record_change(&of_pool.pool.name, found, (state, weight), who);
        Ok(())
    }

    /// Takes back what was set for a server.
    ///
    /// # Errors
    /// As [`patch`](Self::patch).
    pub fn clear(
        &self,
        current: &ArcSwap<Runtime>,
        server: (&str, &str),
        who: &str,
        now: UnixMillis,
    ) -> Result<(), OverrideError> {
        self.patch(current, server, Patch::CLEAR, who, now)
    }

    /// Brings the file up to what a start or a reload has left: servers that are gone took their overrides with them, and
    /// others drain although the configuration does not have them any more.
    pub(super) fn update_file(&self, runtime: &Runtime) {
        let mut written = self.written.lock();
        let now = SavedState { overrides: in_force(runtime), removed: removed_servers::draining(runtime) };
        if let Err(error) = self.save(&mut written, now) {
            tracing::warn!(why = %error, "admin.state_file was not written; it does not have the servers that were removed");
        }
    }

    fn save(&self, written: &mut SavedState, now: SavedState) -> Result<(), FileStepError> {
        if let Some(file) = &self.file
            && *written != now
        {
            file.write(&now)?;
            *written = now;
        }
        Ok(())
    }
}

fn find_pool<'a>(runtime: &'a Runtime, pool: &str) -> Result<&'a PoolRuntime, OverrideError> {
    let found = runtime.pools.iter().find(|found| &*found.pool.name == pool);
    found.ok_or_else(|| OverrideError::UnknownPool(pool.to_owned()))
}

fn find<'a>(runtime: &'a Runtime, pool: &str, server: &str) -> Result<&'a Server, OverrideError> {
    let found = find_pool(runtime, pool)?;
    let unknown = || OverrideError::UnknownServer { pool: pool.to_owned(), server: server.to_owned() };
    found.pool.server_named(server).ok_or_else(unknown)
}

/// What is set for each server now.
pub(super) fn in_force(runtime: &Runtime) -> Vec<SavedOverride> {
    collect(runtime, |one| one.live.operator_override().as_deref().cloned())
}

/// What is set for each server, in the order of the configuration.
fn collect(runtime: &Runtime, details: impl Fn(&Server) -> Option<Override>) -> Vec<SavedOverride> {
    let servers = runtime.pools.iter().flat_map(|pool| pool.pool.servers.iter().map(move |server| (pool, server)));
    let saved = |(pool, server): (&PoolRuntime, &Server)| {
        let (pool, name) = (pool.pool.name.to_string(), server.name.to_string());
        Some(SavedOverride { pool, server: name, details: details(server)? })
    };
    servers.filter_map(saved).collect()
}

/// Logs and records the changes of state and weight of a reload.
pub(super) fn record_changes(before: &Runtime, now: &Runtime, who: &str) {
    let pools = before.pools_by_name();
    for pool in now.pools.iter() {
        let Some(before) = pools.get(&*pool.pool.name) else { continue };
        let servers = before.pool.servers_by_name();
        for server in &pool.pool.servers {
            if let Some(before) = servers.get(&*server.name) {
                record_change(&pool.pool.name, server, (before.state(), before.weight()), who);
            }
        }
    }
}

fn record_change(pool: &Arc<str>, server: &Server, before: (ServerState, u16), who: &str) {
    let name = &server.name;
    let change = || Change::new(EventKind::State).pool(pool).server(name).who(who);
    let (state, weight) = (server.state(), server.weight());
    if before.0 != state {
        let (from, to): (&str, &str) = (before.0.into(), state.into());
        tracing::info!(%pool, server = %name, from, to, who, "server's state set");
        events::record(change().values(from, to));
    }
    if before.1 != weight {
        tracing::info!(%pool, server = %name, from = before.1, to = weight, who, "server's weight set");
        events::record(change().values(&before.1.to_string(), &weight.to_string()).reason("weight"));
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;
    use crate::app::build::{BuildContext, build};
    use crate::config::{Config, ProcessEnvironment};
    use crate::pool::condition::Condition;
    use crate::session::token::keyring::Keyring;
    use crate::store::local::table::Table;
    use crate::telemetry::metrics::Metrics;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const DRAIN: Patch = Patch { state: Some(Some(ServerState::Drain)), weight: None };

    fn runtime(servers: &str, state_file: &str, previous: Option<&Runtime>) -> Runtime {
        let servers: Vec<_> =
            servers.split(' ').map(|name| format!("{{ name: {name}, address: '127.0.0.1:1' }}")).collect();
        let text = format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:8080' }}]\nadmin: {{ state_file: {state_file} }}\n\
             pools: {{ web: {{ servers: [{}] }} }}\n",
            servers.join(", ")
        );
        let config = Config::parse("f", text, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}"));
        let table = Table::new(10, NOW, Box::new(|_, _| ()));
        let (metrics, keys) = (Metrics::new().unwrap(), Keyring::random([7; 32]).unwrap());
        let acme = Arc::default();
        let context = BuildContext { table: &table, metrics: &metrics, generated_keys: &keys, acme: &acme, previous };
        build(config.config, &context).unwrap()
    }

    fn restored(runtime: &Runtime) -> Overrides {
        let overrides = Overrides::load(&runtime.config);
        overrides.restore(runtime);
        overrides
    }

    fn server<'a>(runtime: &'a Runtime, name: &str) -> &'a Server {
        find(runtime, "web", name).unwrap()
    }

    #[test]
    fn an_override_holds_through_reloads_and_a_restart_until_its_server_is_gone() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("servers.json").display().to_string();
        let first = runtime("a b", &path, None);
        let overrides = restored(&first);
        let current = ArcSwap::from_pointee(first);
        overrides.patch(&current, ("web", "b"), DRAIN, "ops", NOW).unwrap();
        assert_eq!(server(&current.load(), "b").condition(), Condition::BoundOnly);
        assert_eq!(server(&current.load(), "a").condition(), Condition::Accepting);

        let reloaded = runtime("b c", &path, Some(&current.load()));
        assert_eq!(server(&reloaded, "b").state(), ServerState::Drain, "after a reload");
        overrides.update_file(&reloaded);

        let restarted = runtime("b c", &path, None);
        let overrides = restored(&restarted);
        assert_eq!(server(&restarted, "b").state(), ServerState::Drain, "after a restart");
        let current = ArcSwap::from_pointee(restarted);
        overrides.clear(&current, ("web", "b"), "ops", NOW).unwrap();
        assert_eq!(server(&current.load(), "b").state(), ServerState::Ready);

        overrides.patch(&current, ("web", "c"), DRAIN, "ops", NOW).unwrap();
        let without = runtime("a b", &path, Some(&current.load()));
        overrides.update_file(&without);
        let back = runtime("a b c", &path, Some(&without));
        assert_eq!(server(&back, "c").state(), ServerState::Ready, "removed for good, and added as a new one");
        assert_eq!(server(&runtime("c", &path, None), "c").state(), ServerState::Ready);
    }

    #[test]
    fn a_change_that_cannot_be_written_changes_nothing() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("gone/servers.json").display().to_string();
        let current = ArcSwap::from_pointee(runtime("a", &path, None));
        let overrides = restored(&current.load());
        let refused = overrides.patch(&current, ("web", "a"), DRAIN, "ops", NOW);
        assert!(matches!(refused, Err(OverrideError::NotWritten(_))), "{refused:?}");
        assert_eq!(server(&current.load(), "a").state(), ServerState::Ready);
    }

    #[test]
    fn unknown_pools_and_servers_are_named() {
        let current = ArcSwap::from_pointee(runtime("a", "null", None));
        let overrides = restored(&current.load());
        for (pool, name, why) in
            [("shop", "a", "pool \"shop\" does not exist"), ("web", "z", "pool \"web\" has no server \"z\"")]
        {
            assert_eq!(overrides.patch(&current, (pool, name), DRAIN, "ops", NOW).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn a_weight_set_at_run_time_is_the_share_of_new_and_of_moved_sessions() {
        let current = ArcSwap::from_pointee(runtime("a b", "null", None));
        let overrides = restored(&current.load());
        let picks = || {
            let runtime = current.load();
            let pool = &runtime.pools.get(0).unwrap().pool;
            let moved = (0..200_u128).filter(|n| {
                let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
                pool.pick_moved(&key, &[]) == Some(0)
            });
            ((0..200).filter(|_| pool.pick_new(&[], &[]) == Some(0)).count(), moved.count())
        };
        let (new, moved) = picks();
        assert!(new == 100 && (70..=130).contains(&moved), "{new} {moved}");
        overrides.patch(&current, ("web", "a"), Patch { state: None, weight: Some(Some(9)) }, "ops", NOW).unwrap();
        let (new, moved) = picks();
        assert!((175..=185).contains(&new) && (165..=195).contains(&moved), "{new} {moved}");
        overrides.patch(&current, ("web", "a"), Patch { state: None, weight: Some(Some(0)) }, "ops", NOW).unwrap();
        assert_eq!(picks(), (0, 0));
    }
}
