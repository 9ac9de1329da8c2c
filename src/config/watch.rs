//! Notices when the configuration file or a certificate changes, however it is changed: written in place, renamed over,
//! or by the symlink swap of a Kubernetes `ConfigMap` or of certbot.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use notify::RecommendedWatcher;
use notify::RecursiveMode;
use notify::Watcher;

/// Largest configuration file, in bytes: one of 10,000 routes and 2,000 servers has some 1.2 MB.
pub(crate) const MAX_CONFIG_FILE: u64 = 8 * 1024 * 1024;
/// Quiet time after the last event: an editor makes several events of one save.
const QUIET: Duration = Duration::from_millis(300);
/// An event storm does not put a change off for longer than this many quiet times.
const MOST_DELAYS: u32 = 20;

/// Watches files until it is dropped.
#[derive(Debug)]
pub struct Watch {
    /// Dropping the watcher closes the channel, which ends the thread.
    _watcher: RecommendedWatcher,
    /// Directories that cannot be watched, and why: what changes there is not noticed.
    pub unwatched: Vec<(PathBuf, String)>,
}

/// Calls `on_change` on a separate thread whenever the contents of one of the files have changed.
///
/// The directories are watched, not the files: a file that is replaced by another of the same name, or by way of a
/// symlink in the same directory, would be lost otherwise. The last directory of a chain of symlinks is watched too.
/// Events that leave the contents as they were do nothing. What happens between reading the files at start and this
/// call is not noticed.
pub fn watch(paths: &[impl AsRef<Path>], on_change: impl Fn() + Send + 'static) -> Result<Watch, notify::Error> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.as_ref().to_path_buf()).collect();
    let (sender, events) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event of its own and would go round in a circle.
        let only_read = event.as_ref().is_ok_and(|event| event.kind.is_access());
        if !only_read {
            // The receiver is gone only when the watch is being dropped.
            let _closed = sender.send(());
        }
    })?;
    let directories: BTreeSet<PathBuf> = paths.iter().flat_map(|path| directories(path)).collect();
    let mut unwatched = Vec::new();
    for directory in directories {
        if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
            unwatched.push((directory, error.to_string()));
        }
    }
    let before = paths.iter().map(|path| contents(path)).collect();
    std::thread::Builder::new()
        .name("config-watch".to_owned())
        .spawn(move || follow(&paths, before, &events, &on_change))
        .map_err(notify::Error::io)?;
    Ok(Watch { _watcher: watcher, unwatched })
}

/// The directory that names the file, and the one that it is really in.
fn directories(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_path_buf),
    };
    let mut directories: Vec<PathBuf> = parent(path).into_iter().collect();
    let real = path.canonicalize().ok().and_then(|real| parent(&real));
    if let Some(real) = real
        && !directories.iter().any(|known| known.canonicalize().is_ok_and(|known| known == real))
    {
        directories.push(real);
    }
    directories
}

fn follow(paths: &[PathBuf], mut before: Vec<Option<Vec<u8>>>, events: &Receiver<()>, on_change: &impl Fn()) {
    while events.recv().is_ok() {
        let mut delays = 0;
        while delays < MOST_DELAYS {
            match events.recv_timeout(QUIET) {
                Ok(()) => delays += 1,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        let mut changed = false;
        for (path, before) in paths.iter().zip(&mut before) {
            // A file that is gone for a moment is on its way to be replaced.
            let now = contents(path);
            if now.is_some() && now != *before {
                *before = now;
                changed = true;
            }
        }
        if changed {
            on_change();
        }
    }
}

/// SHA-256 of the file; `None` when it cannot be read.
pub(crate) fn contents(path: &Path) -> Option<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_CONFIG_FILE + 1).read_to_end(&mut bytes)?;
        Ok(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref().to_vec())
    };
    read().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::channel;

    const DEADLINE: Duration = Duration::from_secs(10);
    /// Long enough for a change to be reported if there were one.
    const SILENCE: Duration = Duration::from_millis(900);

    fn watched(path: &Path) -> (Watch, Receiver<()>) {
        let (sender, changes) = channel();
        let watch = watch(&[path], move || sender.send(()).unwrap_or_default()).unwrap();
        (watch, changes)
    }

    #[test]
    fn a_file_written_in_place_or_renamed_over_is_one_change_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("homing.yaml");
        fs::write(&file, "a").unwrap();
        let (_watch, changes) = watched(&file);
        for step in 0..5 {
            fs::write(&file, format!("b{step}")).unwrap();
        }
        changes.recv_timeout(DEADLINE).expect("written in place");
        assert!(changes.recv_timeout(SILENCE).is_err(), "five writes are one change");
        let new = folder.path().join("homing.yaml.new");
        fs::write(&new, "c").unwrap();
        fs::rename(&new, &file).unwrap();
        changes.recv_timeout(DEADLINE).expect("renamed over");
    }

    #[test]
    fn an_event_that_changes_nothing_is_silent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("homing.yaml");
        fs::write(&file, "a").unwrap();
        let (_watch, changes) = watched(&file);
        fs::write(&file, "a").unwrap();
        fs::write(folder.path().join("other"), "x").unwrap();
        assert!(changes.recv_timeout(SILENCE).is_err());
        fs::remove_file(&file).unwrap();
        assert!(changes.recv_timeout(SILENCE).is_err(), "a file that is gone changes nothing");
        fs::write(&file, "b").unwrap();
        changes.recv_timeout(DEADLINE).expect("back with other contents");
    }

    #[test]
    fn the_symlink_swap_of_a_config_map_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("..v1")).unwrap();
        fs::create_dir(at("..v2")).unwrap();
        fs::write(at("..v1/homing.yaml"), "a").unwrap();
        fs::write(at("..v2/homing.yaml"), "b").unwrap();
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/homing.yaml", at("homing.yaml")).unwrap();
        let (_watch, changes) = watched(&at("homing.yaml"));
        symlink("..v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        changes.recv_timeout(DEADLINE).expect("swapped");
    }

    #[test]
    fn a_file_behind_a_symlink_elsewhere_is_watched_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let real = elsewhere.path().join("real.yaml");
        fs::write(&real, "a").unwrap();
        let link = folder.path().join("homing.yaml");
        symlink(&real, &link).unwrap();
        let (_watch, changes) = watched(&link);
        fs::write(&real, "b").unwrap();
        changes.recv_timeout(DEADLINE).expect("written behind the symlink");
    }

    #[test]
    fn several_files_that_change_together_are_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let files = [folder.path().join("homing.yaml"), elsewhere.path().join("a.pem"), elsewhere.path().join("a.key")];
        for file in &files {
            fs::write(file, "before").unwrap();
        }
        let (sender, changes) = channel();
        let _watch = watch(&files, move || sender.send(()).unwrap_or_default()).unwrap();
        for file in &files[1..] {
            fs::write(file, "after").unwrap();
        }
        changes.recv_timeout(DEADLINE).expect("a certificate and its key were renewed");
        assert!(changes.recv_timeout(SILENCE).is_err(), "once");
    }

    #[test]
    fn dropping_the_watch_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("homing.yaml");
        fs::write(&file, "a").unwrap();
        let (watch, changes) = watched(&file);
        drop(watch);
        // The thread owns the sender: when it ends, the channel closes.
        assert_eq!(changes.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    }
}
