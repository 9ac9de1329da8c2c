//! The file of what operators set (`admin.state_file`), and of the servers that drain although the configuration does not have
//! them any more: JSON, replaced atomically with every change.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::address::server_address;
use crate::config::{self, ServerState};
use crate::pool::operator::Override;
use crate::session::token::UnixMillis;

use super::atomic_file::{self, FileStepError, step};

/// The version of the format.
const VERSION: u32 = 1;
/// More than any configuration has servers. A larger file is none of ours.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What was set for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedOverride {
    /// Name of its pool.
    pub(super) pool: String,
    /// Its name.
    pub(super) server: String,
    /// What was set.
    pub(super) details: Override,
}

/// A server that the configuration does not have any more, and that drains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemovedServer {
    /// Name of its pool.
    pub(super) pool: String,
    /// As the configuration had it.
    pub(super) server: config::Server,
    /// When its drain started.
    pub(super) since: UnixMillis,
}

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SavedState {
    /// What operators set.
    pub(super) overrides: Vec<SavedOverride>,
    /// Servers that drain although the configuration does not have them any more.
    pub(super) removed: Vec<RemovedServer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    servers: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<RemovedEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemovedEntry {
    pool: String,
    server: String,
    address: String,
    weight: u16,
    state: ServerState,
    route: String,
    backup: bool,
    /// Unix milliseconds.
    since: u64,
}

/// An override as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pool: String,
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<ServerState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    by: String,
    /// Unix milliseconds, as `state_at`.
    at: u64,
    state_at: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the file holds. A file that cannot be read keeps no proxy from starting: it is put aside, with a warning.
    pub(super) fn load(&self) -> SavedState {
        match read(&self.path) {
            Ok(saved) => saved,
            Err(why) => {
                let aside = atomic_file::set_aside(&self.path);
                let aside = aside.map_or_else(|error| error.to_string(), |aside| aside.display().to_string());
                let path = self.path.display();
                tracing::warn!(%path, why, %aside, "admin.state_file was put aside; states are those of the configuration");
                SavedState::default()
            }
        }
    }

    /// Replaces the file. When it returns, the change is on the disk.
    pub(super) fn write(&self, saved: &SavedState) -> Result<(), FileStepError> {
        let servers = saved.overrides.iter().map(Entry::from).collect();
        let removed = saved.removed.iter().map(RemovedEntry::from).collect();
        let text = serde_json::to_vec_pretty(&Document { version: VERSION, servers, removed });
        let text = text.map_err(|error| step("cannot be written")(error.into()))?;
        atomic_file::replace(&self.path, |mut file| file.write_all(&text))
    }
}

fn read(path: &Path) -> Result<SavedState, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SavedState::default()),
        Err(error) => return Err(error.to_string()),
        // Opening a pipe would wait for a writer.
        Ok(metadata) if !metadata.is_file() => return Err("not a file".to_owned()),
        Ok(metadata) if metadata.len() > MAX_BYTES => return Err("too large".to_owned()),
        Ok(_) => {}
    }
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let document: Document = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if document.version != VERSION {
        return Err(format!("version {} is not known", document.version));
    }
    Ok(SavedState {
        overrides: document.servers.into_iter().filter_map(Entry::saved).collect(),
        removed: document.removed.into_iter().map(RemovedEntry::saved).collect::<Result<_, _>>()?,
    })
}

impl From<&SavedOverride> for Entry {
    fn from(saved: &SavedOverride) -> Self {
        let Override { state, weight, by, at, state_at } = &saved.details;
        Self {
            pool: saved.pool.clone(),
            server: saved.server.clone(),
            state: *state,
            weight: *weight,
            by: by.to_string(),
            at: at.0,
            state_at: state_at.0,
        }
    }
}

impl Entry {
    pub(super) fn saved(self) -> Option<SavedOverride> {
        let Self { pool, server, state, weight, by, at, state_at } = self;
        if state.is_none() && weight.is_none() {
            return None;
        }
        let details = Override { state, weight, by: Arc::from(by), at: UnixMillis(at), state_at: UnixMillis(state_at) };
        Some(SavedOverride { pool, server, details })
    }
}

