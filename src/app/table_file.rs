//! The table's file on disk (the snapshot): written by one process, and replaced atomically.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::session::token::UnixMillis;
use crate::store::disk::{self, LoadResult, LoadScope, LocalStore, ReadError, SessionCounts};

use super::atomic_file::{self, FileStepError, beside, step};

/// The file, locked by this process until this is dropped.
pub(super) struct TableFile {
    path: PathBuf,
    /// A separate lock file, since every write replaces the table's file. It is never removed: another process could have
    /// opened it just before, and then two would hold a lock.
    _lock: File,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Another process holds the lock.
    #[error("another process writes it; give each proxy a file of its own")]
    Locked,
    /// It is no snapshot that this version of homing reads.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An I/O error.
    #[error(transparent)]
    System(#[from] FileStepError),
}

/// Loads a file into a table and session data that are not in use yet; `None` = there is no file.
pub(super) fn load(
    path: &Path,
    store: LocalStore<'_>,
    now: UnixMillis,
    scope: &dyn Fn(&str) -> LoadScope,
) -> Result<Option<LoadResult>, FileError> {
    let Some(file) = open(path)? else { return Ok(None) };
    Ok(Some(disk::load(store, file, now, scope)?))
}

fn open(path: &Path) -> Result<Option<File>, FileError> {
    match fs::metadata(path) {
        // Opening a pipe would wait for a writer.
        Ok(metadata) if !metadata.is_file() => Err(ReadError::NotASnapshot.into()),
        Ok(_) => Ok(File::open(path).map(Some).map_err(step("cannot be opened"))?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(step("cannot be opened")(error).into()),
    }
}

impl TableFile {
    /// Locks a file, which need not exist, and removes the temporary file that a crash may have left.
    pub(super) fn lock(path: &Path) -> Result<Self, FileError> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(beside(path, ".lock"));
        let lock = lock.map_err(step("its lock file cannot be created"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => FileError::Locked,
            TryLockError::Error(error) => step("it cannot be locked")(error).into(),
        })?;
        atomic_file::remove_temporary(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file by the table and session data of now.
    pub(super) fn write(&self, store: LocalStore<'_>, now: UnixMillis) -> Result<SessionCounts, FileError> {
        self.check_replaceable()?;
        // Session data may hold a login.
        Ok(atomic_file::replace(&self.path, |file| disk::write(store, now, file))?)
    }

    /// Only a snapshot of this version or an earlier one is replaced: no other file, whatever its name, and no later version's.
    fn check_replaceable(&self) -> Result<(), FileError> {
        let Some(file) = open(&self.path)? else { return Ok(()) };
        match disk::check_heading(file) {
            Ok(()) => Ok(()),
            Err(ReadError::Corrupt { .. }) => self.set_aside().map(drop),
            Err(other) => Err(other.into()),
        }
    }

    /// Renames the file, so that it is neither read nor replaced. Returns its new path.
    pub(super) fn set_aside(&self) -> Result<PathBuf, FileError> {
        Ok(atomic_file::set_aside(&self.path)?)
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
        let file = TableFile::lock(&path).unwrap();
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
        write(&TableFile::lock(&path).unwrap(), 3).unwrap();
        let newer = bytes_of(5);
        for written in 0..=newer.len() {
            fs::write(beside(&path, ".new"), &newer[..written]).unwrap();
            assert_eq!(found(&path), Some(3), "{written} bytes were written aside, and the rename did not happen");
        }
        drop(TableFile::lock(&path).unwrap());
        assert_eq!(names(&folder), ["sessions", "sessions.lock"], "the next start clears away what is left");
        assert_eq!(found(&path), Some(3));
    }

    #[test]
    fn what_lies_aside_is_never_written_through() {
        let folder = tempdir().unwrap();
        let (path, other) = (folder.path().join("sessions"), folder.path().join("other"));
        let file = TableFile::lock(&path).unwrap();
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, beside(&path, ".new")).unwrap();
        write(&file, 3).unwrap();
        assert_eq!((fs::read_to_string(&other).unwrap().as_str(), found(&path)), ("precious", Some(3)));
    }

    #[test]
    fn two_processes_do_not_write_one_file() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        let first = TableFile::lock(&path).unwrap();
        assert!(matches!(TableFile::lock(&path), Err(FileError::Locked)));
        drop(first);
        assert!(TableFile::lock(&path).is_ok());
    }

    #[test]
    fn files_of_others_and_of_later_versions_are_not_replaced() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        let file = TableFile::lock(&path).unwrap();
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
        let file = TableFile::lock(&path).unwrap();
        write(&file, 3).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[12] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(read(&path), Err(FileError::Read(ReadError::Corrupt { .. }))));
        write(&file, 5).unwrap();
        assert_eq!((found(&path), fs::read(beside(&path, ".damaged")).unwrap()), (Some(5), bytes));
    }

    #[test]
    fn a_write_that_fails_leaves_the_former_file() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("sessions");
        let file = TableFile::lock(&path).unwrap();
        write(&file, 3).unwrap();
        // Nothing can be made where a directory with something in it is.
        fs::create_dir(beside(&path, ".new")).unwrap();
        fs::write(beside(&path, ".new").join("x"), "").unwrap();
        assert!(matches!(write(&file, 5), Err(FileError::System(_))));
        assert_eq!(found(&path), Some(3));
    }
}
