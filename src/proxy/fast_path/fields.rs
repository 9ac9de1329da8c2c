//! The fields of a head as a list that borrows from the bytes that were received, and from the edits that are applied to it.

use http::{HeaderName, header};
use httparse::Header;
use smallvec::SmallVec;

use crate::message::{CookieEdit, RequestEdits, ResponseEdits};

/// Few heads have more fields.
pub(super) type FieldList<'f> = SmallVec<[Header<'f>; 64]>;

/// Applies edits to the fields of a request. The target is not among them.
pub(super) fn apply_to_request<'f>(edits: &'f RequestEdits<'_>, fields: &mut FieldList<'f>) {
    let RequestEdits { target: _, remove: removed, cookie, set: changed } = edits;
    for name in removed {
        remove(fields, name);
    }
    // Before the fields that are set: a decision that sets Cookie itself comes after this one.
    match cookie {
        CookieEdit::Keep => {}
        CookieEdit::Remove => remove(fields, &header::COOKIE),
        CookieEdit::Set(value) => set(fields, &header::COOKIE, "Cookie", value.as_bytes()),
    }
    for (name, value) in changed {
        set(fields, &name.name, &name.written, value.as_bytes());
    }
}

/// Applies edits to the fields of a response.
pub(super) fn apply_to_response<'f>(edits: &'f ResponseEdits<'_>, fields: &mut FieldList<'f>) {
    let ResponseEdits { remove: removed, set: changed, append } = edits;
    for name in removed {
        remove(fields, name);
    }
    for (name, value) in changed {
        set(fields, &name.name, &name.written, value.as_bytes());
    }
    for (name, value) in append {
        fields.push(Header { name: &name.written, value: value.as_bytes() });
    }
}

/// Removes all fields of a name.
pub(super) fn remove(fields: &mut FieldList<'_>, name: &HeaderName) {
    fields.retain(|field| !field.name.eq_ignore_ascii_case(name.as_str()));
}

/// Sets a field in place of all of its name.
fn set<'f>(fields: &mut FieldList<'f>, name: &HeaderName, written: &'f str, value: &'f [u8]) {
    remove(fields, name);
    fields.push(Header { name: written, value });
}

/// How the names of fields are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameCase {
    /// As their sender wrote them.
    Preserved,
    /// In lower case, but for those that Pingora capitalizes for the sake of old clients.
    Lower,
}

/// Writes the lines of fields.
pub(super) fn write(fields: &[Header<'_>], case: NameCase, out: &mut Vec<u8>) {
    for field in fields {
        match case {
            NameCase::Preserved => write_line(field.name, field.value, out),
            NameCase::Lower => {
                if let Some(name) = capitalized(field.name) {
                    write_line(name, field.value, out);
                } else {
                    out.extend(field.name.bytes().map(|byte| byte.to_ascii_lowercase()));
                    write_line("", field.value, out);
                }
            }
        }
    }
}

/// Writes the line of one field.
pub(super) fn write_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn capitalized(name: &str) -> Option<&'static str> {
    let candidates: &[&str] = match name.len() {
        3 => &["Age"],
        4 => &["Host", "Date"],
        6 => &["Server"],
        10 => &["Connection", "Set-Cookie"],
        12 => &["Content-Type"],
        13 => &["Accept-Ranges", "Cache-Control"],
        14 => &["Content-Length"],
        16 => &["Content-Encoding"],
        17 => &["Transfer-Encoding"],
        _ => return None,
    };
    candidates.iter().copied().find(|one| one.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use pingora::http::ResponseHeader;
    use proptest::prelude::*;

    use super::*;
    use crate::message::WrittenName;
    use crate::proxy::head;

    static ONE: WrittenName = WrittenName::new("X-One", "x-one");
    static COOKIE: WrittenName = WrittenName::new("Set-Cookie", "set-cookie");
    static LENGTH: WrittenName = WrittenName::new("Content-Length", "content-length");

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines: Vec<_> = String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect();
        // A header map keeps the order within a name only.
        lines.sort_by_key(|line| line.split(':').next().unwrap().to_lowercase());
        lines
    }

    proptest! {
        #[test]
        fn edits_come_to_the_same_as_on_a_header_map(
            fields in prop::collection::vec(
                prop::sample::select(vec![
                    ("X-One", "1"), ("x-one", "2"), ("Set-Cookie", "a=1"), ("SET-COOKIE", "b=2"), ("Server", "s"),
                    ("Content-Length", "5"), ("Etag", "x"), ("content-TYPE", "text/plain"), ("Age", "3"), ("X-Two", "2"),
                ]),
                0..8,
            ),
            removed in prop::collection::vec(prop::sample::select(vec![&ONE, &COOKIE]), 0..2),
            set in prop::collection::vec(prop::sample::select(vec![(&ONE, "9"), (&LENGTH, "7")]), 0..2),
            append in prop::collection::vec(prop::sample::select(vec![(&COOKIE, "c=3"), (&ONE, "8")]), 0..3),
        ) {
            let value = |value: &str| HeaderValue::from_str(value).unwrap();
            let mut edits = ResponseEdits::default();
            edits.remove.extend(removed.iter().map(|name| name.name.clone()));
            edits.set.extend(set.iter().map(|(name, text)| (*name, value(text))));
            edits.append.extend(append.iter().map(|(name, text)| (*name, value(text))));
            let mut list: FieldList<'_> =
                fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
            apply_to_response(&edits, &mut list);
            let mut fast = Vec::new();
            write(&list, NameCase::Lower, &mut fast);
            drop(list);

            let mut response = ResponseHeader::build_no_case(200, None).unwrap();
            for (name, value) in &fields {
                response.append_header(*name, *value).unwrap();
            }
            head::apply_to_response(&mut edits, &mut response).unwrap();
            let mut full = Vec::new();
            response.header_to_h1_wire(&mut full);
            prop_assert_eq!(lines(&fast), lines(&full));
        }
    }
}
