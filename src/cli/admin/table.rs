//! Tables and lists for people, stable for `grep` and `awk`: one line a row, two spaces between columns, no borders, no empty
//! cell.

use std::fmt::Write;

use serde_json::Value;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    is_number: bool,
    /// For rows that are printed before the next ones are known.
    width: usize,
}

/// Words.
pub(super) const fn text(title: &'static str) -> Column {
    Column { title, is_number: false, width: 0 }
}

/// Numbers, to the right.
pub(super) const fn number(title: &'static str) -> Column {
    Column { title, is_number: true, width: 0 }
}

impl Column {
    /// At least so wide.
    pub(super) const fn at_least(mut self, width: usize) -> Self {
        self.width = width;
        self
    }
}

/// Rows of cells under their titles.
#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [Column],
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows.
    pub(super) fn new(columns: &'static [Column]) -> Self {
        let widths = columns.iter().map(|column| column.width.max(column.title.len())).collect();
        Self { columns, widths, rows: Vec::new() }
    }

    /// Adds a row, one cell a column.
    pub(super) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().map(|cell| printable(&cell)).collect();
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
    }

    /// The titles.
    pub(super) fn header(&self) -> String {
        self.line(self.columns.iter().map(|column| column.title))
    }

    /// A line for each row.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.rows.iter().map(|row| self.line(row.iter().map(String::as_str)))
    }

    /// The lines, and no rows any more; the widths stay.
    pub(super) fn take_lines(&mut self) -> String {
        let lines: String = self.lines().map(|line| line + "\n").collect();
        self.rows.clear();
        lines
    }

    /// All of it.
    pub(super) fn render(&self) -> String {
        std::iter::once(self.header()).chain(self.lines()).map(|line| line + "\n").collect()
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::new();
        for ((cell, column), width) in cells.zip(self.columns).zip(&self.widths) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column.is_number { (padding.as_str(), "") } else { ("", padding.as_str()) };
            // Writing to a String does not fail.
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// A value as one cell.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// An object as lines of a name and its value, inner names joined by dots; lists line by line.
pub(super) fn facts(object: &Value) -> String {
    let mut facts = Vec::new();
    collect("", object, &mut facts);
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| format!("{name:width$}  {value}\n");
    facts.iter().map(line).collect()
}

fn collect(name: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                collect(&name, value, facts);
            }
        }
        Value::Array(items) if items.is_empty() => facts.push((printable(name), "-".to_owned())),
        Value::Array(items) => items.iter().for_each(|item| push_lines(name, &in_a_line(item), facts)),
        value => push_lines(name, &cell(Some(value)), facts),
    }
}

/// A text of several lines, like a problem of a configuration file, stands below itself.
fn push_lines(name: &str, text: &str, facts: &mut Vec<(String, String)>) {
    let mut lines = text.lines();
    facts.push((printable(name), printable(lines.next().unwrap_or_default())));
    facts.extend(lines.map(|line| (String::new(), printable(line))));
}

fn in_a_line(item: &Value) -> String {
    let Value::Object(fields) = item else { return cell(Some(item)) };
    let shown = fields.iter().filter(|(_, value)| !value.is_null());
    shown.map(|(name, value)| format!("{name}={}", cell(Some(value)))).collect::<Vec<_>>().join(" ")
}

/// Names and reasons come from files and servers: nothing of them may steer the terminal or break a line.
pub(super) fn printable(text: &str) -> String {
    if text.trim().is_empty() {
        return "-".to_owned();
    }
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const COLUMNS: &[Column] = &[text("NAME"), number("SESSIONS"), text("REASON")];

    #[test]
    fn columns_are_aligned_under_a_header_without_borders() {
        let mut table = Table::new(COLUMNS);
        table.push(["a".to_owned(), "1".to_owned(), "down".to_owned()]);
        table.push(["longer".to_owned(), "1000000000".to_owned(), String::new()]);
        let expected = "NAME      SESSIONS  REASON\n\
                        a                1  down\n\
                        longer  1000000000  -\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_table_that_grows_keeps_its_widths() {
        const WIDE: &[Column] = &[text("A").at_least(4), text("B")];
        let mut table = Table::new(WIDE);
        assert_eq!(table.header(), "A     B");
        table.push(["x".to_owned(), "y".to_owned()]);
        assert_eq!(table.take_lines(), "x     y\n");
        assert_eq!(table.take_lines(), "");
    }

    #[test]
    fn an_object_is_a_list_of_its_facts() {
        let status = json!({
            "version": "0.1.0",
            "last_reload": { "at": null, "success": true },
            "moves": [{ "from": "a", "to": "b", "reason": null }, { "from": "b", "to": "c" }],
            "none": [],
        });
        let facts = facts(&status);
        let lines: Vec<String> =
            facts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "last_reload.at -",
            "last_reload.success yes",
            "moves from=a to=b",
            "moves from=b to=c",
            "none -",
            "version 0.1.0",
        ];
        assert!(expected.iter().all(|line| lines.iter().any(|other| other == line)), "{facts}");
        assert_eq!(lines.len(), expected.len(), "{facts}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_line_or_steers_the_terminal(cells in prop::array::uniform3(any::<String>())) {
            let mut table = Table::new(COLUMNS);
            table.push(cells);
            let rendered = table.render();
            prop_assert_eq!(rendered.lines().count(), 2);
            prop_assert!(rendered.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
