//! Where the body of a request ends, by the rules of RFC 9112, section 6.3.
//!
//! Bytes behind it are those of the next request. Pingora must not see them while it works on this one: it would take them for
//! an error of the client.

use std::io;

/// How a request frames its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// By `Content-Length`; without one, 0.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
}

/// How far a body has been read.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Bytes that are still to come.
    Length(u64),
    Chunked(Chunks),
}

impl RequestBody {
    pub(crate) const fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::Chunked(Chunks::new()),
        }
    }

    pub(crate) const fn is_complete(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks { state: ChunkState::Complete }))
    }

    /// How many of the next bytes belong to the body.
    ///
    /// # Errors
    /// When chunks are malformed: where the body ends is unknown then.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                Ok(count)
            }
            Self::Chunked(chunks) => chunks.advance(bytes).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Most digits of a chunk's size, and the largest size, as Pingora has them.
const MAX_DIGITS: u8 = 16;
const MAX_SIZE: u64 = i64::MAX as u64;
/// Most bytes of a chunk's extension, and of the trailer section. A little less than Pingora's limits, which depend on how bytes
/// arrive.
const MAX_EXTENSION: u32 = 8_000;
const MAX_TRAILERS: u32 = 64_000;

/// Follows chunks (RFC 9112, section 7.1) to the end of the trailer section. Never takes what Pingora refuses: the two would
/// see different ends.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: ChunkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// Before the first digit of a size.
    SizeStart,
    /// The size so far, and how many digits it has.
    Size(u64, u8),
    /// Blanks behind the size, and how many.
    Blank(u64, u32),
    /// From the semicolon behind the size to the end of its line, and how many bytes.
    Extension(u64, u32),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk, after so many bytes of such lines.
    TrailerStart(u32),
    Trailer(u32),
    TrailerLf(u32),
    LastLf,
    Complete,
}

impl Chunks {
    /// Before the first chunk.
    pub(crate) const fn new() -> Self {
        Self { state: ChunkState::SizeStart }
    }

    /// The trailer section has ended.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == ChunkState::Complete
    }

    /// How many of the bytes belong to the body; `None` when they are malformed.
    fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while !self.next_data(&mut rest)?.is_empty() {}
        Some(bytes.len() - rest.len())
    }

    /// Takes the next data of a chunk, with what frames it; nothing when the bytes end, or the body. `None`: they are
    /// malformed.
    pub(crate) fn next_data<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
        while self.state != ChunkState::Complete {
            if let ChunkState::Data(left) = self.state {
                let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let (data, rest) = bytes.split_at_checked(count)?;
                *bytes = rest;
                let left = left - count as u64;
                self.state = if left == 0 { ChunkState::DataCr } else { ChunkState::Data(left) };
                if !data.is_empty() {
                    return Some(data);
                }
            }
            let Some((byte, after)) = bytes.split_first() else { break };
            self.state = self.state.after(*byte)?;
            *bytes = after;
        }
        Some(&[])
    }
}

