//! The table's file on disk: one process writes it, and it is replaced whole or not at all.
//!
//! A new one is written aside, forced to disk, and renamed over the old, which is then forced to disk too: whatever moment
//! the machine stops at, the file is the old or the new one. What is left aside by a crash is not looked at.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::session::token::UnixMillis;
use crate::store::disk::{self, LoadResult, LoadScope, LocalStore, ReadError, SessionCounts};

/// The file, held by this process for as long as this lives.
pub(super) struct TableFile {
    path: PathBuf,
    /// Locked. A file of its own, since the table's is another one after every write; it stays, since between taking it
    /// away and another's lock on it there is no safe moment.
    _lock: File,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Locked by somebody else.
    #[error("another process writes it; give each proxy a file of its own")]
    Held,
    /// What is there is no snapshot that this homing reads.
    #[error(transparent)]
    Unread(#[from] ReadError),
    /// The system would not let us.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::System { what, source }
}

/// Puts what is in a file into a memory that nobody uses yet; `None` = there is no file.
pub(super) fn load(
    path: &Path,
    memory: LocalStore<'_>,
    now: UnixMillis,
    wanted: &dyn Fn(&str) -> LoadScope,
) -> Result<Option<LoadResult>, FileError> {
    let Some(file) = open(path)? else { return Ok(None) };
    Ok(Some(disk::load(memory, file, now, wanted)?))
}

fn open(path: &Path) -> Result<Option<File>, FileError> {
    match fs::metadata(path) {
        // Opening a pipe would wait for somebody to write.
        Ok(found) if !found.is_file() => Err(ReadError::NotASnapshot.into()),
        Ok(_) => File::open(path).map(Some).map_err(system("cannot be opened")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(system("cannot be opened")(error)),
    }
}

impl TableFile {
    /// Takes a file, which need not exist, for this process, and clears away what a crash left beside it.
    pub(super) fn hold(path: &Path) -> Result<Self, FileError> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(beside(path, ".lock"));
        let lock = lock.map_err(system("its lock cannot be made"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => FileError::Held,
            TryLockError::Error(error) => system("it cannot be locked")(error),
        })?;
        remove(&beside(path, ".new"))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file by all that is remembered now.
    pub(super) fn write(&self, memory: LocalStore<'_>, now: UnixMillis) -> Result<SessionCounts, FileError> {
        self.make_way()?;
        let aside = beside(&self.path, ".new");
        remove(&aside)?;
        let written = self.replace(&aside, memory, now);
        if written.is_err() {
            // A full disk needs the room. The error before is the one to tell.
            let _ = fs::remove_file(&aside);
        }
        written
    }

    fn replace(&self, aside: &Path, memory: LocalStore<'_>, now: UnixMillis) -> Result<SessionCounts, FileError> {
        // Session data may be a login: from its first byte on the file is nobody else's to read.
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(aside);
        let file = file.map_err(system("no file can be made beside it"))?;
        let written = disk::write(memory, now, &file).map_err(system("cannot be written"))?;
        file.sync_all().map_err(system("cannot be forced to disk"))?;
        fs::rename(aside, &self.path).map_err(system("cannot be replaced"))?;
        let folder = self.path.parent().map_or_else(|| File::open("/"), File::open);
        folder.and_then(|folder| folder.sync_all()).map_err(system("its directory cannot be forced to disk"))?;
        Ok(written)
    }

    /// What is there may be replaced if it is ours: no other file, however it came to be named, and no later homing's.
    fn make_way(&self) -> Result<(), FileError> {
        let Some(file) = open(&self.path)? else { return Ok(()) };
        match disk::look(file) {
            Ok(()) => Ok(()),
            Err(ReadError::Corrupt { .. }) => self.set_aside().map(drop),
            Err(other) => Err(other.into()),
        }
    }

    /// Renames what is there, so that it is neither read nor replaced. Returns its new name.
    pub(super) fn set_aside(&self) -> Result<PathBuf, FileError> {
        let damaged = beside(&self.path, ".damaged");
        fs::rename(&self.path, &damaged).map_err(system("cannot be set aside"))?;
        Ok(damaged)
    }
}

/// The path with more at its end.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path: OsString = path.into();
    path.push(ending);
    path.into()
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(system("what was left beside it stays")(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::session::key::SessionKey;
    use crate::store::local::data::SessionData;
    use crate::store::local::table::Table;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn table(sessions: u128) -> Table {
        let table = Table::new(1_000, NOW, Box::new(|_, _| ()));
        let place = table.target("web", "a");
        for key in 1..=sessions {
            table.claim(SessionKey(key << 64), &place, NOW);
        }
        table
    }

    fn no_data() -> SessionData {
        SessionData::new(0, NOW, Box::new(|_| ()))
    }

    fn write(file: &TableFile, sessions: u128) -> Result<u64, FileError> {
        let written = file.write(LocalStore { table: &table(sessions), data: &no_data() }, NOW);
        written.map(|written| written.sessions)
    }

    fn bytes_of(sessions: u128) -> Vec<u8> {
        let mut bytes = Vec::new();
        disk::write(LocalStore { table: &table(sessions), data: &no_data() }, NOW, &mut bytes).unwrap();
        bytes
    }

    /// How many sessions a start would find; `None` = no file.
    fn read(path: &Path) -> Result<Option<u64>, FileError> {
        let loaded = load(path, LocalStore { table: &table(0), data: &no_data() }, NOW, &|_| LoadScope::Sessions)?;
        Ok(loaded.map(|loaded| loaded.loaded.sessions))
    }

    fn found(path: &Path) -> Option<u64> {
        read(path).unwrap()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_written_is_found_and_only_the_owner_may_read_it() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        assert_eq!(found(&path), None);
        let file = TableFile::hold(&path).unwrap();
        for sessions in [3, 0, 7] {
            assert_eq!(write(&file, sessions).unwrap(), u64::try_from(sessions).unwrap());
            assert_eq!(found(&path), Some(u64::try_from(sessions).unwrap()));
        }
        assert_eq!(names(&folder), ["sessions", "sessions.lock"]);
        for name in names(&folder) {
            assert_eq!(fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_crash_at_any_moment_leaves_the_old_or_the_new_one() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        write(&TableFile::hold(&path).unwrap(), 3).unwrap();
        let newer = bytes_of(5);
        for written in 0..=newer.len() {
            fs::write(beside(&path, ".new"), &newer[..written]).unwrap();
            assert_eq!(found(&path), Some(3), "{written} bytes were written aside, and the rename did not happen");
        }
        drop(TableFile::hold(&path).unwrap());
        assert_eq!(names(&folder), ["sessions", "sessions.lock"], "the next start clears away what is left");
        assert_eq!(found(&path), Some(3));
    }

    #[test]
    fn what_lies_aside_is_never_written_through() {
        let folder = tempdir().unwrap();
        let (path, other) = (folder.path().join("sessions"), folder.path().join("other"));
        let file = TableFile::hold(&path).unwrap();
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, beside(&path, ".new")).unwrap();
        write(&file, 3).unwrap();
        assert_eq!((fs::read_to_string(&other).unwrap().as_str(), found(&path)), ("precious", Some(3)));
    }

    #[test]
    fn two_processes_do_not_write_one_file() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        let first = TableFile::hold(&path).unwrap();
        assert!(matches!(TableFile::hold(&path), Err(FileError::Held)));
        drop(first);
        assert!(TableFile::hold(&path).is_ok());
    }

    #[test]
    fn files_of_others_and_of_later_versions_are_not_replaced() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        let file = TableFile::hold(&path).unwrap();
        let mut later = bytes_of(1);
        later[8] += 1;
        let crc = crc32fast::hash(&later[..12]);
        later[12..16].copy_from_slice(&crc.to_le_bytes());
        for (bytes, why) in [(later.as_slice(), "a later homing wrote it"), (b"# notes\n", "not a snapshot of homing")]
        {
            fs::write(&path, bytes).unwrap();
            let error = write(&file, 3).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(write(&file, 3).is_err());
    }

    #[test]
    fn a_damaged_file_is_kept_aside() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        let file = TableFile::hold(&path).unwrap();
        write(&file, 3).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[12] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(read(&path), Err(FileError::Unread(ReadError::Corrupt { .. }))));
        write(&file, 5).unwrap();
        assert_eq!((found(&path), fs::read(beside(&path, ".damaged")).unwrap()), (Some(5), bytes));
    }

    #[test]
    fn a_write_that_fails_leaves_the_former_file() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        let file = TableFile::hold(&path).unwrap();
        write(&file, 3).unwrap();
        // Nothing can be made where a directory with something in it is.
        fs::create_dir(beside(&path, ".new")).unwrap();
        fs::write(beside(&path, ".new").join("x"), "").unwrap();
        assert!(matches!(write(&file, 5), Err(FileError::System { .. })));
        assert_eq!(found(&path), Some(3));
    }
}
