//! No circles of files, and names that say what a thing is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::modules::{Module, Modules};
use crate::reader::words;
use crate::{Source, sources, sources_without_tests};

/// Bare participles, pronouns and verbs: a name says what a thing is, not what happened to it.
const NO_NAMES: &str = "\
    Ahead Asked Asking At Behind Bound By Done Due Ended Ending Followed Found Given Gone Handed Held Hers His Idlest Kept \
    Known Later Learned Left Looked Lost Mine Moved Named Near Nobody Noticed Opened Ours Outside Patient \
    Presented Recognised Refused Renamed Returning Said Seen Sent Somebody Standing Taken Taught Telling Theirs Told \
    Unanswered Unbound Unread Unwritten Wanted Watching What When Who Whom Whose Won Written Yours";

fn circles(sources: &[Source]) -> Vec<BTreeSet<PathBuf>> {
    Modules::new(sources.iter().map(|source| Module::new(&source.path, &source.code))).circles()
}

#[test]
fn files_use_each_other_one_way_only() {
    let sources = sources_without_tests();
    assert!(sources.len() > 100, "only {} files read: the test looks in the wrong place", sources.len());
    let circles = circles(&sources);
    assert!(circles.is_empty(), "circles of files: {circles:#?}");
}

/// The names of public types that a text declares, with their places.
fn public_types(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for keyword in ["struct", "enum", "trait", "type"] {
        for at in words(code, keyword) {
            let before = code[..at].trim_end();
            let is_public = before.ends_with("pub")
                || before.ends_with(')') && before.rsplit_once("pub(").is_some_and(|(_, scope)| scope.len() < 20);
            let name = code[at + keyword.len()..].trim_start();
            let end = name.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(name.len());
            if is_public {
                found.push((at, &name[..end]));
            }
        }
    }
    found
}

fn misnamed(source: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let file = source.path.with_extension("");
    // A `mod.rs` is named by its folder.
    let named = if file.ends_with("mod") { file.parent().expect("in a folder") } else { &file };
    let stem = named.file_name().expect("a name").to_string_lossy();
    if NO_NAMES.split(' ').any(|name| name.eq_ignore_ascii_case(&stem)) {
        found.push((format!("{}:1", source.path.display()), stem.into_owned()));
    }
    for (at, name) in public_types(&source.code) {
        if NO_NAMES.split(' ').any(|no| no == name) {
            found.push((source.place(at), name.to_owned()));
        }
    }
    found
}

#[test]
fn files_and_public_types_are_named_by_nouns() {
    let mut complaints = String::new();
    for (place, name) in sources_without_tests().iter().flat_map(misnamed) {
        writeln!(complaints, "{place}: `{name}` does not say what it is: name it by a noun of the trade").unwrap();
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn the_proxy_does_not_ask_whether_a_store_is_shared() {
    let proxy = sources("src/proxy");
    assert!(proxy.len() > 5, "only {} files read: the test looks in the wrong place", proxy.len());
    let reads: usize = proxy.iter().map(|source| shared_fields(&source.code)).sum();
    assert_eq!(reads, 0, "src/proxy reads `.shared`; that belongs into src/persistence");
}

fn shared_fields(code: &str) -> usize {
    words(code, "shared")
        .filter(|at| code[..*at].trim_end().ends_with('.') && !code[*at..].starts_with("shared("))
        .count()
}

fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(*path, text)).collect();
    let names = |circle: BTreeSet<PathBuf>| circle.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    circles(&sources).into_iter().map(names).collect()
}

#[test]
fn the_reader_finds_a_circle_in_every_form_of_a_path() {
    let root = ("src/lib.rs", "pub mod a; pub mod b;");
    for to_b in [
        "use crate::b::Y; struct X(Y);",
        "use super::b::Y; fn f(_: Y) {}",
        "use super::{b::{Y, Z}}; fn f(_: Y) {}",
        "use crate::b; fn f() -> b::Y { b::new() }",
        "use crate::b::{self, Z}; fn f() { b::new() }",
        "use crate::b as other; fn f() { other::new() }",
        "use crate::b::Y as Other; fn f(_: &Other) {}",
        "fn f<'a>(x: &'a crate::b::Y) {}",
    ] {
        let circles = circles_of(&[root, ("src/a.rs", to_b), ("src/b.rs", "use crate::a::X; fn new() -> X {}")]);
        assert_eq!(circles, [["src/a.rs", "src/b.rs"]], "{to_b}");
    }
}