impl ChunkState {
    /// The state after a byte of anything but chunk data.
    fn after(self, byte: u8) -> Option<Self> {
        let next = match (self, byte) {
            (Self::SizeStart, _) => Self::Size(digit(byte)?, 1),
            (Self::Size(size, _) | Self::Blank(size, _) | Self::Extension(size, _), b'\r') => Self::SizeLf(size),
            (Self::Size(size, _), b' ' | b'\t') => Self::Blank(size, 1),
            (Self::Blank(size, count), b' ' | b'\t') => Self::Blank(size, within(count, MAX_EXTENSION)?),
            (Self::Size(size, _), b';') => Self::Extension(size, 1),
            (Self::Blank(size, count), b';') => Self::Extension(size, count),
            (Self::Size(size, digits @ ..MAX_DIGITS), _) => {
                Self::Size(size.checked_mul(16)?.checked_add(digit(byte)?)?, digits + 1)
            }
            (Self::SizeLf(0), b'\n') => Self::TrailerStart(0),
            (Self::SizeLf(size @ ..=MAX_SIZE), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::SizeStart,
            (Self::TrailerStart(_), b'\r') => Self::LastLf,
            (Self::Trailer(count), b'\r') => Self::TrailerLf(within(count, MAX_TRAILERS)?),
            (Self::TrailerLf(count), b'\n') => Self::TrailerStart(within(count, MAX_TRAILERS)?),
            (Self::LastLf, b'\n') => Self::Complete,
            (Self::Extension(..) | Self::TrailerStart(_) | Self::Trailer(_), b'\n') => return None,
            (Self::Extension(size, count), _) => Self::Extension(size, within(count, MAX_EXTENSION)?),
            (Self::TrailerStart(count) | Self::Trailer(count), _) => Self::Trailer(within(count, MAX_TRAILERS)?),
            _ => return None,
        };
        Some(next)
    }
}

/// One more; `None`: that is too many.
fn within(count: u32, most: u32) -> Option<u32> {
    (count < most).then_some(count + 1)
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bytes belong to the body, read in pieces; `None` when it is malformed.
    fn length(framing: BodyFraming, pieces: &[&[u8]]) -> Option<(usize, bool)> {
        let mut body = RequestBody::new(framing);
        let mut length = 0;
        for piece in pieces {
            length += body.advance(piece).ok()?;
        }
        Some((length, body.is_complete()))
    }

    #[test]
    fn a_body_without_a_length_has_no_bytes() {
        assert_eq!(length(BodyFraming::Length(0), &[b"GET / HTTP/1.1"]), Some((0, true)));
    }

    #[test]
    fn malformed_chunks_have_no_end() {
        for chunks in [
            "\r\n",
            ";\r\n",
            "x\r\n",
            "+5\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5\n",
            "5;a\n",
            "5\r\r\n",
            "1\r\nab",
            "1\r\na\n",
            "0\r\na: b\n\r\n",
            "0\r\n\rx",
            "10000000000000000\r\n",
            "0\r\n\n",
            " 5\r\n",
            "5 5\r\n",
            "5\t \"\r\n",
            "00000000000000005\r\n",
            "ffffffffffffffff\r\n",
        ] {
            assert_eq!(length(BodyFraming::Chunked, &[chunks.as_bytes()]), None, "{chunks:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_belong_to_the_body() {
        let chunks = "5;a=\"b\"\r\nabcde\r\nA ; x\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n";
        let all = format!("{chunks}GET / HTTP/1.1\r\n");
        assert_eq!(length(BodyFraming::Chunked, &[all.as_bytes()]), Some((chunks.len(), true)));
    }

    proptest! {
        #[test]
        fn a_body_ends_where_it_ends_however_it_is_cut(
            sizes in prop::collection::vec(1usize..300, 0..6),
            cuts in prop::collection::vec(0usize..2000, 0..8),
            chunked in any::<bool>(),
        ) {
            let mut body = Vec::new();
            for size in &sizes {
                if chunked {
                    body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                }
                body.extend(std::iter::repeat_n(b'\n', *size));
                if chunked {
                    body.extend_from_slice(b"\r\n");
                }
            }
            if chunked {
                body.extend_from_slice(b"0\r\n\r\n");
            }
            let framing = if chunked { BodyFraming::Chunked } else { BodyFraming::Length(body.len() as u64) };
            let expected = (body.len(), true);
            body.extend_from_slice(b"GET /next HTTP/1.1\r\n\r\n");
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % body.len()).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
            prop_assert_eq!(length(framing, &pieces), Some(expected));
        }

        #[test]
        fn a_body_never_takes_more_than_there_is(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = RequestBody::new(BodyFraming::Chunked);
            if let Ok(count) = body.advance(&bytes) {
                prop_assert!(count == bytes.len() || body.is_complete());
            }
        }
    }
}
