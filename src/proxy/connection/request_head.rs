//! Where the head of a request ends.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The end of a line and an empty line behind it.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));

/// Finds the end of a head while it arrives: a line end, and right behind it another one. As Pingora's parser does, it accepts
/// LF for CRLF; [`validate`](crate::proxy::request::validate) refuses such a head later.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestHead {
    /// In a line.
    #[default]
    Line,
    /// Behind the LF of a line.
    LineEnd,
    /// Behind LF and CR.
    LineEndCr,
    Complete,
}

impl RequestHead {
    pub(super) fn is_complete(self) -> bool {
        self == Self::Complete
    }

    /// The length of a whole head. One in which bare LFs end lines may end before.
    pub(super) fn length_of(bytes: &[u8]) -> Option<usize> {
        Some(EMPTY_LINE.find(bytes)? + 3)
    }

    /// How many of the next bytes belong to the head.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        // Nearly every head arrives whole, and with CRLF.
        if *self == Self::Line
            && let Some(length) = Self::length_of(bytes)
            && !has_bare_empty_line(bytes.get(..length - 2).unwrap_or_default())
        {
            *self = Self::Complete;
            return length;
        }
        self.advance_by_lines(bytes)
    }

    fn advance_by_lines(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { return at };
            *self = match (*self, rest.first()) {
                (Self::Complete, _) => return at,
                (Self::LineEnd | Self::LineEndCr, Some(b'\n')) => Self::Complete,
                (Self::LineEnd, Some(b'\r')) => Self::LineEndCr,
                _ => {
                    let Some(line) = memchr::memchr(b'\n', rest) else {
                        *self = Self::Line;
                        return bytes.len();
                    };
                    at += line;
                    Self::LineEnd
                }
            };
            at += 1;
        }
    }
}

/// Whether two LFs stand side by side. A pass that becomes vectors.
fn has_bare_empty_line(bytes: &[u8]) -> bool {
    let next = bytes.get(1..).unwrap_or_default();
    let is_line_end = |byte: u8| u8::from(byte == b'\n');
    bytes.iter().zip(next).fold(0, |any, (one, next)| any | (is_line_end(*one) & is_line_end(*next))) > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(pieces: &[&[u8]]) -> (usize, bool) {
        let mut head = RequestHead::default();
        let end = pieces.iter().map(|piece| head.advance(piece)).sum();
        (end, head.is_complete())
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        for (head, rest) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /next HTTP/1.1\r\n\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", ""),
            ("GET / HTTP/1.1\nHost: a\n\n", "\n"),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", "\r\n"),
            ("a\rb\r\n\r\n", "\n"),
        ] {
            let all = format!("{head}{rest}");
            assert_eq!(end(&[all.as_bytes()]), (head.len(), true), "{all:?}");
            for at in 0..all.len() {
                let (first, second) = all.as_bytes().split_at(at);
                assert_eq!(end(&[first, second]), (head.len(), true), "{all:?} cut at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_head_ends_where_the_parser_says(
            pieces in prop::collection::vec(prop::sample::select(vec!["\r\n", "\n", "a: b", "x: \t", "é: y"]), 0..12),
        ) {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n\r\nrest", pieces.concat());
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut fields);
            if let Ok(httparse::Status::Complete(length)) = request.parse(head.as_bytes()) {
                prop_assert_eq!(end(&[head.as_bytes()]), (length, true), "{:?}", head);
            }
        }
    }
}
