//! Where bindings live, and the table on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{At, Outside};
use crate::config::environment::Environment;
use crate::config::problem::Findings;
use crate::config::shape;
use crate::config::store::{OnError, Remote, RemoteEngine, Store, TableSnapshot};
use crate::config::suggest;

mod ignite;
mod memcached;
mod redis;

/// More than this, and a store that hangs is felt by everybody.
const LONG_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest prefix of names: with the rest of a name it stays well below the 250 bytes that memcached takes.
const LONGEST_PREFIX: usize = 64;

pub(super) fn store(root: &shape::Root, at: At<'_>, outside: &Outside<'_>, findings: &mut Findings) -> Store {
    let place = at.key("store");
    let remote = remote(root, at, outside, findings);
    unused(&root.store, place, findings);
    Store {
        max_sessions: root.store.max_sessions,
        snapshot: snapshot(root, place.key("snapshot"), outside.environment, findings),
        remote,
    }
}

fn snapshot(
    root: &shape::Root,
    at: At<'_>,
    environment: &dyn Environment,
    findings: &mut Findings,
) -> Option<TableSnapshot> {
    let snapshot = &root.store.snapshot;
    let path = snapshot.path.as_deref().and_then(|path| file(path, at.key("path"), environment, findings));
    if snapshot.path.is_some() && root.keys.is_empty() {
        let message = "without keys a snapshot is of no use: what is in it cannot be found again after a restart";
        findings.warn(at.key("path").place, message, "\"homing keys generate\" prints a key to add");
    }
    if snapshot.path.is_none()
        && at.key("interval").is_written()
        && snapshot.interval != shape::Snapshot::default().interval
    {
        let message = "\"interval\" means nothing without a path";
        findings.warn(at.key("interval").place, message, "add the path, or remove it");
    }
    path.map(|path| TableSnapshot { path, interval: snapshot.interval.0 })
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

/// All engines are checked, also those that are not in use: their turn may come.
fn remote(root: &shape::Root, at: At<'_>, outside: &Outside<'_>, findings: &mut Findings) -> Option<Remote> {
    let store = &root.store;
    let place = at.key("store");
    let redis = redis::redis(&store.redis, place.key("redis"), findings);
    let memcached = memcached::memcached(&store.memcached, place.key("memcached"), findings);
    let ignite = ignite::ignite(&store.ignite, place.key("ignite"), outside, findings);
    let engine = match store.r#type {
        shape::StoreType::Memory => return None,
        shape::StoreType::Redis => RemoteEngine::Redis(redis),
        shape::StoreType::Memcached => RemoteEngine::Memcached(memcached),
        shape::StoreType::Ignite => RemoteEngine::Ignite(ignite),
    };
    // Keys that are there, but broken, were reported.
    let broken = at.key("keys").is_written() && !findings.problems.is_empty();
    if root.keys.is_empty() && !broken {
        let message = "a shared store needs keys: without them each proxy names its sessions by a key of its own, \
                       and finds nothing that another has kept";
        let help = "\"homing keys generate\" prints a key to add; every proxy needs the same";
        findings.problem(place.key("type").place, message, help);
    }
    if store.timeout.0 > LONG_TIMEOUT {
        let message = "with this timeout a store that hangs makes requests hang too, each for so long";
        findings.warn(place.key("timeout").place, message, "write what its network needs, like 50ms");
    }
    Some(Remote {
        engine,
        on_error: match store.on_error {
            shape::OnError::Fallback => OnError::Fallback,
            shape::OnError::Refuse => OnError::Refuse,
        },
        timeout: store.timeout.0,
        near_ttl: store.near_ttl.0,
    })
}

/// Warns of what is written, is not its default, and is of another type of store.
fn unused(store: &shape::Store, at: At<'_>, findings: &mut Findings) {
    let default = shape::Store::default();
    let (word, shared) = match store.r#type {
        shape::StoreType::Memory => ("memory", false),
        shape::StoreType::Redis => ("redis", true),
        shape::StoreType::Memcached => ("memcached", true),
        shape::StoreType::Ignite => ("ignite", true),
    };
    let any = "type: redis, memcached or ignite";
    for (key, is_used, differs, needed) in [
        ("on_error", shared, store.on_error != default.on_error, any),
        ("timeout", shared, store.timeout != default.timeout, any),
        ("near_ttl", shared, store.near_ttl != default.near_ttl, any),
        ("redis", word == "redis", store.redis != default.redis, "type: redis"),
        ("memcached", word == "memcached", store.memcached != default.memcached, "type: memcached"),
        ("ignite", word == "ignite", store.ignite != default.ignite, "type: ignite"),
    ] {
        if !is_used && differs && at.key(key).is_written() {
            let message = format!("\"{key}\" means nothing with type: {word}");
            findings.warn(at.name_of(key), message, format!("remove it, or write {needed}"));
        }
    }
}

/// What all names of an engine begin with. Braces would put them all into one slot of a cluster (hash tags).
fn key_prefix(prefix: &str, at: At<'_>, findings: &mut Findings) -> String {
    let parts = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
    let is_whole = !prefix.starts_with(':') && !prefix.ends_with(':');
    if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.chars().all(parts) || !is_whole {
        let message = format!("{} is no prefix for names", suggest::quoted(prefix));
        let help = "use letters, digits, \"_\", \".\", \"-\", and \":\" between them, at most 64";
        findings.problem(at.place, message, help);
    }
    prefix.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_taken(prefix: &str) -> bool {
        let mut findings = Findings::default();
        key_prefix(prefix, At { node: None, place: None }, &mut findings);
        findings.problems.is_empty()
    }

    #[test]
    fn a_prefix_of_names_may_have_parts_but_no_hash_tag() {
        for prefix in ["homing", "shop:eu-1", "a.b_c", &"x".repeat(64)] {
            assert!(is_taken(prefix), "{prefix}");
        }
        for prefix in ["", ":", "a:", ":a", "{shop}", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(!is_taken(prefix), "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_that_is_taken_fits_every_engine(prefix in "[a-z0-9:.{}_ -]{0,70}|\\PC{0,70}") {
            if is_taken(&prefix) {
                prop_assert!(prefix.len() <= 64 && prefix.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!prefix.contains(['{', '}', '*', '?', '[', '\\']), "not a pattern of SCAN either");
            }
        }
    }
}
