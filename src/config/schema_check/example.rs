//! Examples: what to write instead of a value that does not fit, made from the schema and from what was written.

use serde_json::{Map, Value};

use crate::config::schema::Rule;
use crate::config::yaml::{Content, Meaning, Node, Scalar};

/// Words of other proxies, in places where this one has something for them.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &["timeout", "timeouts"],
        "timeouts towards servers are in the pool's \"connection\", those towards clients in listeners[].timeouts",
    ),
    (&["check", "checks", "healthcheck", "healthchecks"], "write health_check: { path: /healthz } in the pool"),
    (&["sticky", "stick", "stick-table", "session_persistence"], "write persistence: {} in the pool"),
    (&["cookie"], "write persistence: { cookie: { name: SESSIONID } } in the pool"),
];

/// Where a word of another proxy has its counterpart.
pub(super) fn foreign(word: &str) -> Option<String> {
    let known = FOREIGN.iter().find(|(words, _)| words.contains(&word.to_lowercase().as_str()))?;
    Some(format!("{}; see docs/migrating.md", known.1))
}

/// A value that fits the rule: what was written, put where it belongs, or else an example.
pub(super) fn fitting(rule: Rule, node: &Node, index: usize) -> Option<Value> {
    rearranged(rule, node, index).or_else(|| sample(rule, index))
}

/// What was written, where its place is known: a bare address is the address of a server.
fn rearranged(rule: Rule, node: &Node, index: usize) -> Option<Value> {
    let alternatives = rule.alternatives();
    if let [only] = alternatives.as_slice() {
        return rearranged(*only, node, index);
    }
    if let Some(items) = rule.items() {
        let one = match &node.content {
            Content::List(items_written) => {
                let all = items_written.iter().enumerate();
                return all.map(|(index, item)| rearranged(items, item, index)).collect();
            }
            Content::Map(_) => node.to_json(),
            Content::Scalar(_) => rearranged(items, node, 0)?,
        };
        return Some(Value::Array(vec![one]));
    }
    if rule.words().is_some_and(|words| words.contains(&&node.to_json())) {
        return Some(node.to_json());
    }
    match &node.content {
        Content::Scalar(scalar) if rule.has_type("string") && scalar.meaning() == Meaning::Text => {
            return Some(scalar.text.as_str().into());
        }
        // A word that is a key of the mapping, such as the name of a source.
        Content::Scalar(Scalar { text, .. }) if rule.get("maxProperties").is_some() => {
            let inner = rule.property(text).filter(|inner| !inner.flag("x-hidden"))?;
            return Some(Map::from_iter([(text.clone(), sample(inner, 0)?)]).into());
        }
        _ => {}
    }
    let key = rule.text("x-shorthand")?;
    let value = rearranged(rule.property(key)?, node, 0)?;
    let mut map = required(rule, index)?;
    map.insert(key.to_owned(), value);
    Some(map.into())
}

/// An example of the schema, its default, or what it must have at least.
pub(super) fn sample(rule: Rule, index: usize) -> Option<Value> {
    let alternatives = rule.alternatives();
    if let Some(example) = rule.list("examples").first() {
        return Some(example.clone());
    }
    let is_part = |default: &&Value| default.is_null() || default.is_object() || default.is_array();
    if let Some(default) = rule.get("default").filter(|default| !is_part(default)) {
        return Some(default.clone());
    }
    if let Some(words) = rule.words() {
        return words.first().map(|word| (*word).clone());
    }
    if let Some(first) = alternatives.first() {
        return sample(*first, index);
    }
    if let Some(items) = rule.items() {
        return Some(Value::Array(vec![sample(items, 0)?]));
    }
    if let Some(values) = rule.values() {
        return Some(Map::from_iter([("web".to_owned(), sample(values, 0)?)]).into());
    }
    rule.has_type("object").then(|| required(rule, index)).flatten().map(Value::from)
}

/// The keys that a mapping must have. Names in a list are a, b, c.
fn required(rule: Rule, index: usize) -> Option<Map<String, Value>> {
    let names = rule.list("required").iter().filter_map(Value::as_str);
    names
        .map(|name| {
            let letter = u8::try_from(index).ok().filter(|index| *index < 26).map(|index| char::from(b'a' + index));
            let value = match letter {
                Some(letter) if name == "name" => Some(letter.to_string().into()),
                _ => sample(rule.property(name)?, 0),
            };
            Some((name.to_owned(), value?))
        })
        .collect()
}

/// YAML in one line.
pub(super) fn flow(value: &Value) -> String {
    let entry = |(key, value): (&String, &Value)| format!("{key}: {}", flow(value));
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => format!("{{ {} }}", map.iter().map(entry).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Text that means the same without quotes, also within `{ }` and `[ ]`.
fn is_plain(text: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(safe)
        && !text.ends_with(':')
        && Scalar { text: text.to_owned(), quoted: false }.meaning() == Meaning::Text
}