impl From<&RemovedServer> for RemovedEntry {
    fn from(saved: &RemovedServer) -> Self {
        let RemovedServer { pool, server, since } = saved;
        Self {
            pool: pool.clone(),
            server: server.name.clone(),
            address: server.address.to_string(),
            weight: server.weight,
            state: server.state,
            route: server.route.clone(),
            backup: server.backup,
            since: since.0,
        }
    }
}

impl RemovedEntry {
    fn saved(self) -> Result<RemovedServer, String> {
        let Self { pool, server: name, address, weight, state, route, backup, since } = self;
        let address = server_address(&address).map_err(|help| format!("{address:?} is no address: {help}"))?;
        let server = config::Server { name, address, weight, state, route, backup, removed: true, since: None };
        Ok(RemovedServer { pool, server, since: UnixMillis(since) })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn saved(servers: &[&str]) -> SavedState {
        let removed = |address: &str| RemovedServer {
            pool: "web".into(),
            server: config::Server {
                name: "old".into(),
                address: server_address(address).unwrap(),
                weight: 7,
                state: ServerState::Ready,
                route: "r1".into(),
                backup: true,
                removed: true,
                since: None,
            },
            since: UnixMillis(1_790_000_000_500),
        };
        let removed = ["127.0.0.1:80", "[::1]:80", "app.internal:8080", "unix:/run/app.sock"].map(removed);
        SavedState { overrides: servers.iter().map(|server| saved_override(server)).collect(), removed: removed.into() }
    }

    fn saved_override(server: &str) -> SavedOverride {
        let details = Override {
            state: Some(ServerState::Drain),
            weight: Some(3),
            by: Arc::from("ops"),
            at: UnixMillis(1_790_000_000_123),
            state_at: UnixMillis(1_790_000_000_000),
        };
        SavedOverride { pool: "web".into(), server: server.into(), details }
    }

    #[test]
    fn what_was_written_is_found() {
        let folder = tempdir().unwrap();
        let file = StateFile::at(folder.path().join("servers.json"));
        assert_eq!(file.load(), SavedState::default());
        let none = SavedState::default();
        for saved in [saved(&["a", "b"]), none.clone(), SavedState { removed: vec![], ..saved(&["c"]) }, none] {
            file.write(&saved).unwrap();
            assert_eq!(file.load(), saved);
        }
    }

    #[test]
    fn a_file_damaged_in_any_way_is_put_aside_and_the_next_change_is_written() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("servers.json");
        let file = StateFile::at(path.clone());
        file.write(&saved(&["a"])).unwrap();
        let whole = fs::read(&path).unwrap();
        let later = String::from_utf8(whole.clone()).unwrap().replace("\"version\": 1", "\"version\": 2");
        let unknown = String::from_utf8(whole.clone()).unwrap().replace("\"by\"", "\"through\"");
        let state = String::from_utf8(whole.clone()).unwrap().replace("drain", "asleep");
        let address = String::from_utf8(whole.clone()).unwrap().replace("[::1]:80", "[::1]");
        let mut broken: Vec<Vec<u8>> = (0..whole.len() - 1).map(|length| whole[..length].to_vec()).collect();
        broken.extend([
            later.into_bytes(),
            unknown.into_bytes(),
            state.into_bytes(),
            address.into_bytes(),
            b"\xff\xfe".to_vec(),
            b"[]".to_vec(),
        ]);
        for bytes in broken {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(file.load(), SavedState::default(), "{}", String::from_utf8_lossy(&bytes));
            assert_eq!(fs::read(folder.path().join("servers.json.damaged")).unwrap(), bytes);
            assert!(!path.exists());
        }
        file.write(&saved(&["b"])).unwrap();
        assert_eq!(file.load(), saved(&["b"]));
    }

    #[test]
    fn what_cannot_be_a_file_is_no_reason_not_to_start() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("servers.json");
        fs::create_dir(&path).unwrap();
        assert_eq!(StateFile::at(path).load(), SavedState::default());
        let nowhere = StateFile::at(folder.path().join("no/such/folder"));
        assert_eq!(nowhere.load(), SavedState::default());
        assert!(nowhere.write(&SavedState::default()).is_err());
    }
}
