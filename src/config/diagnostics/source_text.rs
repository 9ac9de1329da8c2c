//! The text of the file, for showing one line of it: secrets masked, tabs expanded, long lines cut.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Diagnostic, Location, Problem, Severity, Snippet};
use crate::config::yaml::{Content, Node};

/// Widest part of a line that is shown, in characters.
const WIDEST: usize = 120;
/// How much of a long line is shown before the place.
const BEFORE: usize = 40;
const MASK: &str = "********";
const TAB: &str = "    ";

/// A file and which parts of it must not be shown.
pub(crate) struct SourceText<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
    hidden: Vec<Location>,
    /// The line that was shown last: in a file of one long line every problem is on it.
    latest: RefCell<Option<Line>>,
}

/// A line of the file, by its number, and as it is shown.
struct Line {
    number: usize,
    chars: Vec<char>,
    shown: Shown,
}

impl<'a> SourceText<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, lines: text.lines().collect(), hidden: Vec::new(), latest: RefCell::default() }
    }

    /// Learns from the tree, before anything is expanded, which values are literal secrets.
    pub(crate) fn hide_secrets_of(&mut self, root: &Node) {
        self.hide(root, false, &mut HashMap::new());
    }

    /// `known`: what was found out of keys before, of which few are different.
    fn hide<'n>(&mut self, node: &'n Node, secret: bool, known: &mut HashMap<&'n str, bool>) {
        match &node.content {
            Content::Scalar(scalar) => {
                if secret && !is_reference(&scalar.text) {
                    self.hidden.push(node.location);
                }
            }
            Content::List(items) => items.iter().for_each(|item| self.hide(item, secret, known)),
            Content::Map(entries) => {
                for entry in entries {
                    let plain = matches!(entry.key.as_str(), "id" | "name" | "role");
                    let holds = *known.entry(&entry.key).or_insert_with(|| holds_secrets(&entry.key));
                    if secret && !plain && !holds {
                        // A secret in the place of a key.
                        self.hidden.push(entry.key_location);
                    }
                    self.hide(&entry.value, !plain && (secret || holds), known);
                }
            }
        }
    }

    /// Joins a diagnostic with the text of the file.
    pub(crate) fn report(&self, severity: Severity, diagnostic: &Diagnostic) -> Problem {
        let location = diagnostic.location.map(|location| self.inside(location));
        Problem {
            severity,
            message: printable(&diagnostic.message),
            file: self.name.to_owned(),
            line: location.map(|location| location.line),
            column: location.map(|location| location.column),
            help: diagnostic.help.as_deref().map(printable),
            snippet: location.and_then(|location| self.snippet(location)),
        }
    }

    /// A place at the very end of the input may lie behind the last line: shown at the end of that line.
    fn inside(&self, location: Location) -> Location {
        let lines = self.lines.len().max(1);
        let (line, column) =
            if location.line > lines { (lines, usize::MAX) } else { (location.line.max(1), location.column) };
        let length = self.line(line).map_or(0, |text| text.chars().count());
        Location { line, column: column.clamp(1, length + 1), ..location }
    }

    fn line(&self, number: usize) -> Option<&'a str> {
        self.lines.get(number.checked_sub(1)?).copied()
    }

    fn snippet(&self, location: Location) -> Option<Snippet> {
        let mut latest = self.latest.borrow_mut();
        let known = latest.take().filter(|line| line.number == location.line);
        let Line { chars, shown, .. } = &*latest.insert(known.or_else(|| self.prepare(location.line))?);
        let start = location.column - 1;
        let mut end = start.saturating_add(location.length.max(1)).min(chars.len());
        // The parser counts blanks after a quoted value to it.
        while end > start + 1 && chars.get(end - 1).is_some_and(|last| last.is_whitespace()) {
            end -= 1;
        }
        let indent = shown.columns(start).0;
        let carets = shown.columns(end.max(start + 1) - 1).1.saturating_sub(indent).max(1);
        Some(cut(&shown.text, indent, carets))
    }

    fn prepare(&self, number: usize) -> Option<Line> {
        let chars: Vec<char> = self.line(number)?.trim_end().chars().collect();
        let mut masks = literal_secrets(&chars);
        masks.extend(self.hidden.iter().filter_map(|hidden| range_in_line(hidden, number, &chars)));
        let shown = Shown::new(&chars, &masks);
        Some(Line { number, chars, shown })
    }
}

/// `${NAME}` and `${file:…}` say where a secret is, not what it is; a default after `:-` says what it is.
fn is_reference(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("${")
        && text.ends_with('}')
        && text.matches("${").count() == 1
        && !text.contains(":-")
        && text.find('}') == Some(text.len() - 1)
}

/// Misspelled names count too: the problem that is shown may be just that.
fn holds_secrets(key: &str) -> bool {
    let key = key.to_lowercase();
    if key == "secure" {
        // A key of cookies, two letters away from "secret".
        return false;
    }
    matches!(key.as_str(), "keys" | "tokens")
        || ["secret", "password"].iter().any(|word| key.contains(word) || strsim::osa_distance(&key, word) <= 2)
}

