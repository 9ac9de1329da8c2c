//! The format of an error page, by the request's Accept.

use http::header;

use crate::message::Fields;

/// How an error page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For terminals, and for clients that do not say.
    Plain,
    /// For browsers.
    Html,
    /// For programs: RFC 9457.
    Problem,
}

impl Format {
    /// HTML when Accept lists it, else a problem when Accept lists a kind of JSON, else plain text. Quality values are not
    /// read: three bodies that say the same need no negotiation.
    pub(super) fn accepted(request: Fields<'_>) -> Self {
        let mut format = Self::Plain;
        for range in request.all(&header::ACCEPT).flat_map(|field| field.split(|byte| *byte == b',')) {
            let kind = range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            if kind.eq_ignore_ascii_case(b"text/html") {
                return Self::Html;
            }
            if is_json(kind) {
                format = Self::Problem;
            }
        }
        format
    }
}

/// `application/json`, `application/problem+json`, `application/vnd.example+json`.
fn is_json(kind: &[u8]) -> bool {
    let ends_with = |suffix: &[u8]| {
        let start = kind.len().checked_sub(suffix.len());
        start.and_then(|start| kind.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    ends_with(b"/json") || ends_with(b"+json")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(values: &[&[u8]]) -> Format {
        let fields: Vec<_> = values.iter().map(|value| httparse::Header { name: "Accept", value }).collect();
        Format::accepted(Fields::Parsed(&fields))
    }

    #[test]
    fn browsers_get_html_programs_a_problem_and_others_text() {
        for (values, expected) in [
            (&[] as &[&[u8]], Format::Plain),
            (&[b""], Format::Plain),
            (&[b"*/*"], Format::Plain),
            (&[b"text/plain"], Format::Plain),
            (&[b"image/avif,image/webp,*/*;q=0.8"], Format::Plain),
            (&[b"text/htmlx, xtext/html, text"], Format::Plain),
            (&[b"TEXT/HTML;charset=utf-8"], Format::Html),
            // Firefox and Chrome.
            (&[b"text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"], Format::Html),
            (&[b"application/json", b"text/html;q=0.4"], Format::Html),
            // axios and jQuery.
            (&[b"application/json, text/plain, */*"], Format::Problem),
            (&[b"application/json, text/javascript, */*; q=0.01"], Format::Problem),
            (&[b"application/problem+json"], Format::Problem),
            (&[b"text/plain", b" application/JSON ; q=1"], Format::Problem),
        ] {
            assert_eq!(format(values), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn html_is_sent_only_to_clients_that_list_it(
            ranges in prop::collection::vec("(text|application|\\*)/(html|json|plain|\\*)(;q=0\\.[0-9])?", 0..6),
        ) {
            let chosen = format(&[ranges.join(", ").as_bytes()]);
            let html = ranges.iter().any(|range| range.starts_with("text/html"));
            prop_assert_eq!(chosen == Format::Html, html);
            let json = ranges.iter().any(|range| range.contains("/json"));
            prop_assert_eq!(chosen == Format::Problem, json && !html);
        }

        #[test]
        fn any_bytes_are_read(value in prop::collection::vec(any::<u8>(), 0..60)) {
            format(&[&value]);
        }
    }
}
