//! Reads Rust as text: far enough to find imports and names, without a parser.

/// Where a whole word stands.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_part_of_name) && !after.is_some_and(is_part_of_name)
    })
}

/// Where a path is used: `dashmap::` also as `use dashmap;` and in `use {dashmap::X}`, but not as the tail of another
/// path unless it begins with a type (`std::time::Instant::now`).
pub(crate) fn uses(code: &str, path: &str) -> Vec<usize> {
    let is_crate = path.ends_with("::");
    let name = path.trim_end_matches("::");
    words(code, name)
        .filter(|at| {
            let before = code[..*at].trim_end();
            let after = &code[at + name.len()..];
            let root = !before.ends_with("::") && !before.ends_with('.');
            let imported = before.ends_with("use") && (after.starts_with(';') || after.starts_with(" as "));
            !is_crate || root && (after.starts_with("::") || imported)
        })
        .collect()
}

pub(crate) fn is_part_of_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The branches of what follows `crate::`: `a::b` is one, `{a, b::{c, d}}` are two. Each with its first two names.
pub(crate) fn branches(rest: &str) -> Vec<(String, Option<String>)> {
    fn name(text: &str) -> String {
        text.trim_start().chars().take_while(|char| is_part_of_name(*char)).collect()
    }
    fn branch(text: &str) -> Vec<(String, Option<String>)> {
        let first = name(text);
        let after = &text.trim_start()[first.len()..];
        match after.strip_prefix("::") {
            Some(tail) if tail.trim_start().starts_with('{') => {
                branches(tail).into_iter().map(|(part, _)| (first.clone(), Some(part))).collect()
            }
            Some(tail) => vec![(first, Some(name(tail)))],
            None => vec![(first, None)],
        }
    }
    let Some(group) = rest.trim_start().strip_prefix('{') else { return branch(rest) };
    let mut found = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.extend(branch(&group[start..at]).into_iter().filter(|(module, _)| !module.is_empty()));
                start = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

/// Blanks comments, strings and characters; line breaks stay where they are.
pub(crate) fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_name = out.chars().next_back().is_some_and(is_part_of_name);
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest, 0),
            'r' | 'b' | 'c' if !in_name => prefixed_string(rest).unwrap_or(0),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        let here = &rest[at..];
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            let Some(char) = here.chars().next() else { return at };
            at += char.len_utf8();
        }
        if depth == 0 {
            return at;
        }
    }
}

/// The length of a string with escapes whose first quote stands at `open`.
fn string(rest: &str, open: usize) -> usize {
    let mut escaped = false;
    for (at, char) in rest[open + 1..].char_indices() {
        match char {
            '\\' => escaped = !escaped,
            '"' if !escaped => return open + at + 2,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// `b"…"`, `c"…"`, `r"…"`, `br##"…"##`; `None` when it is no string, as in `r#type`.
fn prefixed_string(rest: &str) -> Option<usize> {
    let letters = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    let raw = rest[..letters].ends_with('r');
    let marks = rest[letters..].len() - rest[letters..].trim_start_matches('#').len();
    let open = letters + marks;
    if letters > 2 || !rest[open..].starts_with('"') || (marks > 0 && !raw) {
        return None;
    }
    if !raw {
        return Some(string(rest, open));
    }
    let end = format!("\"{}", "#".repeat(marks));
    Some(rest[open + 1..].find(&end).map_or(rest.len(), |at| open + 1 + at + end.len()))
}

/// The length of a character, or 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => rest[escaped + 1..].find('\'').map_or(0, |at| escaped + at + 2),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// From where to where items stand that are compiled for tests, or for tests and fuzzing, only.
pub(crate) fn test_items(bare: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let marks = ["#[cfg(test)]", "#[cfg(all(test,", "#[cfg(any(test, fuzzing))]"];
    for (start, mark) in marks.into_iter().flat_map(|mark| bare.match_indices(mark)) {
        let body = start + mark.len();
        let mut depth = 0;
        let end = bare[body..].char_indices().find_map(|(at, char)| {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && matches!(char, ';' | '}')).then_some(body + at + 1)
        });
        found.push((start, end.unwrap_or(bare.len())));
    }
    found
}

pub(crate) fn without_test_items(bare: &str) -> String {
    let mut bytes = bare.as_bytes().to_vec();
    for (start, end) in test_items(bare) {
        bytes[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    String::from_utf8(bytes).expect("whole items are blanked")
}
