//! `docs/configuration.md`, written from the schema, so that it cannot drift.

use std::fmt::Write;

use serde_json::Value;

use super::schema::Rule;

const HEAD: &str = "# Configuration

Every key of the configuration file: what it means, its default, its range, and whether a reload changes it. This page
is written from the doc comments in `src/config/raw/` by a test; edit them, then run
`UPDATE_DOCS=1 cargo test config::manual`.

- `conf/minimal.yaml` is the smallest useful file, `conf/reference.yaml` spells out every default, `conf/examples/` has
  whole files for real uses. `homing check --config FILE` tells all that is wrong with a file, each problem with its
  line and what to write instead; `homing config schema` prints a JSON Schema for editors; `homing config show` prints
  what a file amounts to, with every default. In place of a secret it writes `${HOMING_KEY_<ID>}`, in place of a
  password of Redis `${HOMING_REDIS_PASSWORD}`, of one of Ignite `${HOMING_IGNITE_PASSWORD}`, so what it prints loads again
  where these variables are set.
- YAML 1.2: `yes`, `on` and the like are text. Anchors, aliases and merge keys (`<<: *name`) are understood. A file has
  at most 8 MiB, one document and 64 levels.
- Durations have a unit: `250ms`, `30s`, `5m`, `1h30m`, `7d`. Sizes too: `512B`, `64KiB`, `8MiB`. A bare number is an error.
- In any value, but not in keys: `${NAME}` is a variable of the environment (it must be set), `${NAME:-default}` has a
  default for one that is unset or empty, `${NAME:?message}` an error message, `${file:/path}` is the text of a file of
  at most 64 KiB, without the newline at its end. `$${` is a literal `${`. What a value comes to without quotes is read
  like any value: `weight: ${WEIGHT}` is a number. Within `{ }` and `[ ]` an expansion needs quotes.
- Unknown keys, repeated keys and repeated names are errors.
- homing reloads the file by itself when it changes, and at HUP. A broken file changes nothing. Keys marked *restart*
  keep their old value until then.
";

fn manual() -> String {
    let mut out = HEAD.to_owned();
    for (name, rule) in ordered(Rule::root()) {
        writeln!(out, "\n## {name}").unwrap();
        let restart = rule.flag("x-restart");
        entry(&mut out, name, rule, required(Rule::root(), name), restart);
        inside(&mut out, name, rule, restart);
    }
    out
}

/// In the order of the reference file, which is that of a reader, not of the alphabet.
fn ordered(rule: Rule) -> Vec<(&'static str, Rule)> {
    let position = |name: &str| {
        super::example()
            .lines()
            .position(|line| line.trim_start_matches(['#', ' ', '-']).starts_with(&format!("{name}:")))
    };
    let mut keys: Vec<_> = rule.properties().filter(|(_, property)| !property.flag("x-hidden")).collect();
    keys.sort_by_key(|(name, _)| position(name));
    keys
}

fn required(rule: Rule, name: &str) -> bool {
    rule.list("required").iter().any(|one| one == name)
}

fn inside(out: &mut String, path: &str, rule: Rule, restart: bool) {
    if let Some(items) = rule.items() {
        return inside(out, &format!("{path}[]"), items, restart);
    }
    if let Some(values) = rule.values() {
        let name = rule.text("x-key").unwrap_or("NAME");
        return inside(out, &format!("{path}.{name}"), values, restart);
    }
    let alternatives = rule.alternatives();
    if let ([only], true) = (alternatives.as_slice(), rule.properties().next().is_none()) {
        return inside(out, path, *only, restart);
    }
    for (name, property) in ordered(rule) {
        let path = format!("{path}.{name}");
        let restart = restart || property.flag("x-restart");
        writeln!(out, "\n### {path}").unwrap();
        entry(out, &path, property, required(rule, name), restart);
        inside(out, &path, property, restart);
    }
}

fn entry(out: &mut String, path: &str, rule: Rule, required: bool, restart: bool) {
    let description = rule.text("description").unwrap_or_default();
    writeln!(out, "\n{}\n", description.replace('\n', " ")).unwrap();
    let default =
        rule.get("default").map(|default| if is_long(default) { "as below".to_owned() } else { code(default) });
    writeln!(
        out,
        "- Default: {}",
        if required { "none, must be written".to_owned() } else { default.unwrap_or_else(|| "absent".to_owned()) }
    )
    .unwrap();
    if let Some(range) = range(rule) {
        writeln!(out, "- Range: {range}").unwrap();
    }
    for (word, meaning) in meanings(rule) {
        writeln!(out, "  - `{word}`: {meaning}").unwrap();
    }
    writeln!(out, "- Reload: {}", if restart { "no, restart" } else { "yes" }).unwrap();
    if let Some(example) = rule.list("examples").first() {
        let key = path.rsplit('.').next().unwrap_or(path);
        writeln!(out, "- Example: `{key}: {}`", flow(example)).unwrap();
    }
}

/// A mapping whose own keys have their defaults below.
fn is_long(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => items.iter().any(is_long) && items.len() > 1,
        _ => false,
    }
}

fn code(value: &Value) -> String {
    format!("`{}`", flow(value))
}

/// YAML in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.contains(['$', ':', '[', '#', '{', '*']) => {
            format!("\"{text}\"")
        }
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => format!(
            "{{ {} }}",
            map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect::<Vec<_>>().join(", ")
        ),
        other => other.to_string(),
    }
}

fn range(rule: Rule) -> Option<String> {
    if let Some(words) = rule.words() {
        return Some(words.into_iter().map(code).collect::<Vec<_>>().join(", "));
    }
    if let Some(items) = rule.items() {
        let inner = range(items).map(|inner| format!("a list of: {inner}"));
        let least = rule.get("minItems").map(|least| format!("at least {least} entry"));
        return [least, inner].into_iter().flatten().reduce(|all, one| format!("{all}; {one}"));
    }
    let alternatives = rule.alternatives();
    if alternatives.len() > 1 {
        let all: Vec<String> = alternatives.into_iter().filter_map(range).collect();
        return Some(all.join(" or "));
    }
    let bound = |number: &str, text: &str| {
        rule.get(number).map(ToString::to_string).or_else(|| rule.text(text).map(str::to_owned))
    };
    let range = match (bound("minimum", "x-minimum"), bound("maximum", "x-maximum")) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, Some(most)) => format!("up to {most}"),
        (None, None) if rule.has_type("boolean") => "`true`, `false`".to_owned(),
        (None, None) => return None,
    };
    Some(if rule.takes_null() { format!("{range}, or `null`") } else { range })
}

/// Words with a meaning of their own.
fn meanings(rule: Rule) -> Vec<(&'static str, &'static str)> {
    let words = |rule: Rule| -> Vec<_> {
        let one = |rule: Rule| Some((rule.text("const")?, rule.text("description")?));
        rule.list("oneOf").iter().map(Rule::new).filter_map(one).collect()
    };
    rule.items().map_or_else(|| words(rule), words)
}

#[test]
fn the_manual_is_up_to_date() {
    let file = super::tests::path_of("docs/configuration.md");
    let written = manual();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &written).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(stored, written, "run with UPDATE_DOCS=1");
}
