//! Files that are replaced atomically: written under a temporary name, synced, and renamed over the old one; then the
//! directory is synced. Whenever the machine stops, the file is the old or the new one. A temporary file left by a crash is
//! never read.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A step that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(super) struct FileStepError {
    /// What was tried.
    pub(super) what: &'static str,
    /// What the system said.
    pub(super) source: io::Error,
}

/// Names the step that failed.
pub(super) fn step(what: &'static str) -> impl FnOnce(io::Error) -> FileStepError {
    move |source| FileStepError { what, source }
}

/// Replaces the file by what `write` writes. Only the owner may read it, from its first byte on.
pub(super) fn replace<T>(path: &Path, write: impl FnOnce(&File) -> io::Result<T>) -> Result<T, FileStepError> {
    let temporary = temporary(path);
    remove(&temporary)?;
    let written = write_and_rename(path, &temporary, write);
    if written.is_err() {
        // A full disk needs the space. The error to report is the one before.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_and_rename<T>(
    path: &Path,
    temporary: &Path,
    write: impl FnOnce(&File) -> io::Result<T>,
) -> Result<T, FileStepError> {
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(temporary);
    let file = file.map_err(step("its temporary file cannot be created"))?;
    let written = write(&file).map_err(step("cannot be written"))?;
    file.sync_all().map_err(step("cannot be synced"))?;
    fs::rename(temporary, path).map_err(step("cannot be replaced"))?;
    let folder = path.parent().map_or_else(|| File::open("/"), File::open);
    folder.and_then(|folder| folder.sync_all()).map_err(step("its directory cannot be synced"))?;
    Ok(written)
}

/// Removes the temporary file that a crash may have left.
pub(super) fn remove_temporary(path: &Path) -> Result<(), FileStepError> {
    remove(&temporary(path))
}

/// Renames the file, so that it is neither read nor replaced. Returns its new path.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, FileStepError> {
    let damaged = beside(path, ".damaged");
    fs::rename(path, &damaged).map_err(step("cannot be set aside"))?;
    Ok(damaged)
}

/// The path with a suffix.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path: OsString = path.into();
    path.push(ending);
    path.into()
}

fn temporary(path: &Path) -> PathBuf {
    beside(path, ".new")
}

fn remove(path: &Path) -> Result<(), FileStepError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(step("its old temporary file cannot be removed")(error))
        }
        _ => Ok(()),
    }
}
