//! Fuzz subjects: heads of requests and responses as the fast path reads and writes them.

use std::mem::MaybeUninit;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use httparse::Header;

use super::body::{Body, Framing};
use super::fields::{self, FieldList, NameCase};
use super::request::{MAX_FIELDS, Request};
use super::response;
use crate::fuzz::{choice, cut};
use crate::message::{Fields, RequestView, ResponseEdits, ResponseView};
use crate::proxy::connection::fuzz::length_of_head;
use crate::proxy::connection::request_body::{BodyFraming, Chunks};
use crate::proxy::request::header_scan::{HeaderScan, SingleField};
use crate::proxy::request::validate;
use crate::proxy::upstream::normalize::normalized;

/// A head that is accepted is read the same by a strict reader, and is written as it was read: no server sees another request
/// than the one that was decided on.
pub fn request_head(data: &[u8]) {
    let (at, data) = choice(data);
    let (first, second) = cut(data, at);
    let Some(length) = length_of_head(&[data]) else {
        return assert_eq!(length_of_head(&[first, second]), None, "cut at {}", first.len());
    };
    assert_eq!(length_of_head(&[first, second]), Some(length), "cut at {}", first.len());
    let head = &data[..length];
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let Ok(request) = Request::parse(head, &mut room) else { return };
    let view = request.view();
    let scan = HeaderScan::of(view.fields);
    if validate::check(Some(head), &view, &scan, 8 << 10).is_err() {
        return;
    }
    let (line, strict) = strictly_read(head).expect("a strict reader refuses what was accepted");
    let target = std::str::from_utf8(request.target).expect("plain");
    assert_eq!(line, format!("{} {target} HTTP/1.1", request.method));
    assert_eq!(strict, pairs(request.fields), "a strict reader sees other fields");
    let named = |name: &str| strict.iter().filter(|(found, _)| found == name).count();
    assert_eq!((named("host"), named("transfer-encoding")), (1, 0));
    assert!(named("content-length") <= 1, "two lengths");
    let framing = if named("content-length") > 0 { scan.body_framing() } else { Some(BodyFraming::Length(0)) };
    assert!(matches!(framing, Some(BodyFraming::Length(_))), "a length that is none");
    same_in_a_map(&request.method, request.target, request.fields);
    written_as_read(request.fields, head);
}

