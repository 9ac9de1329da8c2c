//! The fields of a head as a list that borrows from the bytes that were received, and from the edits that are applied to it.

use http::{HeaderName, header};
use httparse::Header;
use smallvec::SmallVec;

use crate::message::{CookieEdit, EditValue, RequestEdits, ResponseEdits};

/// Few heads have more fields. Filled in place, since it is large to move.
pub(super) type FieldList<'f> = SmallVec<[Header<'f>; 40]>;

/// The fields of a request after edits, of which the second ones decide; each names a field once. The target is not among them.
/// Of what was received, Connection stays here: a connection to a server is kept unless it says otherwise.
pub(super) fn edited_request<'f>(
    received: &[Header<'f>],
    first: &'f RequestEdits<'_, impl EditValue>,
    second: &'f RequestEdits<'_, impl EditValue>,
    fields: &mut FieldList<'f>,
) {
    let mut gone = Names::default();
    gone.add(&header::CONNECTION);
    edited_names(first).chain(edited_names(second)).for_each(|name| gone.add(name));
    for field in received {
        if !gone.contain(field.name) {
            fields.push(*field);
        }
    }
    add_set(first, |name| edited_names(second).any(|later| later == name), fields);
    add_set(second, |_| false, fields);
}

/// The names of the fields that edits remove or set.
fn edited_names<'e, V>(edits: &'e RequestEdits<'_, V>) -> impl Iterator<Item = &'e HeaderName> {
    let RequestEdits { target: _, remove, cookie, set } = edits;
    let cookie = (*cookie != CookieEdit::Keep).then_some(&header::COOKIE);
    remove.iter().chain(cookie).chain(set.iter().map(|(name, _)| &name.name))
}

/// Adds what edits set, but for what others decide later.
fn add_set<'f>(
    edits: &'f RequestEdits<'_, impl EditValue>,
    is_decided_later: impl Fn(&HeaderName) -> bool,
    fields: &mut FieldList<'f>,
) {
    if let CookieEdit::Set(value) = &edits.cookie
        && !is_decided_later(&header::COOKIE)
        // A decision that sets Cookie itself comes after this one.
        && edits.set.iter().all(|(name, _)| name.name != header::COOKIE)
    {
        fields.push(Header { name: "Cookie", value: value.as_bytes() });
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| !is_decided_later(&name.name)) {
        fields.push(Header { name: &name.written, value: value.as_ref() });
    }
}

/// A set of few names. Most names that it does not have are told by their length.
#[derive(Default)]
struct Names<'n> {
    names: SmallVec<[&'n HeaderName; 16]>,
    /// A bit for each length; all from 63 on share the last.
    lengths: u64,
}

impl<'n> Names<'n> {
    fn add(&mut self, name: &'n HeaderName) {
        self.lengths |= Self::bit(name.as_str());
        self.names.push(name);
    }

    fn contain(&self, name: &str) -> bool {
        self.lengths & Self::bit(name) != 0 && self.names.iter().any(|one| name.eq_ignore_ascii_case(one.as_str()))
    }