#[test]
fn the_reader_finds_a_circle_of_parent_and_child_and_one_through_several() {
    let parent = ("src/a/mod.rs", "mod b; use self::b::Y; struct X(Y);");
    assert_eq!(
        circles_of(&[("src/lib.rs", "mod a;"), parent, ("src/a/b.rs", "use super::X; fn f(_: X) {}")]),
        [["src/a/b.rs", "src/a/mod.rs"]]
    );
    let relative = ("src/a/mod.rs", "mod b; fn f() { b::new(); } struct X;");
    assert_eq!(circles_of(&[relative, ("src/a/b.rs", "fn new() -> super::X {}")]), [["src/a/b.rs", "src/a/mod.rs"]]);
    let three = [
        ("src/lib.rs", "mod a; mod b; mod c; mod d;"),
        ("src/a.rs", "fn f() { crate::b::f() }"),
        ("src/b.rs", "fn f() { crate::c::f() }"),
        ("src/c.rs", "fn f() { crate::a::f() }"),
        ("src/d.rs", "fn f() { crate::a::f() }"),
    ];
    assert_eq!(circles_of(&three), [["src/a.rs", "src/b.rs", "src/c.rs"]]);
}

#[test]
fn the_reader_follows_a_re_export_to_the_file_that_has_the_item() {
    let door = ("src/a/mod.rs", "mod b; mod c; pub use b::Y; pub use self::c::Z;");
    assert_eq!(
        circles_of(&[door, ("src/a/b.rs", "use super::Z; struct Y(Z);"), ("src/a/c.rs", "struct Z;")]),
        Vec::<Vec<String>>::new(),
        "the door names its children's items; that is no use of them"
    );
    assert_eq!(
        circles_of(&[door, ("src/a/b.rs", "use super::Z; struct Y(Z);"), ("src/a/c.rs", "struct Z(super::Y);")]),
        [["src/a/b.rs", "src/a/c.rs"]]
    );
}

#[test]
fn the_reader_of_paths_sees_no_circle_where_there_is_none() {
    for (parent, child) in [
        ("mod b; struct X;", "use super::X; struct Y(X);"),
        ("mod b; use b::Y; struct X(Y);", "struct Y;"),
        ("mod b; use b::Y; struct X(Y);", "// super::X\nfn f() { \"super::X\"; }"),
        ("mod b; use b::Y; struct X(Y);", "#[cfg(test)]\nmod tests { use super::super::X; }"),
        ("mod b; use b::Y; struct X(Y);", "use other::X; fn f(x: X) { x.super_value(); }"),
        ("mod b; use b::Y; struct X(Y);", "fn f<'a>(x: &'a str) { x.a().b(); }"),
    ] {
        let files = [("src/lib.rs", "mod a;"), ("src/a/mod.rs", parent), ("src/a/b.rs", child)];
        assert_eq!(circles_of(&files), Vec::<Vec<String>>::new(), "{parent}\n{child}");
    }
}

#[test]
fn the_reader_sees_names_that_are_no_nouns() {
    for text in [
        "pub struct Told;",
        "pub(crate) enum Left { A }",
        "pub(in crate::a) trait Seen {}",
        "pub type Who<'a> = &'a str;",
    ] {
        assert_eq!(misnamed(&Source::new("src/a.rs", text)).len(), 1, "{text}");
    }
    assert_eq!(misnamed(&Source::new("src/told.rs", "")), [("src/told.rs:1".to_owned(), "told".to_owned())]);
    for text in [
        "struct Told;",
        "pub struct MovedHeader;",
        "enum E { Told }",
        "// pub struct Told;",
        "fn f() -> (pub_x) { struct Left; }",
    ] {
        assert!(misnamed(&Source::new("src/a.rs", text)).is_empty(), "{text}");
    }
}

#[test]
fn the_reader_counts_the_shared_store() {
    assert_eq!(
        shared_fields(
            "if app.shared.is_some() { &self.app\n    .shared } let shared = shared::new(); sessions.shared();"
        ),
        2
    );
}
