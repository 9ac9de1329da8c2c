//! The JSON Schema of the file: made from the raw types, printed for editors, and what a file is checked against.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;
use serde_json::json;

use super::raw::Root;

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Root>().to_value());

/// JSON Schema 2020-12 of the configuration file, for `homing config schema` and for editors.
pub fn schema() -> String {
    let mut schema = SCHEMA.clone();
    say_instead(&mut schema);
    format!("{schema:#}\n")
}

/// Says in words of the standard what `x-instead` means.
fn say_instead(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(say_instead),
        Value::Object(map) => {
            let instead = map.get("x-instead").and_then(Value::as_object).cloned();
            for (key, other) in instead.into_iter().flatten() {
                if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
                    required.retain(|one| *one != key);
                }
                map.insert("anyOf".to_owned(), json!([{ "required": [key] }, { "required": [other] }]));
            }
            map.values_mut().for_each(say_instead);
        }
        _ => {}
    }
}

/// The commented reference file, for `homing config example`.
pub fn example() -> &'static str {
    include_str!("../../conf/reference.yaml")
}

/// The schema as a value.
pub(crate) fn value() -> &'static Value {
    &SCHEMA
}

/// A place in the schema: what the key says about itself, and the type that it refers to.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    key: &'static Value,
    target: &'static Value,
}

impl Rule {
    pub(crate) fn root() -> Self {
        Self::new(value())
    }

    pub(crate) fn new(key: &'static Value) -> Self {
        let reference = key.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        Self { key, target: reference.and_then(|pointer| value().pointer(pointer)).unwrap_or(key) }
    }

    /// A word of the schema: what stands at the key goes before what stands at its type.
    pub(crate) fn get(self, word: &str) -> Option<&'static Value> {
        self.key.get(word).or_else(|| self.target.get(word))
    }

    pub(crate) fn text(self, word: &str) -> Option<&'static str> {
        self.get(word).and_then(Value::as_str)
    }

    pub(crate) fn flag(self, word: &str) -> bool {
        self.get(word) == Some(&Value::Bool(true))
    }

    pub(crate) fn list(self, word: &str) -> &'static [Value] {
        self.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has_type(self, name: &str) -> bool {
        match self.get("type") {
            Some(Value::String(only)) => only == name,
            Some(Value::Array(types)) => types.iter().any(|one| one == name),
            _ => false,
        }
    }

    /// The keys of a mapping, in the order of the alphabet.
    pub(crate) fn properties(self) -> impl Iterator<Item = (&'static str, Self)> {
        let properties = self.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(|(name, schema)| (name.as_str(), Self::new(schema)))
    }

    pub(crate) fn property(self, name: &str) -> Option<Self> {
        self.get("properties").and_then(|properties| properties.get(name)).map(Self::new)
    }

    /// Schema of the values of a mapping with free keys.
    pub(crate) fn values(self) -> Option<Self> {
        self.get("additionalProperties").filter(|schema| schema.is_object()).map(Self::new)
    }

    pub(crate) fn items(self) -> Option<Self> {
        self.get("items").map(Self::new)
    }

    /// The alternatives, `null` aside.
    pub(crate) fn alternatives(self) -> Vec<Self> {
        ["anyOf", "oneOf"]
            .iter()
            .flat_map(|word| self.list(word))
            .map(Self::new)
            .filter(|rule| !rule.is_null_only())
            .collect()
    }

    fn is_null_only(self) -> bool {
        self.get("type").and_then(Value::as_str) == Some("null")
    }

    pub(crate) fn takes_null(self) -> bool {
        self.has_type("null")
            || ["anyOf", "oneOf"].iter().flat_map(|word| self.list(word)).any(|one| Self::new(one).is_null_only())
    }

    /// The values of an enumeration, and `None` if it is not one.
    pub(crate) fn words(self) -> Option<Vec<&'static Value>> {
        if let Some(one) = self.get("const") {
            return Some(vec![one]);
        }
        if let Some(words) = self.get("enum").and_then(Value::as_array) {
            return Some(words.iter().collect());
        }
        let alternatives = self.alternatives();
        if alternatives.is_empty() {
            return None;
        }
        let words: Option<Vec<Vec<_>>> = alternatives.into_iter().map(Self::words).collect();
        words.map(|words| words.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_valid_and_takes_every_file_of_conf() {
        let printed: Value = serde_json::from_str(&schema()).unwrap();
        let validator = jsonschema::draft202012::new(&printed).unwrap();
        let mut seen = 0;
        for folder in ["conf", "conf/examples", "tests/data/config/valid"] {
            for file in crate::config::tests::yaml_files(folder) {
                let text = std::fs::read_to_string(&file).unwrap();
                let tree =
                    crate::config::yaml::parse(&text, &mut crate::config::diagnostics::Diagnostics::default()).unwrap();
                let errors: Vec<String> = validator
                    .iter_errors(&tree.to_json())
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                assert_eq!(errors, Vec::<String>::new(), "{}", file.display());
                seen += 1;
            }
        }
        assert!(seen > 5, "only {seen} files were found");
    }

    #[test]
    fn every_key_has_a_description() {
        fn walk(rule: Rule, path: &str) {
            for (name, property) in rule.properties() {
                let path = format!("{path}.{name}");
                assert!(property.text("description").is_some(), "{path}");
                walk(property, &path);
            }
            rule.items()
                .into_iter()
                .chain(rule.values())
                .chain(rule.alternatives())
                .for_each(|inner| walk(inner, path));
        }
        walk(Rule::root(), "");
    }
}
