//! Checks the tree against the schema: every problem at once, each at its place.
//!
//! What is wrong is reported and left out of the result, so that the rest can still be checked further; what the
//! schema takes comes back in the type that it asks for.

use serde_json::Value;

use super::diagnostics::{Diagnostics, Location};
use super::schema::Rule;
use super::suggest;
use super::units;
use super::units::{Size, parse_duration};
use super::yaml::{Content, Entry, Meaning, Node, Origin, Scalar};
use wording::{expected, found, in_words, is_of_type, range, shown};

mod example;
mod wording;

/// The part of the tree that has the shape of the schema, or `None` if nothing of it has.
pub(crate) fn conforming(root: &Node, diagnostics: &mut Diagnostics) -> Option<Node> {
    SchemaCheck { diagnostics }.node(Rule::root(), root, &KeyPath::default())
}

/// The key that is checked, for messages.
#[derive(Clone, Default)]
struct KeyPath {
    text: String,
    /// Values here are not printed.
    secret: bool,
}

impl KeyPath {
    fn key(&self, key: &str) -> Self {
        let dot = if self.text.is_empty() { "" } else { "." };
        Self { text: format!("{}{dot}{key}", self.text), secret: self.secret || self.text.is_empty() && key == "keys" }
    }

    fn item(&self, index: usize) -> Self {
        Self { text: format!("{}[{index}]", self.text), secret: self.secret }
    }

    fn value(&self, text: &str) -> String {
        if self.secret { "this value".to_owned() } else { suggest::quoted(text) }
    }
}

struct SchemaCheck<'f> {
    diagnostics: &'f mut Diagnostics,
}

