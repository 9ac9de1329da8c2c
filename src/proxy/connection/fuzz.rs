//! Fuzz subjects: what comes before a request, where its head ends, and where its body does.

use super::proxy_protocol::{self, ProxyHeader};
use super::request_body::{BodyFraming, Chunks, RequestBody};
use super::request_head::RequestHead;
use crate::fuzz::{choice, cut};

/// Longest header that is read.
const MOST: usize = 16 + 4096;

/// A header that arrives in pieces is never told from what it is in the end, and none takes more bytes than it has.
pub fn proxy_header(data: &[u8]) {
    let whole = proxy_protocol::parse(data);
    if let ProxyHeader::Complete { length, .. } = whole {
        assert!(length <= data.len() && length <= MOST, "{length} of {} bytes", data.len());
        assert_eq!(proxy_protocol::parse(&data[..length]), whole, "what follows a header is not read");
    }
    for end in 0..data.len() {
        let part = proxy_protocol::parse(&data[..end]);
        match (part, whole) {
            (ProxyHeader::Undecided, _) => assert!(end < 12, "undecided after {end} bytes"),
            (ProxyHeader::Partial, ProxyHeader::Absent | ProxyHeader::Undecided) => panic!("a header that vanishes"),
            (ProxyHeader::Partial, _) => assert!(end < MOST, "{end} bytes are awaited"),
            (decided, _) => assert_eq!(decided, whole, "decided after {end} bytes"),
        }
    }
}

/// Chunks end where a plain reader says, with the same data, however they are cut.
pub fn body(data: &[u8]) {
    let (at, data) = choice(data);
    let (first, second) = cut(data, at);
    let whole = read(&[data]);
    let pieces = read(&[first, second]);
    match (&whole, &pieces) {
        (Some(whole), Some(pieces)) => assert_eq!(whole, pieces, "cut at {}", first.len()),
        (whole, pieces) => assert_eq!(whole.is_some(), pieces.is_some(), "cut at {}", first.len()),
    }
    if let Some((payload, end, true)) = whole {
        assert_eq!(plainly_read(data), Some((payload, end)), "a plain reader sees another body");
    } else if let Some((_, end)) = plainly_read(data) {
        panic!("a plain reader sees a body of {end} bytes");
    }
}

/// The data, how many bytes belong to the body, and whether it is complete.
fn read(pieces: &[&[u8]]) -> Option<(Vec<u8>, usize, bool)> {
    let (mut chunks, mut payload, mut end) = (Chunks::new(), Vec::new(), 0);
    let mut counted = RequestBody::new(BodyFraming::Chunked);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let data = chunks.next_data(&mut rest)?;
            if data.is_empty() {
                break;
            }
            payload.extend_from_slice(data);
        }
        assert_eq!(counted.advance(piece).ok(), Some(piece.len() - rest.len()), "two counts of one body");
        end += piece.len() - rest.len();
    }
    assert_eq!(counted.is_complete(), chunks.is_complete());
    Some((payload, end, chunks.is_complete()))
}

/// By lines, as RFC 9112, section 7.1, describes it, within the limits of [`Chunks`].
fn plainly_read(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut rest, mut payload) = (data, Vec::new());
    let line = |rest: &mut &[u8]| -> Option<Vec<u8>> {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..end].strip_suffix(b"\r")?.to_vec();
        *rest = &rest[end + 1..];
        (!line.contains(&b'\r')).then_some(line)
    };
    loop {
        let size = line(&mut rest)?;
        let digits = size.iter().position(|byte| b"; \t".contains(byte)).unwrap_or(size.len());
        let (digits, extension) = size.split_at(digits);
        let blanks = extension.iter().take_while(|byte| b" \t".contains(byte)).count();
        if digits.len() > 16 || extension.len() > 8_000 || extension.get(blanks).is_some_and(|byte| *byte != b';') {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        let size = u64::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        payload.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    let trailers = rest.len();
    while !line(&mut rest)?.is_empty() {}
    (trailers - rest.len() <= 64_002).then(|| (payload, data.len() - rest.len()))
}

/// The length of the head that the pieces begin with.
pub(crate) fn length_of_head(pieces: &[&[u8]]) -> Option<usize> {
    let mut head = RequestHead::default();
    let length = pieces.iter().map(|piece| head.advance(piece)).sum();
    head.is_complete().then_some(length)
}
