//! The layout of `src/` as a test: which folder may import which, which crates and clocks stay behind a fence, how long a
//! file may be, that no files import each other in a circle, and how files and types are named. CONTRIBUTING.md has the same
//! table for people.
//!
//! It reads the sources as text, without comments, strings and test modules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "test code"
)]

#[path = "architecture/house.rs"]
mod house;
#[path = "architecture/modules.rs"]
mod modules;
#[path = "architecture/packaging.rs"]
mod packaging;
#[path = "architecture/reader.rs"]
mod reader;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use reader::{branches, test_items, uses, without_comments_and_strings, without_test_items, words};

const BELOW_PROXY: &[&str] =
    &["message", "config", "telemetry", "limits", "routing", "session", "pool", "store", "persistence", "app"];
const BELOW_MAIN: &[&str] = &[
    "message",
    "config",
    "telemetry",
    "limits",
    "routing",
    "session",
    "pool",
    "store",
    "persistence",
    "proxy",
    "admin",
    "demo",
    "app",
    "cli",
];

/// A folder of `src/` (or a file directly in it) and what it may import of ours.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("config", &["session", "store"]),
    ("telemetry", &[]),
    ("demo", &[]),
    ("routing", &["message", "config"]),
    ("session", &["message", "config"]),
    ("limits", &["config", "telemetry"]),
    ("pool", &["config", "telemetry", "session"]),
    ("store", &["config", "session", "telemetry"]),
    ("persistence", &["message", "config", "routing", "session", "pool", "store", "telemetry"]),
    ("proxy", BELOW_PROXY),
    ("admin", BELOW_PROXY),
    (
        "app",
        &[
            "message",
            "config",
            "telemetry",
            "limits",
            "routing",
            "session",
            "pool",
            "store",
            "persistence",
            "proxy",
            "admin",
        ],
    ),
    ("cli", BELOW_MAIN),
    ("main", BELOW_MAIN),
    ("lib", BELOW_MAIN),
];

/// The lower half of `config`: how a file is read and checked. It imports nothing of ours, so that sources and engines, which
/// describe their own settings, can use it; the upper half imports the lists of both.
const LOWER_CONFIG: &[&str] = &[
    "address",
    "certificate_files",
    "check_context",
    "cookie",
    "diagnostics",
    "environment",
    "key_prefix",
    "secret",
    "suggest",
    "units",
    "yaml",
];

/// From this folder, only these parts of that one.
const ONLY_PARTS: &[(&str, &str, &[&str])] = &[
    ("pool", "session", &["key", "token"]),
    ("proxy", "app", &["runtime", "state"]),
    ("admin", "app", &["overrides", "reload_trigger", "runtime", "state", "upgrade_trigger"]),
    ("config", "session", &["source"]),
    ("config", "store", &["engines", "shared"]),
    ("store", "config", LOWER_CONFIG),
    ("session", "config", LOWER_CONFIG),
];

/// A name that stands only below these paths.
const FENCED: &[(&str, &[&str])] = &[
    ("pingora_proxy::", &["src/proxy/", "src/app"]),
    ("pingora::proxy::", &["src/proxy/", "src/app"]),
    ("dashmap::", &["src/store/"]),
    ("serde_yaml::", &["src/config/"]),
    ("prometheus::", &["src/telemetry/"]),
    ("notify::", &["src/config/"]),
    ("SystemTime::now", CLOCK),
    ("Instant::now", CLOCK),
    ("thread::sleep", &["src/main.rs", "src/cli", "src/app"]),
];
/// Where time is read; everywhere else it is an argument, so that tests and the simulation move it.
const CLOCK: &[&str] = &[
    "src/proxy/",
    "src/app",
    "src/demo/",
    "src/main.rs",
    "src/cli",
    "src/admin/",
    "src/telemetry/",
    "src/pool/health",
    "src/pool/resolve",
    "src/config/environment.rs",
];

const MOST_LINES: usize = 450;