fn range_in_line(hidden: &Location, line: usize, chars: &[char]) -> Option<(usize, usize)> {
    if line < hidden.line || line > hidden.end_line {
        return None;
    }
    let indent = chars.iter().take_while(|c| c.is_whitespace()).count();
    let start = if line == hidden.line { hidden.column.saturating_sub(1) } else { indent };
    let end = if line == hidden.end_line { hidden.end_column.saturating_sub(1) } else { chars.len() };
    let blanks = chars.iter().take(end).rev().take_while(|c| c.is_whitespace()).count();
    let end = end.min(chars.len()).saturating_sub(blanks);
    (start < end).then_some((start, end))
}

/// Values after `secret:` or `password:` and the user part of URLs, by their look: a file with a syntax error has
/// no tree that would know better.
fn literal_secrets(chars: &[char]) -> Vec<(usize, usize)> {
    let line: String = chars.iter().map(char::to_ascii_lowercase).collect();
    let mut found = Vec::new();
    for word in ["secret", "password"] {
        for (at, _) in line.match_indices(word) {
            let rest = line.get(at + word.len()..).unwrap_or_default();
            let after_key = rest.trim_start_matches(['"', '\'', ' ']);
            let Some(value) = after_key.strip_prefix(':') else { continue };
            let value = value.trim_start();
            let begin = line.len() - value.len();
            let in_flow = line.get(..at).is_some_and(|before| before.contains('{'));
            let length = value_length(value, in_flow);
            if value.get(..length).is_some_and(|text| !is_reference(text.trim().trim_matches(['"', '\''])))
                && length > 0
            {
                found.push(characters(&line, begin, begin + length));
            }
        }
    }
    found.extend(parts_of_urls(&line).into_iter().map(|(begin, end)| characters(&line, begin, end)));
    found
}

fn value_length(value: &str, in_flow: bool) -> usize {
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    if let Some(quote) = quote {
        return value.get(1..).and_then(|rest| rest.find(quote)).map_or(value.len(), |end| end + 2);
    }
    let end = if in_flow && !value.starts_with("${") { value.find([',', '}']) } else { None };
    value.get(..end.unwrap_or(value.len())).map_or(0, |value| value.trim_end().len())
}

/// Users and passwords of URLs. One that is refused may have anything in them, so they are looked for up to the end of
/// the value.
fn parts_of_urls(line: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for mark in ["://", "unix:"] {
        for (at, _) in line.match_indices(mark) {
            let begin = at + mark.len();
            let before = line.get(..at).unwrap_or_default();
            let before_scheme = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '+');
            let scheme = before.get(before_scheme.len()..).unwrap_or_default();
            let rest = line.get(begin..).unwrap_or_default();
            let ends: &[&str] = match before_scheme.chars().next_back() {
                Some('"') => &["\""],
                Some('\'') => &["'"],
                _ if before.contains(['[', '{']) => &[" #", ", "],
                _ => &[" #"],
            };
            let length = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
            let value = rest.get(..length).unwrap_or_default();
            let part = if mark == "unix:" { query_part(value) } else { user_part(scheme, value) };
            found.extend(part.map(|(from, to)| (begin + from, begin + to)));
        }
    }
    found
}

fn query_part(value: &str) -> Option<(usize, usize)> {
    value.find('?').map(|at| (at + 1, value.len()))
}

fn user_part(scheme: &str, value: &str) -> Option<(usize, usize)> {
    if let Some(end) = value.rfind('@') {
        return Some((0, end));
    }
    // Without an "@", what should be a port may be a password.
    let port = value.rsplit_once(':')?.1.trim_end_matches(['/', ']', '}', ' ']);
    let is_port = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit() || c == '/');
    (scheme.starts_with("redis") && !is_port).then_some((0, value.len()))
}

/// Byte positions to character positions.
fn characters(line: &str, begin: usize, end: usize) -> (usize, usize) {
    let count = |to: usize| line.get(..to).map_or(0, |text| text.chars().count());
    (count(begin), count(end))
}

/// A line as it is shown, and where each of its characters went: first column, and the one behind its last.
struct Shown {
    text: Vec<char>,
    columns: Vec<(usize, usize)>,
}

impl Shown {
    fn new(chars: &[char], masks: &[(usize, usize)]) -> Self {
        let mut shown = Self { text: Vec::new(), columns: Vec::new() };
        let mut in_mask = None;
        for (at, char) in chars.iter().enumerate() {
            let masked = masks.iter().any(|(begin, end)| (*begin..*end).contains(&at));
            if let (true, Some(columns)) = (masked, in_mask) {
                shown.columns.push(columns);
                continue;
            }
            let from = shown.text.len();
            match char {
                _ if masked => shown.text.extend(MASK.chars()),
                '\t' => shown.text.extend(TAB.chars()),
                char => shown.text.push(printable_char(*char)),
            }
            let columns = (from, shown.text.len());
            shown.columns.push(columns);
            in_mask = masked.then_some(columns);
        }
        shown
    }

