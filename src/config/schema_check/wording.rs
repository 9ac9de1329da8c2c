//! Wording: what was expected, what was found, what to write instead.

use serde_json::Value;

use crate::config::schema::Rule;
use crate::config::suggest;
use crate::config::units;
use crate::config::yaml::{Content, Meaning, Node, Scalar};

/// A list whose items are no mappings.
const LIST: &str = "a list in [ ]";

pub(super) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_plain_value(scalar: &Scalar) -> bool {
    !matches!(Scalar { quoted: false, text: scalar.text.clone() }.meaning(), Meaning::Text | Meaning::Null)
}

pub(super) fn is_of_type(rule: Rule, node: &Node) -> bool {
    match (&node.content, node.meaning()) {
        (Content::Map(_), _) => rule.has_type("object"),
        (Content::List(_), _) => rule.has_type("array"),
        (_, Some(Meaning::Int(_))) => rule.has_type("integer") || rule.has_type("number"),
        (_, Some(Meaning::Float(_))) => rule.has_type("number"),
        (_, Some(Meaning::Text)) => rule.has_type("string") && rule.words().is_none(),
        (_, Some(Meaning::Bool(_))) => rule.has_type("boolean"),
        _ => false,
    }
}

pub(super) fn expected(rule: Rule) -> String {
    if let Some(words) = rule.words() {
        return words.into_iter().map(shown).collect::<Vec<_>>().join(" or ");
    }
    match rule.text("format") {
        Some(units::DURATION) => return "a duration like 30s".to_owned(),
        Some(units::SIZE) => return "a size like 64KiB".to_owned(),
        _ => {}
    }
    if let Some(items) = rule.items() {
        return if items.has_type("object") { "a list" } else { LIST }.to_owned();
    }
    let (least, most) = range(rule);
    for (name, words) in [("object", "a mapping"), ("string", "text"), ("boolean", "true or false")] {
        if rule.has_type(name) {
            return words.to_owned();
        }
    }
    let kind = if rule.has_type("number") { "a number" } else { "a whole number" };
    format!("{kind} {}", in_words(least, most))
}

pub(super) fn found(node: &Node) -> &'static str {
    match (&node.content, node.meaning()) {
        (Content::Map(_), _) => "a mapping",
        (Content::List(_), _) => "a list",
        (_, Some(Meaning::Null)) => "nothing",
        (_, Some(Meaning::Bool(_))) => "true or false",
        (_, Some(Meaning::Int(_))) => "a number",
        (_, Some(Meaning::Float(_))) => "a fraction",
        _ => "text",
    }
}

pub(super) fn range(rule: Rule) -> (Option<i64>, Option<i64>) {
    let bound = |word: &str| rule.get(word).and_then(Value::as_i64);
    (bound("minimum"), bound("maximum"))
}

pub(super) fn in_words(least: Option<i64>, most: Option<i64>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => String::new(),
    }
}

/// What to write instead of a value of the wrong type, where only its form is wrong.
pub(super) fn instead(node: &Node, expected: &str, secret: bool, items: Option<Rule>) -> String {
    let Content::Scalar(scalar) = &node.content else { return String::new() };
    if scalar.quoted && expected != "text" && is_plain_value(scalar) {
        return "write it without quotes".to_owned();
    }
    match (expected, scalar.text.to_lowercase().as_str()) {
        ("true or false", "yes" | "on" | "y") => "write true".to_owned(),
        ("true or false", "no" | "off" | "n") => "write false".to_owned(),
        (LIST, text) if items.is_some_and(|items| items.has_type("integer")) && is_plain_value(scalar) => {
            format!("write [{text}]")
        }
        (LIST, text) if !secret && !text.is_empty() => format!("write [{}]", suggest::quoted(&scalar.text)),
        _ => String::new(),
    }
}
