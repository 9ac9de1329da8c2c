//! `<meta http-equiv="refresh" content="5; url=/next">`.

/// The text before the URL, the URL, and the text after it; `None` if there is no URL or browsers would not follow it
/// (HTML, "shared declarative refresh steps").
pub(super) fn split_url(content: &str) -> Option<(&str, &str, &str)> {
    let rest = content.trim_start_matches(blank);
    let after_time = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let has_time = after_time.len() < rest.len() || after_time.starts_with('.');
    let after_time = after_time.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !has_time || !after_time.starts_with(|c| blank(c) || matches!(c, ';' | ',')) {
        return None;
    }
    let rest = after_time.trim_start_matches(blank);
    let rest = rest.strip_prefix([';', ',']).unwrap_or(rest).trim_start_matches(blank);
    let rest = without_label(rest);
    let (rest, end) = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let quoted = rest.get(1..).unwrap_or_default();
            (quoted, quoted.find(quote).unwrap_or(quoted.len()))
        }
        _ => (rest, rest.len()),
    };
    let (address, after) = rest.split_at_checked(end)?;
    let before = content.get(..content.len() - rest.len())?;
    (!address.is_empty()).then_some((before, address, after))
}

/// HTML's "ASCII whitespace".
fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0C')
}

/// The text after `url =`, or the whole text, since the label is optional.
fn without_label(text: &str) -> &str {
    let Some((label, rest)) = text.split_at_checked(3) else { return text };
    if !label.eq_ignore_ascii_case("url") {
        return text;
    }
    rest.trim_start_matches(blank).strip_prefix('=').map_or(text, |rest| rest.trim_start_matches(blank))
}

#[cfg(test)]
mod tests {
    use super::split_url;

    #[test]
    fn the_url_of_a_refresh_is_found() {
        for (content, parts) in [
            ("5; url=/next", Some(("5; url=", "/next", ""))),
            ("0;URL='/next'", Some(("0;URL='", "/next", "'"))),
            ("0 ; Url = \"/next\" x", Some(("0 ; Url = \"", "/next", "\" x"))),
            ("0;url='/next", Some(("0;url='", "/next", ""))),
            ("1.5,/next", Some(("1.5,", "/next", ""))),
            (".5 /next", Some((".5 ", "/next", ""))),
            ("0; url", Some(("0; ", "url", ""))),
            ("0; urlaub", Some(("0; ", "urlaub", ""))),
            ("0;url=é", Some(("0;url=", "é", ""))),
            ("5", None),
            ("5;", None),
            ("5; url=", None),
            ("5; url=''", None),
            ("", None),
            ("url=/next", None),
            ("5x; url=/next", None),
        ] {
            assert_eq!(split_url(content), parts, "{content}");
        }
    }
}