    fn columns(&self, at: usize) -> (usize, usize) {
        self.columns.get(at).copied().unwrap_or((self.text.len(), self.text.len() + 1))
    }
}

fn cut(text: &[char], indent: usize, carets: usize) -> Snippet {
    if text.len() <= WIDEST {
        return Snippet { text: text.iter().collect(), indent, carets };
    }
    let from = indent.saturating_sub(BEFORE);
    let mut out: String = text.iter().skip(from).take(WIDEST).collect();
    let mut new_indent = indent - from;
    if from > 0 {
        out.insert(0, '…');
        new_indent += 1;
    }
    if from + WIDEST < text.len() {
        out.push('…');
    }
    let room = out.chars().count().saturating_sub(new_indent).max(1);
    Snippet { text: out, indent: new_indent, carets: carets.min(room) }
}

/// A file may hold escape sequences; a terminal must not see them.
fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

fn printable_char(char: char) -> char {
    if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, location: Location) -> String {
        SourceText::new("f.yaml", text).report(Severity::Error, &Diagnostic::new(location, "m", "")).to_string()
    }

    fn location(line: usize, column: usize, length: usize) -> Location {
        Location { line, column, length, end_line: line, end_column: column + length }
    }

    #[test]
    fn a_problem_has_the_form_of_the_manual() {
        let text = "a: 1\n".repeat(40) + "    pool: shopp\n";
        let problem = Diagnostic::new(
            location(41, 11, 5),
            "pool \"shopp\" does not exist",
            "did you mean \"shop\"? pools: api, shop",
        );
        assert_eq!(
            SourceText::new("homing.yaml", &text).report(Severity::Error, &problem).to_string(),
            "error: pool \"shopp\" does not exist\n  --> homing.yaml:41:11\n   |\n41 |     pool: shopp\n   \
             |           ^^^^^\n   = help: did you mean \"shop\"? pools: api, shop"
        );
    }

    #[test]
    fn a_tab_is_four_columns_wide_and_escape_sequences_are_not_shown() {
        let text = shown("\ta: \u{1b}[31mx", location(1, 5, 6));
        assert!(text.ends_with("1 |     a: \u{fffd}[31mx\n  |        ^^^^^^"), "{text}");
    }

    #[test]
    fn each_problem_of_a_line_and_of_others_is_shown_at_its_place() {
        let text = "one: 1, secret: hunter2, two: 2\nthree: 3\n";
        let source = SourceText::new("f.yaml", text);
        for (line, column) in [(1, 1), (1, 26), (2, 1), (1, 26), (2, 8), (3, 1)] {
            let diagnostic = Diagnostic::new(location(line, column, 1), "m", "");
            let shown = source.report(Severity::Error, &diagnostic);
            assert_eq!(shown, SourceText::new("f.yaml", text).report(Severity::Error, &diagnostic), "{line}:{column}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = shown(&format!("{}HERE{}", "x".repeat(500), "y".repeat(500)), location(1, 501, 4));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[3].chars().count() < 130, "{text}");
        let at = lines[4].chars().position(|c| c == '^').unwrap();
        let under: String = lines[3].chars().skip(at).take(4).collect();
        assert_eq!(under, "HERE", "{text}");
    }

    #[test]
    fn literal_secrets_are_masked_wherever_they_stand() {
        for line in [
            "  - { id: k1, secret: hunter2hunter2, id: k2 }",
            "    secret: \"hunter2 hunter2\"",
            "    secret: 'hunter2'   # old",
            "    password: hunter2",
            "    \"secret\" : hunter2",
            "    secret: ${X:-hunter2}",
            "    urls: [\"redis://:hunter2@10.0.0.1\"]",
            "    urls: [\"redis://:x@10.0.0.1\", 'rediss://u:a/hunter2 b@10.0.0.1', \"redis://10.0.0.1\"]",
            "    urls: [redis://:x@10.0.0.1, redis://:hunter2@10.0.0.1]",
            "      - redis://u:a, b hunter2@10.0.0.1",
            "      - redis://u:hunter2",
            "      - \"unix:/run/redis.sock?pass=hunter2\"",
            "      - redis+unix:///run/redis.sock?pas=hunter2&x",
            "      - \"redis://u:hunter2@10",
            "    secret: \"hunter2",
        ] {
            let text = shown(line, location(1, 6, 3));
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("********"), "{text}");
        }
        assert!(shown("secret: ${file:/run/x}", location(1, 1, 6)).contains("${file:/run/x}"));
        let plain = "urls: [\"redis://10.0.0.1:6379/0\", redis://b:1, 'unix:/run/x', http://c:x]";
        assert!(shown(plain, location(1, 1, 4)).contains(plain));
    }

    #[test]
    fn a_place_behind_the_last_line_is_shown_at_its_end() {
        let text = shown("a: 1\nb: [", Location::point(3, 1));
        assert!(text.contains("f.yaml:2:5"), "{text}");
        assert!(shown("", Location::point(7, 9)).contains("f.yaml:1:1"));
    }
}