/// The full path, which reads from a header map, comes to the same.
fn same_in_a_map(method: &Method, target: &[u8], fields: &[Header<'_>]) {
    let map = map_of(fields);
    let scans = [Fields::Parsed(fields), Fields::Map(&map)].map(|fields| {
        let view = RequestView::http1(method, target, Version::HTTP_11, fields);
        let scan = HeaderScan::of(fields);
        let verdict = validate::check(None, &view, &scan, usize::MAX);
        let field = |field: SingleField<'_>| (field.value.map(<[u8]>::to_vec), field.repeated);
        (
            verdict,
            field(scan.host),
            field(scan.length),
            field(scan.encoding),
            scan.authenticates_connection,
            scan.body_framing(),
        )
    });
    let [parsed, map] = scans;
    assert_eq!(parsed, map, "two readers of one request");
}

fn map_of(fields: &[Header<'_>]) -> HeaderMap {
    let pair = |field: &Header<'_>| {
        Some((HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?))
    };
    fields.iter().filter_map(pair).collect()
}

/// Names in lower case, and values.
type Pairs = Vec<(String, Vec<u8>)>;

fn pairs(fields: &[Header<'_>]) -> Pairs {
    fields.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect()
}

/// Whether lines are copied from the head they came in or put together.
fn written_as_read(list: &[Header<'_>], head: &[u8]) {
    for (case, head) in [(NameCase::Lower, head), (NameCase::Preserved, head), (NameCase::Lower, &[])] {
        let mut out = b"GET / HTTP/1.1\r\n".to_vec();
        fields::write(list, head, case, &mut out);
        out.extend_from_slice(b"\r\n");
        let (_, read) = strictly_read(&out).expect("what is written is valid");
        assert_eq!(read, pairs(list), "{}", out.escape_ascii());
    }
}

/// First line and fields, if the head is what RFC 9112 says, to the letter.
fn strictly_read(head: &[u8]) -> Option<(String, Pairs)> {
    let mut lines = Vec::new();
    let mut rest = head;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    let (last, lines) = lines.split_last()?;
    // Empty lines before a request are ignored.
    let start = lines.iter().position(|line| !line.is_empty())?;
    let (first, lines) = lines.get(start..)?.split_first()?;
    if !last.is_empty() {
        return None;
    }
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let field = |line: &&[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_valid = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if name.is_empty() || !name.iter().all(is_token) || !value.iter().all(is_valid) {
            return None;
        }
        let start = value.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(value.len());
        let end = value.iter().rposition(|byte| !b" \t".contains(byte)).map_or(start, |end| end + 1);
        Some((String::from_utf8(name.to_ascii_lowercase()).ok()?, value[start..end].to_vec()))
    };
    Some((String::from_utf8(first.to_vec()).ok()?, lines.iter().map(field).collect::<Option<_>>()?))
}

/// A response that is passed on says its length once and in one way, as a header map would, and its body is the same however it
/// is cut.
pub fn response(data: &[u8]) {
    let (at, data) = choice(data);
    let method = [Method::GET, Method::HEAD, Method::POST][usize::from(at) % 3].clone();
    let mut room = vec![MaybeUninit::uninit(); 64];
    let Ok(Some(parsed)) = response::parse(data, &mut room) else { return };
    let unfolded = response::unfolded(parsed.fields);
    assert!(unfolded.is_empty() || response::may_be_folded(parsed.head), "a folded field is passed on");
    let mut list = response::field_list(parsed.fields, &unfolded);
    if list.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding")) {
        fields::remove(&mut list, &header::CONTENT_LENGTH);
    }
    let status = parsed.status;
    let mut edits = ResponseEdits::default();
    let view = ResponseView { status, fields: Fields::Parsed(&list) };
    let outcome = normalized(&view, false, &mut edits);
    normalized_in_a_map(status, &list, outcome.as_ref().ok().copied());
    if outcome.is_err() {
        return;
    }
    let mut list: FieldList<'_> = list.iter().copied().collect();
    fields::apply_to_response(&edits, &mut list);
    let framing = response::framing(&method, &ResponseView { status, fields: Fields::Parsed(&list) });
    let named = |name: &str| list.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    let (lengths, encodings) = (named("content-length"), named("transfer-encoding"));
    assert!(lengths + encodings <= 1, "the length is said {lengths} and {encodings} times");
    match framing {
        Framing::None => {}
        Framing::Length(_) => assert_eq!((lengths, encodings), (1, 0)),
        Framing::Chunked => assert_eq!((lengths, encodings), (0, 1)),
        Framing::Close => assert_eq!((lengths, encodings), (0, 0), "a length that is not read"),
    }
    written_as_read(&list, parsed.head);
    let (first, second) = cut(&data[parsed.head.len()..], at);
    body(framing, first, second);
}

fn normalized_in_a_map(status: StatusCode, list: &[Header<'_>], outcome: Option<bool>) {
    let map = map_of(list);
    if map.len() != list.len() && map.values().count() != list.len() {
        return;
    }
    let mut edits = ResponseEdits::default();
    let other = normalized(&ResponseView { status, fields: Fields::Map(&map) }, false, &mut edits);
    assert_eq!(other.ok(), outcome, "two readers of one response");
}

fn body(framing: Framing, first: &[u8], second: &[u8]) {
    let whole = passed(framing, &[&[first, second].concat()]);
    let pieces = passed(framing, &[first, second]);
    assert_eq!(whole.is_some(), pieces.is_some(), "cut at {}", first.len());
    let (Some(whole), Some(pieces)) = (whole, pieces) else { return };
    assert_eq!(whole.1..=whole.2, pieces.1..=pieces.2, "cut at {}", first.len());
    assert!(whole.1 <= first.len() + second.len());
    if matches!(framing, Framing::Chunked | Framing::Close) {
        assert_eq!(unchunked(&whole.0), unchunked(&pieces.0), "the client gets another body");
        assert_eq!(unchunked(&whole.0).len(), whole.2);
    } else {
        assert_eq!(whole.0, pieces.0);
    }
}

/// What the client gets, bytes that were consumed, and bytes of the body.
fn passed(framing: Framing, pieces: &[&[u8]]) -> Option<(Vec<u8>, usize, usize)> {
    let (mut body, mut out) = (Body::new(framing), Vec::new());
    let (mut consumed, mut payload) = (0, 0);
    for piece in pieces {
        let passed = body.pass(piece, &mut out).ok()?;
        consumed += passed.consumed;
        payload += passed.payload;
    }
    Some((out, consumed, payload))
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let (mut chunks, mut data) = (Chunks::new(), Vec::new());
    loop {
        let piece = chunks.next_data(&mut bytes).expect("chunks that were written here");
        if piece.is_empty() {
            return data;
        }
        data.extend_from_slice(piece);
    }
}
