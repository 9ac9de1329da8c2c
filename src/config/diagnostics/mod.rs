//! What is wrong with a file, and how it is shown: message, place, source line, help.

use std::fmt;
use std::fmt::Write;

use serde::Serialize;

pub(crate) mod source_text;

/// Most problems that are shown at once; a file with more is not the file that was meant.
const MOST_SHOWN: usize = 100;

/// Where something stands in the file: line and column from 1, length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// Cut at the end of the line when it is shown.
    pub(crate) length: usize,
    /// Last line, of a value that spans several, and the column behind its end there.
    pub(crate) end_line: usize,
    pub(crate) end_column: usize,
}

impl Location {
    /// One character.
    pub(crate) const fn point(line: usize, column: usize) -> Self {
        Self { line, column, length: 1, end_line: line, end_column: column + 1 }
    }
}

/// Something found on the way, before it is joined with the text of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    pub(crate) location: Option<Location>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(
        location: impl Into<Option<Location>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let help = help.into();
        Self { location: location.into(), message: message.into(), help: (!help.is_empty()).then_some(help) }
    }
}

/// Everything found on the way.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    pub(crate) problems: Vec<Diagnostic>,
    pub(crate) warnings: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(crate) fn problem(
        &mut self,
        location: impl Into<Option<Location>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(Diagnostic::new(location, message, help));
    }

    /// Whether a problem was found in a value.
    pub(crate) fn has_problem_in(&self, value: Location) -> bool {
        let found = self.problems.iter().filter_map(|problem| problem.location);
        let (begin, end) = ((value.line, value.column), (value.end_line, value.end_column));
        found.map(|at| (at.line, at.column)).any(|at| begin <= at && at < end)
    }

    pub(crate) fn warn(
        &mut self,
        location: impl Into<Option<Location>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.warnings.push(Diagnostic::new(location, message, help));
    }
}

/// How grave a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted, but this deserves attention.
    Warning,
}

/// One thing that is wrong, complete: it can be printed without the file at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence. Never holds a secret.
    pub message: String,
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; `None` = the file as a whole.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// What to write instead.
    pub help: Option<String>,
    #[serde(skip)]
    pub(crate) snippet: Option<Snippet>,
}

/// A source line as it is shown: secrets masked, tabs expanded, long lines cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snippet {
    pub(crate) text: String,
    /// Characters before the carets.
    pub(crate) indent: usize,
    /// Number of carets.
    pub(crate) carets: usize,
}

/// Something to look at in a file that is taken all the same.
pub type Warning = Problem;

impl Problem {
    /// The form of the manual, with terminal colours if asked for. No newline at the end.
    pub fn render(&self, colour: bool) -> String {
        let (name, tint) = match self.severity {
            Severity::Error => ("error", "\x1b[1;31m"),
            Severity::Warning => ("warning", "\x1b[1;33m"),
        };
        let paint = |code: &str, text: &str| if colour { format!("{code}{text}\x1b[0m") } else { text.to_owned() };
        let edge = |text: &str| paint("\x1b[1;34m", text);
        let number = self.line.map(|line| line.to_string()).unwrap_or_default();
        let width = number.len().max(1);
        let gap = " ".repeat(width);
        let mut out = format!("{}: {}\n{gap}{} {}", paint(tint, name), self.message, edge("-->"), self.file);
        if let (Some(line), Some(column)) = (self.line, self.column) {
            let _ = write!(out, ":{line}:{column}");
        }
        if let Some(snippet) = &self.snippet {
            let carets = format!("{}{}", " ".repeat(snippet.indent), paint(tint, &"^".repeat(snippet.carets)));
            let bar = edge("|");
            let source = if snippet.text.is_empty() { String::new() } else { format!(" {}", snippet.text) };
            let _ = write!(out, "\n{gap} {bar}\n{} {bar}{source}\n{gap} {bar} {carets}", edge(&number));
        }
        if let Some(help) = &self.help {
            let _ = write!(out, "\n{gap} {} help: {help}", edge("="));
        }
        out
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Why a file was refused: every problem, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems {
    list: Vec<Problem>,
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Problems {
    /// Joins diagnostics with the text of the file: only those that are shown, since each costs a pass over the file.
    pub(crate) fn new(mut diagnostics: Vec<Diagnostic>, report: impl Fn(&Diagnostic) -> Problem) -> Self {
        diagnostics.sort_by_key(|diagnostic| diagnostic.location);
        let more = diagnostics.len().saturating_sub(MOST_SHOWN);
        Self { list: diagnostics.iter().take(MOST_SHOWN).map(report).collect(), more }
    }

    pub(crate) fn into_list(self) -> Vec<Problem> {
        self.list
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// All of them in the form of the manual, with a last line that counts them if there are several.
    pub fn render(&self, colour: bool) -> String {
        let mut parts: Vec<String> = self.list.iter().map(|problem| problem.render(colour)).collect();
        match (self.more, self.list.len()) {
            (0, 0 | 1) => {}
            (0, count) => parts.push(format!("{count} problems")),
            (_, shown) => parts.push(format!("{} problems; the first {shown} are shown", self.count())),
        }
        parts.join("\n\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}
