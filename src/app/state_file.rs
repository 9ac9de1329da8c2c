//! The file of what operators set (`admin.state_file`): JSON, replaced atomically with every change.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::ServerState;
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    servers: Vec<Entry>,
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
    pub(super) fn load(&self) -> Vec<SavedOverride> {
        match read(&self.path) {
            Ok(saved) => saved,
            Err(why) => {
                let aside = atomic_file::set_aside(&self.path);
                let aside = aside.map_or_else(|error| error.to_string(), |aside| aside.display().to_string());
                let path = self.path.display();
                tracing::warn!(%path, why, %aside, "admin.state_file was put aside; states are those of the configuration");
                Vec::new()
            }
        }
    }

    /// Replaces the file. When it returns, the change is on the disk.
    pub(super) fn write(&self, saved: &[SavedOverride]) -> Result<(), FileStepError> {
        let servers = saved.iter().map(Entry::from).collect();
        let text = serde_json::to_vec_pretty(&Document { version: VERSION, servers });
        let text = text.map_err(|error| step("cannot be written")(error.into()))?;
        atomic_file::replace(&self.path, |mut file| file.write_all(&text))
    }
}

fn read(path: &Path) -> Result<Vec<SavedOverride>, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
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
    Ok(document.servers.into_iter().filter_map(Entry::saved).collect())
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

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn saved(server: &str) -> SavedOverride {
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
        assert_eq!(file.load(), []);
        for saved in [vec![saved("a"), saved("b")], vec![], vec![saved("c")]] {
            file.write(&saved).unwrap();
            assert_eq!(file.load(), saved);
        }
    }

    #[test]
    fn a_file_damaged_in_any_way_is_put_aside_and_the_next_change_is_written() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("servers.json");
        let file = StateFile::at(path.clone());
        file.write(&[saved("a")]).unwrap();
        let whole = fs::read(&path).unwrap();
        let later = String::from_utf8(whole.clone()).unwrap().replace("\"version\": 1", "\"version\": 2");
        let unknown = String::from_utf8(whole.clone()).unwrap().replace("\"by\"", "\"through\"");
        let state = String::from_utf8(whole.clone()).unwrap().replace("drain", "asleep");
        let mut broken: Vec<Vec<u8>> = (0..whole.len() - 1).map(|length| whole[..length].to_vec()).collect();
        broken.extend([
            later.into_bytes(),
            unknown.into_bytes(),
            state.into_bytes(),
            b"\xff\xfe".to_vec(),
            b"[]".to_vec(),
        ]);
        for bytes in broken {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(file.load(), [], "{}", String::from_utf8_lossy(&bytes));
            assert_eq!(fs::read(folder.path().join("servers.json.damaged")).unwrap(), bytes);
            assert!(!path.exists());
        }
        file.write(&[saved("b")]).unwrap();
        assert_eq!(file.load(), [saved("b")]);
    }

    #[test]
    fn what_cannot_be_a_file_is_no_reason_not_to_start() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("servers.json");
        fs::create_dir(&path).unwrap();
        assert_eq!(StateFile::at(path).load(), []);
        assert!(StateFile::at(folder.path().join("no/such/folder")).load().is_empty());
        assert!(StateFile::at(folder.path().join("no/such/folder")).write(&[]).is_err());
    }
}
