//! Which form of an answer a client wants, by its Accept (RFC 9110, section 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// How the proxy's own words are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For terminals, and for whoever does not say.
    Plain,
    /// For people with browsers.
    Html,
    /// For programs: RFC 9457.
    Problem,
}

/// Media ranges that are looked at; a browser sends eight. Those after them count as not written.
const MOST_RANGES: usize = 32;

/// The form with the greatest quality. Of several, the one that was named most exactly, then the one that was named
/// first: `application/json, text/plain, */*` is a program's way to ask for JSON. Plain text when nothing is said, when
/// nothing fits, and when what is said is not understood.
pub(super) fn form(headers: &HeaderMap) -> Form {
    wanted(headers).unwrap_or(Form::Plain)
}

/// `None` when the header is not what the grammar allows.
fn wanted(headers: &HeaderMap) -> Option<Form> {
    let (mut plain, mut html, mut json, mut problem) = (Wish::NONE, Wish::NONE, Wish::NONE, Wish::NONE);
    let mut position = MOST_RANGES;
    for field in headers.get_all(ACCEPT) {
        for element in field.to_str().ok()?.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            let Some(left) = position.checked_sub(1) else { break };
            position = left;
            let range = Range::parse(element)?;
            plain.hear(&range, "text", "plain", position);
            html.hear(&range, "text", "html", position);
            json.hear(&range, "application", "json", position);
            problem.hear(&range, "application", "problem+json", position);
        }
    }
    // A problem is JSON too; who names it by its own name means what it says of that.
    let problem = if problem.exactness >= json.exactness { problem } else { json };
    let mut best = (plain, Form::Plain);
    for wish in [(html, Form::Html), (problem, Form::Problem)] {
        if wish.0.quality > 0 && wish.0 > best.0 {
            best = wish;
        }
    }
    Some(best.1)
}

/// What a client says of one form. A greater wish is served first: the order of the fields is the order of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    /// 0 to 1000.
    quality: u16,
    /// By what kind of range it was named.
    exactness: Exactness,
    /// Ranges that might still have come: more for what was named earlier.
    position: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exactness {
    Unnamed,
    Any,
    Type,
    Exact,
}

impl Wish {
    const NONE: Self = Self { quality: 0, exactness: Exactness::Unnamed, position: 0 };

    /// The most exact range that fits decides.
    fn hear(&mut self, range: &Range<'_>, kind: &str, subtype: &str, position: usize) {
        let exactness = match (range.kind, range.subtype) {
            ("*", "*") => Exactness::Any,
            (wanted, "*") if wanted.eq_ignore_ascii_case(kind) => Exactness::Type,
            (wanted, exactly) if wanted.eq_ignore_ascii_case(kind) && exactly.eq_ignore_ascii_case(subtype) => {
                Exactness::Exact
            }
            _ => return,
        };
        if exactness > self.exactness {
            *self = Self { quality: range.quality, exactness, position };
        }
    }
}

/// `type/subtype;parameter=value;q=0.5`. Other parameters than q are not looked at: what we have comes in one charset.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(element: &'a str) -> Option<Self> {
        let mut app = element.split(';').map(str::trim);
        let (kind, subtype) = app.next()?.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) || (kind == "*" && subtype != "*") {
            return None;
        }
        let mut quality = 1000;
        for part in app.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            if name.eq_ignore_ascii_case("q") {
                quality = thousandths(value)?;
            }
        }
        Some(Self { kind, subtype, quality })
    }
}

/// `0`, `0.5`, `1.000`: at most three digits after the point (RFC 9110, section 12.4.2).
fn thousandths(value: &str) -> Option<u16> {
    let (whole, digits) = value.split_once('.').unwrap_or((value, ""));
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = digits.bytes().chain(std::iter::repeat(b'0')).take(3).fold(0, |sum, d| sum * 10 + u16::from(d - b'0'));
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn form_for(fields: &[&str]) -> Form {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(ACCEPT, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        form(&headers)
    }

    #[test]
    fn each_client_gets_its_form() {
        for (fields, form) in [
            (&[] as &[&str], Form::Plain),
            (&["*/*"], Form::Plain),
            (&[""], Form::Plain),
            (&["text/*"], Form::Plain),
            (&["text/html"], Form::Html),
            (&["TEXT/HTML;charset=utf-8"], Form::Html),
            // Firefox and Chrome.
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"], Form::Html),
            (&["image/avif,image/webp,*/*;q=0.8"], Form::Plain),
            // axios, jQuery, and what a program writes.
            (&["application/json, text/plain, */*"], Form::Problem),
            (&["application/json, text/javascript, */*; q=0.01"], Form::Problem),
            (&["application/json"], Form::Problem),
            (&["application/problem+json"], Form::Problem),
            (&["application/*"], Form::Problem),
            (&["text/plain, application/json"], Form::Plain),
            (&["application/json;q=0.5, text/html;q=0.6"], Form::Html),
            (&["application/json;q=0.5", "text/html;q=0.4"], Form::Problem),
            (&["text/html;q=0, */*"], Form::Plain),
            (&["text/plain;q=0, */*;q=0.1"], Form::Html),
            (&["text/*;q=0.3, text/html;q=0.1, */*;q=0.2"], Form::Plain),
            (&["application/problem+json;q=0, application/json, text/html;q=0.1"], Form::Html),
            (&["image/png"], Form::Plain),
            (&["text/html;q=0, text/plain;q=0, application/json;q=0"], Form::Plain),
        ] {
            assert_eq!(form_for(fields), form, "{fields:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_plain_text() {
        for field in [
            "text/html;q=2",
            "text/html;q=0.0001",
            "text/html;q=x",
            "text/html;q=",
            "text/html;q",
            "text/html, html",
            "/html",
            "*/html",
            "text/html, ä/b",
            "text/ht ml",
            "text/html;q=1.001",
            "text/html;q=-1",
        ] {
            assert_eq!(form_for(&[field]), Form::Plain, "{field}");
        }
    }

    #[test]
    fn only_the_first_ranges_are_looked_at() {
        let late = format!("{}text/html", "a/b,".repeat(MOST_RANGES));
        assert_eq!(form_for(&[&late]), Form::Plain);
        let in_time = format!("{}text/html", "a/b,".repeat(MOST_RANGES - 1));
        assert_eq!(form_for(&[&in_time]), Form::Html);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(field in prop::collection::vec(32u8..=255, 0..60)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&field) {
                headers.append(ACCEPT, value);
                form(&headers);
            }
        }

        #[test]
        fn the_greater_quality_wins_whatever_the_order(html in 0u16..=1000, json in 0u16..=1000, turned: bool) {
            prop_assume!(html != json);
            let q = |value: u16| format!("{}.{:03}", value / 1000, value % 1000);
            let mut ranges = [format!("text/html;q={}", q(html)), format!("application/json;q={}", q(json))];
            if turned {
                ranges.reverse();
            }
            let wanted = if html > json { Form::Html } else { Form::Problem };
            prop_assert_eq!(form_for(&[&ranges.join(", ")]), wanted);
        }
    }
}