    fn bit(name: &str) -> u64 {
        1 << name.len().min(63)
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

/// Writes the lines of fields. `head`: where those that were received come from.
pub(super) fn write(fields: &[Header<'_>], head: &[u8], case: NameCase, out: &mut Vec<u8>) {
    out.reserve(fields.iter().map(|field| field.name.len() + field.value.len() + 4).sum());
    for field in fields {
        let start = out.len();
        match line_of(field, head) {
            Some(line) => out.extend_from_slice(line),
            None => write_line(field.name, field.value, out),
        }
        if case == NameCase::Lower
            && let Some(name) = out.get_mut(start..start + field.name.len())
        {
            lower(name);
        }
    }
}

/// The line of a field as it was received, if it is written as this proxy writes it.
fn line_of<'h>(field: &Header<'_>, head: &'h [u8]) -> Option<&'h [u8]> {
    let offset = |text: &[u8]| text.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    let (name, value) = (offset(field.name.as_bytes()), offset(field.value));
    // Elsewhere, or in another form: most of them are told by this.
    if name >= head.len() || value != name + field.name.len() + 2 {
        return None;
    }
    let end = value.checked_add(field.value.len() + 2)?;
    let line = head.get(name..end)?;
    let separator = line.get(field.name.len()..field.name.len() + 2);
    (separator == Some(b": ") && line.ends_with(b"\r\n")).then_some(line)
}

/// Writes the line of one field.
pub(super) fn write_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a name in lower case, but for those that Pingora capitalizes.
fn lower(name: &mut [u8]) {
    make_lowercase(name);
    let written: &[u8] = match &*name {
        b"age" => b"Age",
        b"host" => b"Host",
        b"date" => b"Date",
        b"server" => b"Server",
        b"connection" => b"Connection",
        b"set-cookie" => b"Set-Cookie",
        b"content-type" => b"Content-Type",
        b"accept-ranges" => b"Accept-Ranges",
        b"cache-control" => b"Cache-Control",
        b"content-length" => b"Content-Length",
        b"content-encoding" => b"Content-Encoding",
        b"transfer-encoding" => b"Transfer-Encoding",
        _ => return,
    };
    name.copy_from_slice(written);
}

/// As `make_ascii_lowercase`, which takes names byte by byte: they are too short for vectors.
fn make_lowercase(name: &mut [u8]) {
    for word in name.as_chunks_mut::<8>().0 {
        *word = lowercase(*word);
    }
    // What is left, and some bytes again.
    match name.last_chunk_mut::<8>() {
        Some(word) => *word = lowercase(*word),
        None => name.make_ascii_lowercase(),
    }
}

/// Eight bytes at once: in each byte the top bit says whether the rest of it is at least `A`, and whether it is above `Z`.
const fn lowercase(word: [u8; 8]) -> [u8; 8] {
    const EACH: u64 = u64::MAX / 0xff;
    const TOP: u64 = EACH * 0x80;
    let word = u64::from_le_bytes(word);
    let low = word & !TOP;
    let from_a = low + EACH * (0x80 - b'A' as u64);
    let above_z = low + EACH * (0x7f - b'Z' as u64);
    let capitals = (from_a ^ above_z) & !word & TOP;
    (word | (capitals >> 2)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use pingora::http::{RequestHeader, ResponseHeader};
    use proptest::prelude::*;

    use super::*;
    use crate::message::WrittenName;
    use crate::proxy::head;

    static ONE: WrittenName = WrittenName::new("X-One", "x-one");
    static COOKIE: WrittenName = WrittenName::new("Set-Cookie", "set-cookie");
    static COOKIES: WrittenName = WrittenName::new("Cookie", "cookie");
    static LENGTH: WrittenName = WrittenName::new("Content-Length", "content-length");

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines: Vec<_> = String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect();
        // A header map keeps the order within a name only.
        lines.sort_by_key(|line| line.split(':').next().unwrap().to_lowercase());
        lines
    }

    proptest! {
        #[test]
        fn names_become_lower_case(name in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut lower = name.clone();
            make_lowercase(&mut lower);
            prop_assert_eq!(lower, name.to_ascii_lowercase());
        }

        #[test]
        fn edits_of_a_request_come_to_the_same_as_on_a_header_map(
            fields in prop::collection::vec(
                prop::sample::select(vec![
                    ("X-One", "1"), ("x-one", "2"), ("Cookie", "a=1"), ("COOKIE", "b=2"), ("Host", "s"), ("X-Two", "2"),
                    ("Accept", ""), ("Connection", "close"),
                ]),
                0..8,
            ),
            layers in prop::array::uniform2((
                prop::collection::vec(prop::sample::select(vec![&ONE, &COOKIES]), 0..2),
                prop::sample::select(vec![CookieEdit::Keep, CookieEdit::Remove, CookieEdit::Set(HeaderValue::from_static("d=4"))]),
                prop::sample::subsequence(vec![(&ONE, "9"), (&COOKIES, "e=5"), (&LENGTH, "7")], 0..3),
            )),
        ) {
            let layers = layers.map(|(removed, cookie, set)| {
                let mut edits = RequestEdits { cookie, ..RequestEdits::default() };
                edits.remove.extend(removed.iter().map(|name| name.name.clone()));
                edits.set.extend(set.iter().map(|(name, text)| (*name, HeaderValue::from_static(text))));
                edits
            });
            let list: Vec<_> =
                fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
            let [mut first, mut second] = layers;
            let mut fast = Vec::new();
            let mut edited = FieldList::new();
            edited_request(&list, &first, &second, &mut edited);
            write(&edited, &[], NameCase::Lower, &mut fast);
            drop(edited);

            let mut request = RequestHeader::build_no_case("GET", b"/", None).unwrap();
            for (name, value) in fields.iter().filter(|(name, _)| *name != "Connection") {
                request.append_header(*name, *value).unwrap();
            }
            head::apply_to_request(&mut first, &mut request, false).unwrap();
            head::apply_to_request(&mut second, &mut request, false).unwrap();
            let mut full = Vec::new();
            request.header_to_h1_wire(&mut full);
            prop_assert_eq!(lines(&fast), lines(&full));
        }

        #[test]
        fn a_field_is_written_alike_from_its_line_and_from_its_parts(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "X-One: 1\r\n", "x-one:2\r\n", "Host: \r\n", "HOST:  a\r\n", "Date: b\t\r\n", "Accept: c\n",
                    "A:d \r\n", "Server: e: f\r\n", "Vary:\r\n",
                ]),
                0..8,
            ),
            case in prop::sample::select(vec![NameCase::Lower, NameCase::Preserved]),
        ) {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n", lines.concat());
            let mut fields = [httparse::EMPTY_HEADER; 8];
            let mut request = httparse::Request::new(&mut fields);
            prop_assert!(request.parse(head.as_bytes()).unwrap().is_complete());
            let (mut one, mut other) = (Vec::new(), Vec::new());
            write(request.headers, head.as_bytes(), case, &mut one);
            write(request.headers, &[], case, &mut other);
            prop_assert_eq!(one.escape_ascii().to_string(), other.escape_ascii().to_string());
        }

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
            write(&list, &[], NameCase::Lower, &mut fast);
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
