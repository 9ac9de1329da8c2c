//! Where bindings live, and the table on disk.

use std::path::{Path, PathBuf};

use super::At;
use crate::config::environment::Environment;
use crate::config::problem::Findings;
use crate::config::shape;
use crate::config::store::{Store, TableSnapshot};
use crate::config::suggest;

pub(super) fn store(root: &shape::Root, at: At<'_>, environment: &dyn Environment, findings: &mut Findings) -> Store {
    let snapshot = &root.store.snapshot;
    let place = at.key("store").key("snapshot");
    let path = snapshot.path.as_deref().and_then(|path| file(path, place.key("path"), environment, findings));
    if snapshot.path.is_some() && root.keys.is_empty() {
        let message = "without keys a snapshot is of no use: what is in it cannot be found again after a restart";
        findings.warn(place.key("path").place, message, "\"homing keys generate\" prints a key to add");
    }
    if snapshot.path.is_none()
        && place.key("interval").is_written()
        && snapshot.interval != shape::Snapshot::default().interval
    {
        findings.warn(
            place.key("interval").place,
            "\"interval\" means nothing without a path",
            "add the path, or remove it",
        );
    }
    Store {
        max_sessions: root.store.max_sessions,
        snapshot: path.map(|path| TableSnapshot { path, interval: snapshot.interval.0 }),
        remote: None,
    }
}

fn file(path: &str, at: At<'_>, environment: &dyn Environment, findings: &mut Findings) -> Option<PathBuf> {
    let file = Path::new(path);
    let (Some(folder), true, false) = (file.parent(), file.is_absolute(), path.ends_with('/')) else {
        let message = format!("\"store.snapshot.path\" cannot be {}", suggest::quoted(path));
        findings.problem(at.place, message, "write the absolute path of a file, like /var/lib/homing/sessions");
        return None;
    };
    if let Err(error) = environment.takes_files(folder) {
        let message = format!("no snapshot can be written to {}: {error}", folder.display());
        findings.warn(at.place, message, "make the directory, and give it to the user that homing runs as");
    }
    Some(file.to_owned())
}
