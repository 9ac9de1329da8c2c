//! The body of an error page in each format. One allocation a page: refusals can be a flood.

use std::fmt::{self, Write};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode};

use super::format::Format;
use super::sentence::title;

/// What an error page says.
pub(super) struct Contents<'a> {
    pub(super) status: StatusCode,
    /// A sentence of ours, without characters that HTML or JSON would have to escape.
    pub(super) sentence: &'static str,
    /// From a trusted proxy, or new.
    pub(super) request_id: Option<&'a str>,
}

/// More than all takes without the request id.
const CAPACITY: usize = 512;

impl Format {
    /// `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Plain => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Problem => "application/problem+json",
        })
    }

    pub(super) fn write(self, contents: &Contents<'_>) -> Bytes {
        let mut body = BytesMut::with_capacity(CAPACITY + contents.request_id.map_or(0, |id| id.len() * MAX_ESCAPE));
        // Writing to memory does not fail.
        let _ = match self {
            Self::Plain => plain(&mut body, contents),
            Self::Html => html(&mut body, contents),
            Self::Problem => problem(&mut body, contents),
        };
        body.freeze()
    }
}

fn plain(out: &mut BytesMut, contents: &Contents<'_>) -> fmt::Result {
    writeln!(out, "{} {}", contents.status.as_u16(), title(contents.status))?;
    writeln!(out, "{}", contents.sentence)?;
    contents.request_id.map_or(Ok(()), |id| writeln!(out, "Request id: {id}"))
}

/// Loads nothing: a page about a failure must not fail itself.
fn html(out: &mut BytesMut, contents: &Contents<'_>) -> fmt::Result {
    let (status, title) = (contents.status.as_u16(), title(contents.status));
    out.write_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
    out.write_str("<meta name=\"viewport\" content=\"width=device-width\">\n")?;
    out.write_str("<meta name=\"color-scheme\" content=\"light dark\">\n")?;
    write!(out, "<title>{status} {title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n")?;
    writeln!(out, "<p>{}</p>", contents.sentence)?;
    if let Some(id) = contents.request_id {
        out.write_str("<p><small>Request id: ")?;
        escaped_for_html(out, id)?;
        out.write_str("</small></p>\n")?;
    }
    out.write_str("</body>\n</html>\n")
}

/// RFC 9457; `about:blank` means that the status is the type of the problem.
fn problem(out: &mut BytesMut, contents: &Contents<'_>) -> fmt::Result {
    let (status, title, sentence) = (contents.status.as_u16(), title(contents.status), contents.sentence);
    write!(out, "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{sentence}\"")?;
    if let Some(id) = contents.request_id {
        out.write_str(",\"request_id\":\"")?;
        escaped_for_json(out, id)?;
        out.write_char('"')?;
    }
    out.write_str("}\n")
}

/// `&quot;`.
const MAX_ESCAPE: usize = 6;

fn escaped_for_html(out: &mut BytesMut, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '&' => out.write_str("&amp;"),
        '<' => out.write_str("&lt;"),
        '>' => out.write_str("&gt;"),
        '"' => out.write_str("&quot;"),
        '\'' => out.write_str("&#39;"),
        c => out.write_char(c),
    })
}

/// A header value has no control characters except tabs.
fn escaped_for_json(out: &mut BytesMut, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\t' => out.write_str("\\t"),
        c => out.write_char(c),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENTENCE: &str = "The server of your session is not available.";

    fn body(format: Format, status: u16, request_id: Option<&str>) -> String {
        let contents = Contents { status: StatusCode::from_u16(status).unwrap(), sentence: SENTENCE, request_id };
        String::from_utf8(format.write(&contents).to_vec()).unwrap()
    }

    #[test]
    fn each_format_has_status_sentence_and_request_id() {
        assert_eq!(
            body(Format::Plain, 503, Some("id-1")),
            format!("503 Service Unavailable\n{SENTENCE}\nRequest id: id-1\n")
        );
        assert_eq!(body(Format::Plain, 499, None), format!("499 Client Error\n{SENTENCE}\n"));
        let html = body(Format::Html, 404, Some("<b>&\"'"));
        assert!(html.contains("<title>404 Not Found</title>") && html.contains(SENTENCE), "{html}");
        assert!(html.contains("Request id: &lt;b&gt;&amp;&quot;&#39;</small>"), "{html}");
        assert!(!body(Format::Html, 404, None).contains("Request id"));
        assert!(!html.contains("://"), "the page loads nothing: {html}");
    }

    proptest! {
        #[test]
        fn a_problem_is_json_whatever_the_request_id(status in 400u16..600, id in prop::option::of("[ -~\t]{1,128}")) {
            let text = body(Format::Problem, status, id.as_deref());
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&value["type"], "about:blank");
            prop_assert_eq!(&value["status"], status);
            prop_assert_eq!(&value["detail"], SENTENCE);
            prop_assert!(value["title"].is_string());
            prop_assert_eq!(value.get("request_id").and_then(|id| id.as_str()), id.as_deref());
        }

        #[test]
        fn no_request_id_makes_a_tag(id in "[ -~]{1,128}") {
            let with = body(Format::Html, 503, Some(&id));
            let without = body(Format::Html, 503, Some("x"));
            prop_assert_eq!(with.matches('<').count(), without.matches('<').count());
        }
    }
}
