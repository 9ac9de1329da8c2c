//! The tree: places, meanings, limits.

use std::fmt::Write;

use super::*;
use crate::config::diagnostics::{Diagnostics, Location};

fn tree(text: &str) -> Node {
    let mut diagnostics = Diagnostics::default();
    let node = parse(text, &mut diagnostics).unwrap_or_else(|diagnostic| panic!("{diagnostic:?}"));
    assert_eq!(diagnostics.problems, [], "{text}");
    node
}

fn seen(location: Location) -> (usize, usize, usize) {
    (location.line, location.column, location.length)
}

fn refusal(text: &str) -> String {
    parse(text, &mut Diagnostics::default()).expect_err(text).message
}

fn meaning(text: &str) -> Meaning {
    Scalar { text: text.to_owned(), quoted: false }.meaning()
}

#[test]
fn keys_and_values_know_their_place() {
    let node = tree("a: 1\nbe:\n  - 'x y'\n  - { c: d }\n");
    let be = node.entry("be").unwrap();
    assert_eq!(seen(be.key_location), (2, 1, 2));
    assert_eq!(seen(be.value.items()[0].location), (3, 5, 5));
    assert_eq!(seen(be.value.items()[1].location), (4, 5, 8));
    assert_eq!(be.value.items()[1].entry("c").unwrap().value.location.column, 10);
}

#[test]
fn an_empty_value_is_null_and_stands_at_its_key() {
    let node = tree("tls:\nlog: { level: }\nx: ''\n");
    let tls = &node.entry("tls").unwrap().value;
    assert!(tls.is_null());
    assert_eq!(seen(tls.location), (1, 1, 3));
    let level = &node.entry("log").unwrap().value.entry("level").unwrap().value;
    assert!(level.is_null());
    assert_eq!((level.location.line, level.location.column), (2, 8));
    assert!(!node.entry("x").unwrap().value.is_null());
}

#[test]
fn scalars_mean_what_yaml_1_2_says() {
    assert_eq!(meaning("~"), Meaning::Null);
    assert_eq!(meaning("True"), Meaning::Bool(true));
    assert_eq!(meaning("0x1F"), Meaning::Int(31));
    assert_eq!(meaning("-12"), Meaning::Int(-12));
    assert_eq!(meaning("1.5e3"), Meaning::Float(1500.0));
    for text in ["yes", "on", "off", "no", "inf", "nan", "1_000", "30s", "0x-1", "1:30", "e", "-"] {
        assert_eq!(meaning(text), Meaning::Text, "{text}");
    }
}

#[test]
fn aliases_and_merge_keys_copy() {
    let node = tree("x: &x { a: 1, b: 2 }\ny: { <<: *x, b: 3 }\nz: *x\nq: { \"<<\": 1 }\n");
    let y = &node.entry("y").unwrap().value;
    assert_eq!(y.to_json(), serde_json::json!({"a": 1, "b": 3}));
    assert_eq!(node.entry("z").unwrap().value.to_json(), serde_json::json!({"a": 1, "b": 2}));
}

#[test]
fn a_repeated_key_is_reported_with_the_line_of_the_first() {
    let mut diagnostics = Diagnostics::default();
    parse("a: 1\nb: 2\na: 3\n", &mut diagnostics).unwrap();
    let problem = &diagnostics.problems[0];
    assert_eq!(problem.message, "key \"a\" is written twice");
    assert_eq!(problem.help.as_deref(), Some("the first is on line 1; keep one of them"));
    assert_eq!(problem.location.unwrap().line, 3);
}

#[test]
fn hostile_files_are_refused() {
    assert_eq!(refusal(&"[".repeat(200)), "the file is nested too deeply");
    let blocks = (0..100).map(|depth| format!("{}a:", " ".repeat(depth))).collect::<Vec<_>>().join("\n");
    assert_eq!(refusal(&blocks), "the file is nested too deeply");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let copies = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{copies}]").unwrap();
    }
    assert_eq!(refusal(&bomb), "the file holds too many values");
    let mut long = format!("a: &a \"{}\"\nb:\n", "x".repeat(500_000));
    long.push_str(&"  - *a\n".repeat(1000));
    assert_eq!(refusal(&long), "the file holds too many values");
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..200 {
        writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    assert_eq!(refusal(&chain), "the file is nested too deeply");
    assert_eq!(refusal("a: &a [*a]"), "an alias stands inside the value that it means");
    assert_eq!(refusal("a: 1\n---\nb: 2\n"), "the file holds several documents");
    assert_eq!(refusal("# nothing\n"), "the file is empty");
    assert_eq!(refusal("a: !secret x\n"), "YAML tags are not understood here");
    assert_eq!(refusal("? [a, b]\n: x\n"), "a key must be a word");
    assert!(refusal("a: *nowhere\n").starts_with("this is not YAML"));
    assert!(refusal("a:\n\t- b\n").starts_with("this is not YAML"));
}
