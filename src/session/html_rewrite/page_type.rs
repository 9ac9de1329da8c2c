//! Which responses are pages whose links can be rewritten, and in which character encoding.

use encoding_rs::Encoding;
use http::StatusCode;
use lol_html::AsciiCompatibleEncoding;

/// The character encoding of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset {
    encoding: AsciiCompatibleEncoding,
    declared: bool,
}

impl Charset {
    pub(super) fn encoding(self) -> AsciiCompatibleEncoding {
        self.encoding
    }

    /// Whether `Content-Type` declares it; otherwise the page's `<meta charset>` may change it.
    pub(super) fn is_declared(self) -> bool {
        self.declared
    }
}

/// The charset of a response whose links can be rewritten: a whole HTML or XHTML page in an encoding that contains ASCII,
/// so not UTF-16. `None` for other responses. `partial`: the response has a `Content-Range`.
#[must_use]
pub fn rewritable(status: StatusCode, content_type: Option<&str>, partial: bool) -> Option<Charset> {
    let no_page = status.is_informational() || matches!(status.as_u16(), 204 | 205 | 206 | 304);
    if no_page || partial {
        return None;
    }
    let mut parts = content_type?.split(';').map(str::trim);
    let kind = parts.next()?;
    if !["text/html", "application/xhtml+xml"].iter().any(|page| kind.eq_ignore_ascii_case(page)) {
        return None;
    }
    let named = parts.find_map(charset).and_then(|label| Encoding::for_label(label.as_bytes()));
    let encoding = named.map_or(Some(AsciiCompatibleEncoding::utf_8()), AsciiCompatibleEncoding::new)?;
    Some(Charset { encoding, declared: named.is_some() })
}

fn charset(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=')?;
    name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(content_type: &str) -> Option<(&'static str, bool)> {
        let charset = rewritable(StatusCode::OK, Some(content_type), false)?;
        Some((<&'static Encoding>::from(charset.encoding).name(), charset.declared))
    }

    #[test]
    fn pages_are_html_and_xhtml_in_an_encoding_with_ascii() {
        for (content_type, charset) in [
            ("text/html", Some(("UTF-8", false))),
            ("Text/HTML ; Charset=\"utf-8\"", Some(("UTF-8", true))),
            ("text/html;charset=ISO-8859-1", Some(("windows-1252", true))),
            ("text/html; a=b; charset=shift_jis", Some(("Shift_JIS", true))),
            ("application/xhtml+xml", Some(("UTF-8", false))),
            ("text/html; charset=nonsense", Some(("UTF-8", false))),
            ("text/html; charset=utf-16", None),
            ("text/html; charset=iso-2022-jp", None),
            ("text/htmlx", None),
            ("text/plain", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(name(content_type), charset, "{content_type}");
        }
        assert_eq!(rewritable(StatusCode::OK, None, false), None);
    }

    #[test]
    fn a_response_without_a_whole_page_is_not_rewritten() {
        for (status, whole) in
            [(200, true), (404, true), (503, true), (302, true), (101, false), (204, false), (206, false), (304, false)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(rewritable(status, Some("text/html"), false).is_some(), whole, "{status}");
        }
        assert_eq!(rewritable(StatusCode::OK, Some("text/html"), true), None);
    }
}
