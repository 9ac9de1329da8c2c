//! The body of an answer in each form. One allocation an answer: refusals can be a flood.

use std::fmt::{self, Write};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode};

use super::accept::Form;
use super::words::title;

/// What an answer says.
pub(super) struct Words<'a> {
    pub(super) status: StatusCode,
    /// Our own words, with nothing in it that HTML or JSON would take for its own.
    pub(super) sentence: &'static str,
    /// As a trusted proxy wrote it, or we.
    pub(super) request_id: Option<&'a str>,
}

/// More than everything but the request id takes.
const ROOM: usize = 512;

impl Form {
    /// `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Plain => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Problem => "application/problem+json",
        })
    }

    pub(super) fn write(self, words: &Words<'_>) -> Bytes {
        let mut body = BytesMut::with_capacity(ROOM + words.request_id.map_or(0, |id| id.len() * LONGEST_ESCAPE));
        // Writing to memory does not fail.
        let _ = match self {
            Self::Plain => plain(&mut body, words),
            Self::Html => html(&mut body, words),
            Self::Problem => problem(&mut body, words),
        };
        body.freeze()
    }
}

fn plain(out: &mut BytesMut, words: &Words<'_>) -> fmt::Result {
    writeln!(out, "{} {}", words.status.as_u16(), title(words.status))?;
    writeln!(out, "{}", words.sentence)?;
    words.request_id.map_or(Ok(()), |id| writeln!(out, "Request id: {id}"))
}

/// Needs nothing from anywhere else: a page about a failure must not fail.
fn html(out: &mut BytesMut, words: &Words<'_>) -> fmt::Result {
    let (status, title) = (words.status.as_u16(), title(words.status));
    out.write_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
    out.write_str("<meta name=\"viewport\" content=\"width=device-width\">\n")?;
    out.write_str("<meta name=\"color-scheme\" content=\"light dark\">\n")?;
    write!(out, "<title>{status} {title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n")?;
    writeln!(out, "<p>{}</p>", words.sentence)?;
    if let Some(id) = words.request_id {
        out.write_str("<p><small>Request id: ")?;
        escaped_for_html(out, id)?;
        out.write_str("</small></p>\n")?;
    }
    out.write_str("</body>\n</html>\n")
}

/// RFC 9457; `about:blank` says that the status tells the kind of problem.
fn problem(out: &mut BytesMut, words: &Words<'_>) -> fmt::Result {
    let (status, title, sentence) = (words.status.as_u16(), title(words.status), words.sentence);
    write!(out, "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{sentence}\"")?;
    if let Some(id) = words.request_id {
        out.write_str(",\"request_id\":\"")?;
        escaped_for_json(out, id)?;
        out.write_char('"')?;
    }
    out.write_str("}\n")
}

/// `&quot;`.
const LONGEST_ESCAPE: usize = 6;

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

/// A header's value has no control characters but tabs.
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

    fn body(form: Form, status: u16, request_id: Option<&str>) -> String {
        let words = Words { status: StatusCode::from_u16(status).unwrap(), sentence: SENTENCE, request_id };
        String::from_utf8(form.write(&words).to_vec()).unwrap()
    }

    #[test]
    fn each_form_says_status_reason_and_request_id() {
        assert_eq!(
            body(Form::Plain, 503, Some("id-1")),
            format!("503 Service Unavailable\n{SENTENCE}\nRequest id: id-1\n")
        );
        assert_eq!(body(Form::Plain, 499, None), format!("499 Client Error\n{SENTENCE}\n"));
        let html = body(Form::Html, 404, Some("<b>&\"'"));
        assert!(html.contains("<title>404 Not Found</title>") && html.contains(SENTENCE), "{html}");
        assert!(html.contains("Request id: &lt;b&gt;&amp;&quot;&#39;</small>"), "{html}");
        assert!(!body(Form::Html, 404, None).contains("Request id"));
        assert!(!html.contains("://"), "nothing is loaded from elsewhere: {html}");
    }

    proptest! {
        #[test]
        fn a_problem_is_json_whatever_the_request_id(status in 400u16..600, id in prop::option::of("[ -~\t]{1,128}")) {
            let text = body(Form::Problem, status, id.as_deref());
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&value["type"], "about:blank");
            prop_assert_eq!(&value["status"], status);
            prop_assert_eq!(&value["detail"], SENTENCE);
            prop_assert!(value["title"].is_string());
            prop_assert_eq!(value.get("request_id").and_then(|id| id.as_str()), id.as_deref());
        }

        #[test]
        fn no_request_id_makes_a_tag(id in "[ -~]{1,128}") {
            let with = body(Form::Html, 503, Some(&id));
            let without = body(Form::Html, 503, Some("x"));
            prop_assert_eq!(with.matches('<').count(), without.matches('<').count());
        }
    }
}
