//! What the packages and the container name is there: paths, versions, files that the program has in it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sources;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A value of the package's section in Cargo.toml. Not by `env!`, so that this file compiles without cargo.
fn manifest_value(key: &str) -> String {
    let manifest = read("Cargo.toml");
    let value = manifest.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
    value.unwrap_or_else(|| panic!("Cargo.toml has no {key}")).to_owned()
}

/// The first columns of `assets` in Cargo.toml.
fn packaged_files() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let (_, assets) = manifest.split_once("\nassets = [\n").expect("assets of the Debian package");
    let lines = assets.lines().take_while(|line| *line != "]");
    lines.map(|line| line.split('"').nth(1).expect("a path").to_owned()).collect()
}

#[test]
fn every_file_of_the_debian_package_exists() {
    let files = packaged_files();
    assert!(files.len() > 8, "only {files:?} found");
    for file in files.iter().filter(|file| !file.starts_with("target/package/")) {
        let path = root().join(file.trim_end_matches("/*"));
        assert!(path.exists(), "Cargo.toml: assets: {file} does not exist");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let text = read(&format!("conf/debian/{script}"));
        assert!(
            text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"),
            "conf/debian/{script} ends at no failure"
        );
    }
}

#[test]
fn the_packages_changelog_begins_with_this_version() {
    let first = read("conf/debian/changelog").lines().next().unwrap_or_default().to_owned();
    let version = manifest_value("version");
    assert!(
        first.starts_with(&format!("homing ({version}-1) ")),
        "conf/debian/changelog: {first}; Cargo.toml: {version}"
    );
}

/// What `.dockerignore` lets into the container's build: all that it does not name is left out.
fn container_context() -> Vec<String> {
    let text = read(".dockerignore");
    assert!(text.lines().any(|line| line == "*"), ".dockerignore no longer leaves everything out first");
    text.lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect()
}

/// The files that the program has in it, from the package's root.
fn included_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for source in sources("src") {
        let pieces = source.text.split("include_str!(\"").skip(1).chain(source.text.split("include_bytes!(\"").skip(1));
        for piece in pieces {
            let named = piece.split('"').next().expect("a path");
            let path = root().join(&source.path).parent().expect("a folder").join(named);
            found.push(path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
    }
    found
}

#[test]
fn the_container_is_built_from_files_that_it_gets() {
    let context = container_context();
    for entry in &context {
        assert!(root().join(entry).exists(), ".dockerignore: {entry} does not exist");
    }
    let is_in = |path: &Path| context.iter().any(|entry| path.starts_with(entry));
    let dockerfile = read("Dockerfile");
    let copied = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY --from=build /source/"));
    for path in copied.map(|line| line.split(' ').next().expect("a path")) {
        assert!(root().join(path).exists() && is_in(Path::new(path)), "Dockerfile: {path} is not in its context");
    }
    let included = included_files();
    assert!(included.len() > 10, "only {included:?} found");
    let canonical = root().canonicalize().expect("the package");
    for path in &included {
        let path = path.strip_prefix(&canonical).expect("in the package");
        assert!(is_in(path), ".dockerignore leaves out {}, which the program has in it", path.display());
    }
    // Targets that cargo looks for even when it does not build them.
    let manifest = read("Cargo.toml");
    let targets = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    for path in targets {
        assert!(is_in(Path::new(path)), ".dockerignore leaves out {path}, which Cargo.toml names");
    }
}

#[test]
fn the_container_is_built_with_a_rust_that_is_new_enough() {
    let minor = |text: &str| text.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).expect("a version");
    let dockerfile = read("Dockerfile");
    let image = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).expect("the build's image");
    let built_with = minor(image.split('-').next().expect("a version"));
    let needed = minor(&manifest_value("rust-version"));
    assert!(built_with >= needed, "Dockerfile builds with 1.{built_with}, Cargo.toml needs 1.{needed}");
}
