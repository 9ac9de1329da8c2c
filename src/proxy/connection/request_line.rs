//! Validation of the first line of a request.

/// Scans the first line of a request while it arrives: Pingora makes `%20` of a blank in the target and `%00` of a NUL, and
/// drops a fragment, so the parsed request no longer shows that the line was invalid.
#[derive(Default)]
pub(super) struct RequestLine {
    blanks: u8,
    begun: bool,
    ended: bool,
    /// The last byte was one: the line must end with the next.
    carriage_return: bool,
    /// Bytes of the line so far.
    pub(super) length: usize,
    /// The line breaks RFC 9112, section 3.
    pub(super) invalid: bool,
}

impl RequestLine {
    /// Scans the next bytes of the connection.
    pub(super) fn scan(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        // Nearly every line arrives whole, and first.
        if !self.begun
            && self.blanks == 0
            && bytes.first().is_some_and(|first| *first > b' ' && *first != 0x7f)
            && let Some(line) = memchr::memchr(b'\n', bytes).and_then(|end| bytes.get(..end))
        {
            self.scan_whole(line);
        } else {
            self.scan_bytes(bytes);
        }
    }

    /// Pass after pass, each of which becomes vectors.
    fn scan_whole(&mut self, line: &[u8]) {
        (self.begun, self.ended, self.length) = (true, true, line.len());
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let blanks = line.iter().map(|byte| usize::from(*byte == b' ')).sum::<usize>();
        let is_control = |byte: u8| byte < b' ' || byte == 0x7f;
        let control = line.iter().fold(false, |any, byte| any | is_control(*byte));
        let target = memchr::memchr(b' ', line).and_then(|blank| line.get(blank..)).unwrap_or_default();
        self.invalid |= blanks != 2 || control || memchr::memchr(b'#', target).is_some();
    }

    fn scan_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.length += usize::from(self.begun);
            // Pingora makes `%0D` of one in the target.
            self.invalid |= std::mem::take(&mut self.carriage_return) && *byte != b'\n';
            match byte {
                // Empty lines before a request are ignored (RFC 9112, section 2.2).
                b'\r' | b'\n' if !self.begun => {}
                b'\n' => {
                    self.ended = true;
                    self.invalid |= self.blanks != 2;
                    return;
                }
                b'\r' => self.carriage_return = true,
                b' ' => self.blanks = self.blanks.saturating_add(1),
                // A method may have one.
                b'#' if self.blanks > 0 => self.invalid = true,
                0..=0x1f | 0x7f => self.invalid = true,
                _ => self.begun = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invalid(pieces: &[&[u8]]) -> bool {
        let mut line = RequestLine::default();
        for piece in pieces {
            line.scan(piece);
        }
        line.invalid
    }

    #[test]
    fn a_valid_line_is_valid_however_it_is_cut() {
        let line = b"\r\nG#T /a?b=%20 HTTP/1.1\r\nHost: a b c#\0\r\n";
        for at in 0..line.len() {
            let (head, tail) = line.split_at(at);
            assert!(!invalid(&[head, tail]), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn a_line_is_judged_alike_however_it_is_cut(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["GET", " ", "/a", "#", "\r", "\t", "\0", "\x7f", "é", "HTTP/1.1", "\r\n"]),
                0..10,
            ),
        ) {
            let line = format!("{}\r\n", pieces.concat());
            let bytes: Vec<&[u8]> = line.as_bytes().chunks(1).collect();
            prop_assert_eq!(invalid(&[line.as_bytes()]), invalid(&bytes), "{:?}", line);
        }
    }

    #[test]
    fn blanks_control_characters_and_fragments_in_the_target_are_found() {
        for line in [
            b"GET /a b HTTP/1.1\r\n" as &[u8],
            b"GET /a\0b HTTP/1.1\r\n",
            b"GET /a\tb HTTP/1.1\r\n",
            b"GET /a\x7f HTTP/1.1\r\n",
            b"GET /a\r HTTP/1.1\r\n",
            b"GET /a HTTP/1.1\r\r\n",
            b"GET /a#b HTTP/1.1\r\n",
            b"GET # HTTP/1.1\r\n",
            b"GET http://a/?b#c HTTP/1.1\r\n",
            b"GET  /a HTTP/1.1\r\n",
            b"GET /a\r\n",
        ] {
            assert!(invalid(&[line]), "{}", line.escape_ascii());
        }
    }
}
