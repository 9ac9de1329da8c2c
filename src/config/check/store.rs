//! Where bindings live, and the table on disk.

use std::time::Duration;

use super::files::WrittenFile;
use crate::config::check_context::{CheckContext, NodeRef};
use crate::config::diagnostics::Diagnostics;
use crate::config::environment::Environment;
use crate::config::raw;
use crate::config::store::{Store, TableSnapshot};
use crate::store::engines::StoreType;
use crate::store::shared::settings::Remote;

/// With more than this, a store that hangs delays clients noticeably.
const LONG_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn store(
    root: &raw::Root,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Store {
    let location = at.key("store");
    let remote = remote(root, at, context, diagnostics);
    unused(&root.store, location, diagnostics);
    Store {
        max_sessions: root.store.max_sessions,
        snapshot: snapshot(root, location.key("snapshot"), context.environment, diagnostics),
        remote,
    }
}

const FILE: WrittenFile =
    WrittenFile { key: "store.snapshot.path", what: "snapshot", example: "/var/lib/homing/sessions" };

fn snapshot(
    root: &raw::Root,
    at: NodeRef<'_>,
    environment: &dyn Environment,
    diagnostics: &mut Diagnostics,
) -> Option<TableSnapshot> {
    let snapshot = &root.store.snapshot;
    let path = snapshot.path.as_deref().and_then(|path| FILE.check(path, at.key("path"), environment, diagnostics));
    if snapshot.path.is_some() && root.keys.is_empty() {
        let message = "without keys a snapshot is of no use: what is in it cannot be found again after a restart";
        diagnostics.warn(at.key("path").location, message, "\"homing keys generate\" prints a key to add");
    }
    if snapshot.path.is_none()
        && at.key("interval").is_written()
        && snapshot.interval != raw::Snapshot::default().interval
    {
        let message = "\"interval\" means nothing without a path";
        diagnostics.warn(at.key("interval").location, message, "add the path, or remove it");
    }
    path.map(|path| TableSnapshot { path, interval: snapshot.interval })
}

fn remote(
    root: &raw::Root,
    at: NodeRef<'_>,
    context: &CheckContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Remote> {
    let store = &root.store;
    let location = at.key("store");
    let engine = store.engines.check(store.r#type, location, context, diagnostics)?;
    // Keys that are there, but broken, were reported.
    let broken = at.key("keys").is_written() && !diagnostics.problems.is_empty();
    if root.keys.is_empty() && !broken {
        let message = "a shared store needs keys: without them each proxy names its sessions by a key of its own, \
                       and finds nothing that another has kept";
        let help = "\"homing keys generate\" prints a key to add; every proxy needs the same";
        diagnostics.problem(location.key("type").location, message, help);
    }
    if store.timeout > LONG_TIMEOUT {
        let message = "with this timeout a store that hangs makes requests hang too, each for so long";
        diagnostics.warn(location.key("timeout").location, message, "write what its network needs, like 50ms");
    }
    Some(Remote { engine, on_error: store.on_error, timeout: store.timeout, near_ttl: store.near_ttl })
}

/// Warns of what is written, is not its default, and is of another type of store.
fn unused(store: &raw::Store, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let default = raw::Store::default();
    let used: &str = store.r#type.into();
    let mut warn = |key: &str, needed: &str| {
        if at.key(key).is_written() {
            let message = format!("\"{key}\" means nothing with type: {used}");
            diagnostics.warn(at.key_location(key), message, format!("remove it, or write {needed}"));
        }
    };
    if store.r#type == StoreType::Memory {
        let shared = StoreType::SHARED.iter().map(|one| format!("type: {}", <&str>::from(one)));
        let shared = shared.collect::<Vec<_>>().join(" or ");
        for (key, differs) in [
            ("on_error", store.on_error != default.on_error),
            ("timeout", store.timeout != default.timeout),
            ("near_ttl", store.near_ttl != default.near_ttl),
        ] {
            if differs {
                warn(key, &shared);
            }
        }
    }
    for engine in store.engines.changed().into_iter().filter(|engine| *engine != store.r#type) {
        let word: &str = engine.into();
        warn(word, &format!("type: {word}"));
    }
}
