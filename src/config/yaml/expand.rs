//! `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${file:/path}` in any scalar; `$${` is a literal `${`.
//!
//! One pass: what came from outside is not looked at again, so a variable cannot smuggle in another expansion.

use std::path::Path;

use super::tree::{Content, Node, Origin};
use crate::config::diagnostics::Diagnostics;
use crate::config::environment::Environment;

/// Most text that expansions may bring into one file, in bytes.
const MAX_EXPANDED: usize = 1024 * 1024;

/// Expands every scalar below the node. What cannot be expanded is reported and marked, so that nothing else is said
/// about it.
pub(crate) fn expand(node: &mut Node, environment: &dyn Environment, diagnostics: &mut Diagnostics) {
    Expansion { environment, diagnostics, left: MAX_EXPANDED }.node(node);
}

struct Expansion<'e> {
    environment: &'e dyn Environment,
    diagnostics: &'e mut Diagnostics,
    left: usize,
}

/// A message and a help.
type Refusal = (String, String);

impl Expansion<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.content {
            Content::List(items) => items.iter_mut().for_each(|item| self.node(item)),
            Content::Map(entries) => entries.iter_mut().for_each(|entry| self.node(&mut entry.value)),
            Content::Scalar(scalar) if scalar.text.contains("${") => match self.text(&scalar.text) {
                Ok((text, origin)) => {
                    scalar.text = text;
                    node.origin = origin;
                }
                Err((message, help)) => {
                    self.diagnostics.problem(node.location, message, help);
                    node.origin = Origin::Broken;
                }
            },
            Content::Scalar(_) => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<(String, Origin), Refusal> {
        let mut out = String::new();
        let mut origin = Origin::Literal;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(literal) = before.strip_suffix('$') {
                out.push_str(literal);
                out.push_str("${");
                rest = after;
                continue;
            }
            let Some((inside, tail)) = after.split_once('}') else {
                return Err((
                    "\"${\" is not closed".to_owned(),
                    "write \"}\" at its end, or \"$${\" for a literal \"${\"".to_owned(),
                ));
            };
            out.push_str(before);
            let (value, from) = self.value(inside)?;
            origin = if origin == Origin::OpenFile { origin } else { from };
            self.left = self.left.checked_sub(value.len()).ok_or_else(|| {
                ("expansions bring in too much text".to_owned(), "at most 1 MiB for the whole file".to_owned())
            })?;
            out.push_str(&value);
            rest = tail;
        }
        out.push_str(rest);
        Ok((out, origin))
    }

    fn value(&self, inside: &str) -> Result<(String, Origin), Refusal> {
        if let Some(path) = inside.strip_prefix("file:") {
            return self.file(path);
        }
        let (name, otherwise) = match inside.find(":-").or_else(|| inside.find(":?")) {
            Some(at) => (inside.get(..at).unwrap_or_default(), inside.get(at..).unwrap_or_default()),
            None => (inside, ""),
        };
        if !is_variable_name(name) {
            let message = format!("\"${{{}}}\" is not an expansion", shortened(name));
            let help =
                "write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}, or \"$${\" for a literal \"${\"";
            return Err((message, help.to_owned()));
        }
        let value = self.environment.variable(name);
        let full = value.as_ref().filter(|value| !value.is_empty());
        match (full, otherwise.strip_prefix(":-"), otherwise.strip_prefix(":?")) {
            (Some(value), _, _) => Ok((value.clone(), Origin::Expanded)),
            (None, Some(default), _) => Ok((default.to_owned(), Origin::Default)),
            (None, _, Some(message)) => {
                Err((format!("variable {name} is not set: {}", shortened(message)), String::new()))
            }
            (None, None, None) => match value {
                Some(empty) => Ok((empty, Origin::Expanded)),
                None => Err((
                    format!("variable {name} is not set"),
                    format!("set it, or write ${{{name}:-default}} for a value that stands in for it"),
                )),
            },
        }
    }

    fn file(&self, path: &str) -> Result<(String, Origin), Refusal> {
        if !path.starts_with('/') {
            return Err((
                format!("file {path:?} is not an absolute path"),
                "write ${file:/run/secrets/name}".to_owned(),
            ));
        }
        let file = self.environment.file(Path::new(path)).map_err(|why| {
            (
                format!("cannot read file {path}: {why}"),
                "the path must exist and be readable by the user that homing runs as".to_owned(),
            )
        })?;
        let text = file.text.strip_suffix('\n').unwrap_or(&file.text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let origin = if file.readable_by_others { Origin::OpenFile } else { Origin::Expanded };
        Ok((text.to_owned(), origin))
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::FileText;
    use crate::config::yaml;

    struct Fake;

    impl Environment for Fake {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "PORT" => Some("8080".to_owned()),
                "EMPTY" => Some(String::new()),
                "NESTED" => Some("${PORT}".to_owned()),
                "LONG" => Some("x".repeat(300_000)),
                _ => None,
            }
        }

        fn file(&self, path: &Path) -> Result<FileText, String> {
            match path.to_str() {
                Some("/run/secret") => Ok(FileText { text: "hidden\n".to_owned(), readable_by_others: false }),
                Some("/run/open") => Ok(FileText { text: "open\r\n".to_owned(), readable_by_others: true }),
                _ => Err("no such file".to_owned()),
            }
        }
    }

    fn expanded(value: &str) -> Result<(String, Origin), String> {
        let mut diagnostics = Diagnostics::default();
        let mut node = yaml::parse(&format!("a: {value}\n"), &mut diagnostics).unwrap();
        expand(&mut node, &Fake, &mut diagnostics);
        if let Some(problem) = diagnostics.problems.pop() {
            return Err(problem.message);
        }
        let value = &node.entry("a").unwrap().value;
        match &value.content {
            Content::Scalar(scalar) => Ok((scalar.text.clone(), value.origin)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_form_gives_its_value() {
        for (value, text) in [
            ("${PORT}", "8080"),
            ("127.0.0.1:${PORT}", "127.0.0.1:8080"),
            ("${PORT:-1}${NO:-2}", "80802"),
            ("${EMPTY:-full}", "full"),
            ("${EMPTY}", ""),
            ("${NO:-}", ""),
            ("\"${file:/run/secret}\"", "hidden"),
            ("${file:/run/open}", "open"),
            ("$${PORT}", "${PORT}"),
            ("$$${PORT}", "$${PORT}"),
            ("${NESTED}", "${PORT}"),
            ("${NO:-http://x:?y}", "http://x:?y"),
        ] {
            assert_eq!(expanded(value).map(|(text, _)| text), Ok(text.to_owned()), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (value, message) in [
            ("${NO}", "variable NO is not set"),
            ("${NO:?set it to the key}", "variable NO is not set: set it to the key"),
            ("${EMPTY:?needed}", "variable EMPTY is not set: needed"),
            ("${PORT", "\"${\" is not closed"),
            ("${9}", "\"${9}\" is not an expansion"),
            ("${}", "\"${}\" is not an expansion"),
            ("${file:run/x}", "file \"run/x\" is not an absolute path"),
            ("${file:/none}", "cannot read file /none: no such file"),
            ("${LONG}${LONG}${LONG}${LONG}", "expansions bring in too much text"),
        ] {
            assert_eq!(expanded(value), Err(message.to_owned()), "{value}");
        }
    }

    #[test]
    fn the_origin_tells_a_literal_default_from_a_value_of_the_environment() {
        assert_eq!(expanded("${NO:-x}").unwrap().1, Origin::Default);
        assert_eq!(expanded("${PORT}").unwrap().1, Origin::Expanded);
        assert_eq!(expanded("${file:/run/open}${PORT}").unwrap().1, Origin::OpenFile);
    }
}