#[test]
fn imports_run_one_way_and_crates_stay_behind_their_fences() {
    let sources = sources_without_tests();
    assert!(sources.len() > 20, "only {} files read: the test looks in the wrong place", sources.len());
    let mut complaints = String::new();
    let mut imports = 0;
    let mut folders = BTreeSet::new();
    for source in &sources {
        imports += source.imports().len();
        folders.insert(source.folder());
        source.complain(&mut complaints);
    }
    assert!(complaints.is_empty(), "\n{complaints}");
    assert!(folders.len() > 5 && imports > 20, "{imports} imports in {folders:?}: the reader of imports is broken");
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let mut complaints = String::new();
    for source in ["src", "tests", "benches"].iter().flat_map(|folder| sources(folder)) {
        let lines = source.text.lines().count();
        if lines > MOST_LINES {
            writeln!(complaints, "{}:{lines}: at most {MOST_LINES} lines; split it", source.path.display()).unwrap();
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

struct Source {
    /// From the package's root: `src/pool/mod.rs`.
    path: PathBuf,
    text: String,
    /// The text without comments, strings and test items, at the same lines.
    code: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        let bare = without_comments_and_strings(text);
        Self { path: path.into(), text: text.to_owned(), code: without_test_items(&bare) }
    }

    /// `pool` for `src/pool/mod.rs`, `main` for `src/main.rs`.
    fn folder(&self) -> String {
        let first = self.path.components().nth(1).expect("below src");
        Path::new(first.as_os_str()).file_stem().expect("a name").to_string_lossy().into_owned()
    }

    /// How many `super` lead from this file's module to the crate's root.
    fn depth(&self) -> usize {
        let stem = self.path.file_stem().expect("a name");
        let below_src = self.path.components().count() - 2;
        if stem == "mod" || stem == "lib" || stem == "main" { below_src } else { below_src + 1 }
    }

    /// What `#[cfg(test)] mod x;` names: `src/pool/x` stands for `x.rs` and `x/`.
    fn test_modules(&self) -> Vec<PathBuf> {
        let bare = without_comments_and_strings(&self.text);
        let stem = self.path.file_stem().expect("a name");
        let folder = if ["mod", "lib", "main"].iter().any(|door| stem == *door) {
            self.path.parent().expect("in a folder").to_owned()
        } else {
            self.path.with_extension("")
        };
        test_items(&bare)
            .into_iter()
            .filter_map(|(start, end)| {
                bare[start..end]
                    .trim_end()
                    .strip_suffix(';')?
                    .rsplit_once("mod ")
                    .map(|(_, name)| name.trim().to_owned())
            })
            .map(|name| folder.join(name))
            .collect()
    }

    /// Every path of ours that is named: the place, the top-level module, and the part of it if one is named.
    fn imports(&self) -> Vec<(usize, String, Option<String>)> {
        let mut found = Vec::new();
        for at in words(&self.code, "crate") {
            if let Some(rest) = self.code[at + "crate".len()..].strip_prefix("::") {
                found.extend(branches(rest).into_iter().map(|(module, part)| (at, module, part)));
            }
        }
        let mut until = 0;
        for at in words(&self.code, "super") {
            if at < until {
                continue;
            }
            let mut rest = &self.code[at..];
            let mut steps = 0;
            while let Some(next) = rest.strip_prefix("super::") {
                rest = next;
                steps += 1;
            }
            until = self.code.len() - rest.len();
            if steps >= self.depth().max(1) {
                found.extend(branches(rest).into_iter().map(|(module, part)| (at, module, part)));
            }
        }
        found
    }

    fn complain(&self, complaints: &mut String) {
        let folder = self.folder();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == folder) else {
            let path = self.path.display();
            writeln!(
                complaints,
                "{path}:1: `{folder}` is not in the table of tests/architecture.rs: say what it may import"
            )
            .unwrap();
            return;
        };
        let allowed = if self.is_lower_config() { &[] } else { *allowed };
        for (at, module, part) in self.imports() {
            if module == folder {
                self.complain_of_upper_config(at, part.as_deref(), complaints);
                continue;
            }
            let place = self.place(at);
            if !allowed.contains(&module.as_str()) {
                let allowed = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
                writeln!(complaints, "{place}: `{folder}` imports `{module}`; it may import: {allowed}").unwrap();
            }
            let parts = ONLY_PARTS.iter().find(|(from, to, _)| *from == folder && *to == module);
            if let Some((_, _, parts)) = parts
                && !part.as_deref().is_some_and(|part| parts.contains(&part))
            {
                let part = part.unwrap_or_else(|| "all".to_owned());
                writeln!(
                    complaints,
                    "{place}: `{folder}` imports {part} of `{module}`; it may import of it: {}",
                    parts.join(", ")
                )
                .unwrap();
            }
        }
        for (name, places) in FENCED {
            let here = self.path.to_string_lossy().replace('\\', "/");
            if places.iter().any(|place| here.starts_with(place)) {
                continue;
            }
            for at in uses(&self.code, name) {
                writeln!(complaints, "{}: `{name}` stands only in: {}", self.place(at), places.join(", ")).unwrap();
            }
        }
    }

    fn is_lower_config(&self) -> bool {
        let part = self.path.strip_prefix("src/config").ok().and_then(|part| part.components().next());
        part.is_some_and(|part| {
            LOWER_CONFIG.iter().any(|lower| Path::new(part.as_os_str()).file_stem() == Some(lower.as_ref()))
        })
    }

    fn complain_of_upper_config(&self, at: usize, part: Option<&str>, complaints: &mut String) {
        if self.is_lower_config() && !part.is_some_and(|part| LOWER_CONFIG.contains(&part)) {
            let place = self.place(at);
            writeln!(complaints, "{place}: the lower half of `config` imports {part:?} of the upper").unwrap();
        }
    }

    fn place(&self, at: usize) -> String {
        format!("{}:{}", self.path.display(), self.code[..at].matches('\n').count() + 1)
    }
}

/// All Rust files below a folder of the package, in a fixed order.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable file");
                found.push(Source::new(path.strip_prefix(root).expect("below the root"), &text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The files of `src/` that are not compiled for tests only.
fn sources_without_tests() -> Vec<Source> {
    let mut sources = sources("src");
    let tests: BTreeSet<PathBuf> = sources.iter().flat_map(Source::test_modules).collect();
    let is_test = |path: &Path| tests.iter().any(|test| path == test.with_extension("rs") || path.starts_with(test));
    sources.retain(|source| !is_test(&source.path));
    sources
}

fn complaints(path: &str, text: &str) -> String {
    let mut complaints = String::new();
    Source::new(path, text).complain(&mut complaints);
    complaints
}

#[test]
fn the_reader_sees_every_form_of_a_wrong_import() {
    for wrong in [
        "use crate::pool::Pool;",
        "use crate::{config::Config, pool};",
        "use crate::{\n    config::{A, B},\n    pool::{C, D},\n};",
        "use super::super::pool::Pool;",
        "fn f() -> crate::pool::Pool { 'x'; crate::pool::new() }",
        "fn f<'a>(x: &'a str) -> char { '\"' } use crate::pool::Pool; const Q: char = '\"';",
        "const S: &str = r#\"\"#; use crate::pool::Pool;",
        "#[cfg(test)]\nmod tests { mod inner {} }\nuse crate::pool::Pool;",
        "#[cfg(test)]\nmod tests;\nuse crate::pool::Pool;",
        "#[cfg(feature = \"test\")]\nuse crate::pool::Pool;",
    ] {
        let said = complaints("src/session/id.rs", wrong);
        assert!(said.contains("`session` imports `pool`; it may import: message, config"), "{wrong}\nsaid: {said}");
    }
    let said = complaints("src/session/id.rs", "//! Doc.\n\nuse crate::pool::Pool;");
    assert!(said.starts_with("src/session/id.rs:3: "), "{said}");
    assert!(complaints("src/drawer/mod.rs", "").contains("`drawer` is not in the table"));
    assert!(
        complaints("src/pool/server.rs", "use crate::session::{key::SessionKey, cookie::jar::Jar};")
            .contains("imports cookie of `session`")
    );
}

#[test]
fn the_reader_lets_right_code_pass() {
    for right in [
        "use crate::config::cookie::Cookie; use crate::session::token::Token; use super::token::Token;",
        "// use crate::pool::Pool;\n/* crate::pool /* nested */ crate::pool */ const S: &str = \"crate::pool \\\" crate::pool\";",
        "#[cfg(test)]\nmod tests {\n    use crate::pool::Pool;\n    fn f() { let _ = \"}\"; Instant::now(); }\n}",
        "#[cfg(test)]\nuse crate::pool::Pool;",
        "const S: &[u8] = br##\"crate::pool \"# crate::pool\"##; const R: char = '\\'';",
        "fn prometheus() {} fn f(notify: Notify) { notify.notified(); my_crate::pool::x(); }",
    ] {
        assert_eq!(complaints("src/session/id.rs", right), "", "{right}");
    }
    assert_eq!(complaints("src/pool/server.rs", "use crate::session::key::{ServerId, SessionKey};"), "");
}

#[test]
fn the_reader_sees_what_climbs_over_a_fence() {
    for wrong in [
        "use dashmap::DashMap;",
        "use dashmap;",
        "use std::time::Instant; fn f() { Instant::now(); }",
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() { let x: prometheus::IntCounter; }",
        "use {notify::Watcher, std::fs};",
        "use pingora::proxy::Session;",
    ] {
        let said = complaints("src/routing/mod.rs", wrong);
        assert!(said.contains("stands only in"), "{wrong}\nsaid: {said}");
    }
    assert_eq!(complaints("src/store/memory.rs", "use dashmap::DashMap;"), "");
    assert_eq!(complaints("src/pool/health.rs", "fn f() { Instant::now(); }"), "");
}
