//! Where `${NAME}`, `${file:/path}` and certificates get their values: the process, or a test.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use nix::unistd::{AccessFlags, access};

/// Longest file that `${file:…}` reads, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A file that `${file:…}` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// Its contents.
    pub text: String,
    /// Every user of the machine may read it.
    pub readable_by_others: bool,
}

/// Variables and files, as an argument, so that tests need no process environment.
pub trait Environment {
    /// The value of a variable; `None` when it is not set or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// A file, or in words why it cannot be read.
    fn file(&self, path: &Path) -> Result<FileText, String>;

    /// Whether this process may make files in a directory, or in words why not.
    fn takes_files(&self, directory: &Path) -> Result<(), String> {
        let is_directory = std::fs::metadata(directory).map_err(|error| error.to_string())?.is_dir();
        if !is_directory {
            return Err("it is not a directory".to_owned());
        }
        access(directory, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| error.desc().to_owned())
    }

    /// Whether every user of the machine may make files in a directory.
    fn others_may_write(&self, directory: &Path) -> bool {
        std::fs::metadata(directory).is_ok_and(|metadata| metadata.mode() & 0o002 != 0)
    }

    /// The time, to tell what has expired.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> Result<FileText, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let readable_by_others = file.metadata().is_ok_and(|metadata| others_may_read(&metadata));
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_FILE {
            return Err(format!("larger than {} KiB", MAX_FILE / 1024));
        }
        Ok(FileText { text, readable_by_others })
    }
}

#[cfg(unix)]
fn others_may_read(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn others_may_read(_metadata: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_files_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let answer = |path: &Path| ProcessEnvironment.takes_files(path);
        assert_eq!(answer(folder.path()), Ok(()));
        assert_eq!(answer(&file), Err("it is not a directory".to_owned()));
        assert!(answer(&folder.path().join("none")).is_err_and(|why| why.contains("No such file")));
    }
}