impl SchemaCheck<'_> {
    fn node(&mut self, rule: Rule, node: &Node, path: &KeyPath) -> Option<Node> {
        if node.origin == Origin::Broken {
            return None;
        }
        if node.is_null() && rule.takes_null() {
            return Some(node.clone());
        }
        if let Some(words) = rule.words() {
            return self.word(rule, &words, node, path);
        }
        match rule.alternatives().as_slice() {
            [] => self.typed(rule, node, path),
            [only] => self.node(*only, node, path),
            several => self.one_of(rule, several, node, path),
        }
    }

    fn word(&mut self, rule: Rule, words: &[&Value], node: &Node, path: &KeyPath) -> Option<Node> {
        let value = node.to_json();
        if words.contains(&&value) {
            return Some(node.clone());
        }
        let names: Vec<String> =
            words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Content::Scalar(scalar) = &node.content else {
            return self.mistyped(rule, node, path, &names.join(" or "));
        };
        let unquoted = Node { content: Content::Scalar(Scalar { quoted: false, ..scalar.clone() }), ..*node };
        let text = &scalar.text;
        // A word that looks like a number, as a version does.
        if !scalar.quoted && words.iter().any(|word| word.as_str() == Some(text)) {
            return Some(as_text(node, text));
        }
        if node.is_null() || words.contains(&&unquoted.to_json()) {
            return self.mistyped(rule, node, path, &names.join(" or "));
        } else if names == ["1"] && path.text == "version" {
            self.diagnostics.problem(
                node.location,
                format!("version {} is not known", suggest::quoted(text).trim_matches('"')),
                "write version: 1",
            );
        } else {
            let message = format!("\"{}\" cannot be {}", path.text, path.value(text));
            self.diagnostics.problem(node.location, message, suggest::help(text, &names, "it can be"));
        }
        None
    }

    /// The alternative that takes the value; if none does, the one of its type says why.
    fn one_of(&mut self, whole: Rule, rules: &[Rule], node: &Node, path: &KeyPath) -> Option<Node> {
        let mut nearest = None;
        for rule in rules {
            let mut diagnostics = Diagnostics::default();
            if let Some(node) = (SchemaCheck { diagnostics: &mut diagnostics }).node(*rule, node, path) {
                return Some(node);
            }
            if is_of_type(*rule, node) {
                nearest = Some(diagnostics);
            }
        }
        let Some(nearest) = nearest else {
            let expected: Vec<String> = rules.iter().map(|rule| expected(*rule)).collect();
            return self.mistyped(whole, node, path, &expected.join(" or "));
        };
        self.diagnostics.problems.extend(nearest.problems);
        None
    }

    fn typed(&mut self, rule: Rule, node: &Node, path: &KeyPath) -> Option<Node> {
        match &node.content {
            Content::Map(entries) if rule.has_type("object") => self.map(rule, node, entries, path),
            Content::List(items) if rule.has_type("array") => self.list(rule, node, items, path),
            Content::Scalar(scalar) if rule.has_type("string") => self.string(rule, node, scalar, path),
            Content::Scalar(scalar) if rule.has_type("integer") => self.integer(rule, node, scalar, path),
            Content::Scalar(scalar) if rule.has_type("number") => self.number(rule, node, scalar, path),
            Content::Scalar(scalar) if rule.has_type("boolean") && matches!(scalar.meaning(), Meaning::Bool(_)) => {
                Some(node.clone())
            }
            _ => self.mistyped(rule, node, path, &expected(rule)),
        }
    }

    fn map(&mut self, rule: Rule, node: &Node, entries: &[Entry], path: &KeyPath) -> Option<Node> {
        let shown = rule.properties().filter(|(_, property)| !property.flag("x-hidden"));
        let names: Vec<&str> = shown.map(|(name, _)| name).collect();
        let mut kept = Vec::new();
        for entry in entries {
            let Some(inner) = rule.property(&entry.key).or_else(|| rule.values()) else {
                // What stands in the place of a key among secrets may be one.
                let hidden = path.secret && suggest::nearest(&entry.key, names.iter().copied()).is_none();
                let key = if hidden { String::new() } else { format!(" {}", suggest::quoted(&entry.key)) };
                let message = format!("unknown key{key}");
                let near = suggest::nearest(&entry.key, names.iter().copied());
                let help = example::foreign(&entry.key).filter(|_| near.is_none());
                let help = help.unwrap_or_else(|| suggest::help(&entry.key, &names, "keys here"));
                self.diagnostics.problem(entry.key_location, message, help);
                continue;
            };
            let mut inner_path = path.key(&entry.key);
            inner_path.secret = (inner_path.secret && entry.key != "id") || inner.flag("x-secret");
            if let Some(value) = self.node(inner, &entry.value, &inner_path) {
                kept.push(Entry { value, ..entry.clone() });
            }
        }
        let missing = self.missing(rule, node, entries, path);
        if !missing && !self.counted(rule, node, entries.len(), path) {
            return None;
        }
        if path.text.is_empty() {
            stand_in(&mut kept, node);
        }
        stand_in_for_required(rule, &mut kept, node);
        let complete = rule.list("required").iter().all(|name| kept.iter().any(|entry| *name == entry.key));
        // A mapping that needs a key and has none left was reported already.
        let empty = kept.is_empty() && rule.get("maxProperties").is_some();
        (complete && !empty).then_some(Node { content: Content::Map(kept), ..*node })
    }

    fn missing(&mut self, rule: Rule, node: &Node, entries: &[Entry], path: &KeyPath) -> bool {
        let missing: Vec<&str> = rule
            .list("required")
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| !entries.iter().any(|entry| entry.key == *name) && !has_instead(rule, name, entries))
            .collect();
        for name in &missing {
            let location = if path.text.is_empty() { None } else { Some(node.location) };
            let message = format!("\"{}\" is missing", path.key(name).text);
            let about = rule.property(name).and_then(|rule| rule.text("description")).unwrap_or_default();
            let first = about.split_inclusive(". ").next().unwrap_or_default().trim_end();
            let value = rule.property(name).and_then(|rule| example::sample(rule, 0));
            // Single quotes, within the double quotes of the help.
            let value = value.map_or_else(|| "…".to_owned(), |value| example::flow(&value).replace('"', "'"));
            self.diagnostics.problem(
                location,
                message,
                format!("write \"{name}: {value}\". {}", first.replace('\n', " ")),
            );
        }
        !missing.is_empty()
    }

    /// Whether a mapping or list has as many parts as it should.
    fn counted(&mut self, rule: Rule, node: &Node, count: usize, path: &KeyPath) -> bool {
        let limit = |word: &str| rule.get(word).and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        let least = limit("minItems").or_else(|| limit("minProperties")).unwrap_or(0);
        let most = limit("maxProperties").unwrap_or(usize::MAX);
        let message = match (count < least, count > most) {
            (true, _) => format!("\"{}\" is empty; it needs at least one entry", path.text),
            (_, true) => format!("\"{}\" has {count} keys; it takes one", path.text),
            _ => return true,
        };
        let help = if most == 1 { "one source an entry, like \"- cookie: {}\"" } else { "" };
        self.diagnostics.problem(node.location, message, help);
        false
    }

    fn list(&mut self, rule: Rule, node: &Node, items: &[Node], path: &KeyPath) -> Option<Node> {
        let inner = rule.items()?;
        let mut kept: Vec<Node> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let item_path = path.item(index);
            let value = item.to_json();
            let Some(item) = self.node(inner, item, &item_path) else { continue };
            if rule.flag("uniqueItems") && kept.iter().any(|other| other.to_json() == value) {
                let message = format!("\"{}\" holds {} twice", path.text, item_path.value(&shown(&value)));
                self.diagnostics.problem(item.location, message, "remove one of them");
                continue;
            }
            kept.push(item);
        }
        self.counted(rule, node, items.len(), path).then_some(Node { content: Content::List(kept), ..*node })
    }

    fn string(&mut self, rule: Rule, node: &Node, scalar: &Scalar, path: &KeyPath) -> Option<Node> {
        let format = rule.text("format").unwrap_or_default();
        let text = scalar.text.as_str();
        if format == units::DURATION || format == units::SIZE {
            return self.quantity(rule, node, text, path).then(|| as_text(node, text));
        }
        match scalar.meaning() {
            Meaning::Text => Some(node.clone()),
            Meaning::Null => self.mistyped(rule, node, path, "text"),
            // A variable whose value happens to look like a number is text all the same.
            _ if node.origin != Origin::Literal => Some(as_text(node, text)),
            _ => {
                let message = format!("\"{}\" needs text, not {}", path.text, found(node));
                let help = if path.secret {
                    "write it in quotes".to_owned()
                } else {
                    format!("write it in quotes: \"{text}\"")
                };
                self.diagnostics.problem(node.location, message, help);
                None
            }
        }
    }

    fn quantity(&mut self, rule: Rule, node: &Node, text: &str, path: &KeyPath) -> bool {
        let is_duration = rule.text("format") == Some(units::DURATION);
        let read = |text: &str| {
            if is_duration {
                parse_duration(text).map(|duration| duration.as_millis())
            } else {
                Size::parse(text).map(|size| size.0.into())
            }
        };
        let (kind, forms, bare) = if is_duration {
            ("duration", "30s, 5m, 1h30m or 250ms", "s")
        } else {
            ("size", "512B, 64KiB or 8MiB", "B")
        };
        if let Some(value) = read(text) {
            let bound = |word: &str| rule.text(word).and_then(|bound| read(bound).map(|value| (value, bound)));
            if let Some((_, least)) = bound("x-minimum").filter(|(least, _)| value < *least) {
                self.diagnostics.problem(
                    node.location,
                    format!("\"{}\" is too small: {text}", path.text),
                    format!("at least {least}"),
                );
                return false;
            }
            if let Some((_, most)) = bound("x-maximum").filter(|(most, _)| value > *most) {
                self.diagnostics.problem(
                    node.location,
                    format!("\"{}\" is too large: {text}", path.text),
                    format!("at most {most}"),
                );
                return false;
            }
            return true;
        }
        let in_milliseconds = is_duration && rule.text("default").is_some_and(|default| default.ends_with("ms"));
        let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        if digits {
            self.diagnostics.problem(
                node.location,
                format!("a {kind} needs a unit: \"{}\" is {text}", path.text),
                format!("write {text}{}", if in_milliseconds { "ms" } else { bare }),
            );
        } else if node.is_null() {
            self.mistyped(rule, node, path, &expected(rule));
        } else {
            self.diagnostics.problem(
                node.location,
                format!("\"{}\" is not a {kind}: {}", path.text, path.value(text)),
                format!("write it like {forms}"),
            );
        }
        false
    }

    fn integer(&mut self, rule: Rule, node: &Node, scalar: &Scalar, path: &KeyPath) -> Option<Node> {
        let Meaning::Int(value) = scalar.meaning() else {
            return self.mistyped(rule, node, path, &expected(rule));
        };
        let (least, most) = range(rule);
        if least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most) {
            // Hexadecimal and a plus sign are the tree's business, not the shape's.
            return Some(node.clone());
        }
        let help = if value == -1 { "there is no value for \"unlimited\" here" } else { "" };
        self.diagnostics.problem(
            node.location,
            format!("\"{}\" is {value}; it must be {}", path.text, in_words(least, most)),
            help,
        );
        None
    }

    fn number(&mut self, rule: Rule, node: &Node, scalar: &Scalar, path: &KeyPath) -> Option<Node> {
        let value = match scalar.meaning() {
            Meaning::Float(value) => value,
            Meaning::Int(value) => value as f64,
            _ => return self.mistyped(rule, node, path, &expected(rule)),
        };
        let (least, most) = range(rule);
        if least.is_none_or(|least| value >= least as f64) && most.is_none_or(|most| value <= most as f64) {
            return Some(node.clone());
        }
        let message = format!("\"{}\" is {value}; it must be {}", path.text, in_words(least, most));
        self.diagnostics.problem(node.location, message, "");
        None
    }

    fn mistyped(&mut self, rule: Rule, node: &Node, path: &KeyPath, expected: &str) -> Option<Node> {
        let name = if path.text.is_empty() { "the file".to_owned() } else { format!("\"{}\"", path.text) };
        let mut help = wording::instead(node, expected, path.secret, rule.items());
        if help.is_empty()
            && let Some(example) = Self::example(rule, node, path)
        {
            help = if node.is_null() {
                format!("remove the key for its default, or write {example}")
            } else {
                format!("write {example}")
            };
        }
        self.diagnostics.problem(
            first_line(node.location),
            format!("{name} needs {expected}, not {}", found(node)),
            help,
        );
        None
    }

    /// What to write instead of a value of the wrong type: it passes this check.
    fn example(rule: Rule, node: &Node, path: &KeyPath) -> Option<String> {
        let index = path.text.rsplit_once('[').and_then(|(_, index)| index.strip_suffix(']')?.parse().ok());
        let value = if path.secret {
            example::sample(rule, index.unwrap_or(0))
        } else {
            example::fitting(rule, node, index.unwrap_or(0))
        };
        let fits = |value: &Value| {
            let mut diagnostics = Diagnostics::default();
            let node = Node::from_json(value, node.location);
            let taken = SchemaCheck { diagnostics: &mut diagnostics }.node(rule, &node, path).is_some();
            taken && diagnostics.problems.is_empty()
        };
        let value = value.filter(fits).or_else(|| example::sample(rule, index.unwrap_or(0)).filter(fits))?;
        Some(match (index, &value, path.text.rsplit('.').next()) {
            (Some(_), Value::Object(map), _) if map.len() == 1 => {
                let (key, value) = map.iter().next()?;
                format!("{key}: {}", example::flow(value))
            }
            (None, _, Some(key)) if !key.is_empty() => format!("{key}: {}", example::flow(&value)),
            _ => example::flow(&value),
        })
    }
}

/// Stands in for what every file needs and this one lacks, which was reported: the rest can be checked all the same.
fn stand_in(kept: &mut Vec<Entry>, root: &Node) {
    let one = Content::Scalar(Scalar { text: "1".to_owned(), quoted: false });
    for (key, content) in [("version", one), ("listeners", Content::List(vec![])), ("pools", Content::Map(vec![]))] {
        if !kept.iter().any(|entry| entry.key == key) {
            kept.push(Entry { key: key.to_owned(), key_location: root.location, value: Node { content, ..*root } });
        }
    }
}

/// Whether the key is written that may be there instead of that one.
fn has_instead(rule: Rule, name: &str, entries: &[Entry]) -> bool {
    let other = rule.get("x-instead").and_then(|instead| instead.get(name)).and_then(Value::as_str);
    other.is_some_and(|other| entries.iter().any(|entry| entry.key == other && !entry.value.is_null()))
}

/// The rest of a mapping is checked without a key that it must have, where something can stand in for it. What is missing or
/// wrong was reported.
fn stand_in_for_required(rule: Rule, kept: &mut Vec<Entry>, node: &Node) {
    for key in rule.list("required").iter().filter_map(Value::as_str) {
        let stand_in = rule.property(key).and_then(|property| property.get("x-stand-in"));
        if let Some(stand_in) = stand_in.filter(|_| !kept.iter().any(|entry| entry.key == key)) {
            let value = Node { origin: Origin::Broken, ..Node::from_json(stand_in, node.location) };
            kept.push(Entry { key: key.to_owned(), key_location: node.location, value });
        }
    }
}

/// Only the beginning of a long value is underlined when its kind is wrong.
fn first_line(location: Location) -> Location {
    Location { end_line: location.line, ..location }
}

fn as_text(node: &Node, text: &str) -> Node {
    Node { content: Content::Scalar(Scalar { text: text.to_owned(), quoted: true }), ..*node }
}
