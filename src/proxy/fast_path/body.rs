//! The body of a response on its way to the client.

use std::io::Write;

use crate::proxy::connection::request_body::Chunks;

/// How a server frames the body of its response (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// By `Content-Length`.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection. The client gets chunks, so that its connection can be kept.
    Close,
}

impl Framing {
    /// Whether a connection can carry another response behind one that came to its end; `behind`: what has arrived there.
    pub(super) fn leaves_reusable(self, behind: &[u8]) -> bool {
        self != Self::Close && behind.is_empty()
    }
}

/// How far a body has come.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes are missing.
    Length(u64),
    /// Chunks follow.
    Chunked(Chunks),
    /// The connection is not closed yet.
    Close,
    /// It is complete.
    Complete,
}

/// Where the body of a response ends cannot be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What has become of bytes of the server.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// So many of them belong to the body.
    pub(super) consumed: usize,
    /// Bytes of the body itself, without its framing.
    pub(super) payload: usize,
}

impl Body {
    pub(super) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Complete,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::new()),
            Framing::Close => Self::Close,
        }
    }

    pub(super) const fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }

    /// How many of the bytes go to the client as they are; 0 when they have to be framed anew.
    pub(super) fn plain(&self, bytes: &[u8]) -> usize {
        match self {
            Self::Length(left) => bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX)),
            _ => 0,
        }
    }

    /// So many bytes went to the client as they are.
    pub(super) fn advance(&mut self, count: usize) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(count as u64);
            if *left == 0 {
                *self = Self::Complete;
            }
        }
    }

    /// Appends to `out` what the client gets of these bytes, framed anew.
    pub(super) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Forwarded, Malformed> {
        let mut forwarded = Forwarded::default();
        match self {
            Self::Length(_) => {
                let count = self.plain(bytes);
                out.extend_from_slice(bytes.get(..count).unwrap_or_default());
                self.advance(count);
                forwarded = Forwarded { consumed: count, payload: count };
            }
            Self::Chunked(chunks) => {
                let mut rest = bytes;
                loop {
                    let data = chunks.next_data(&mut rest).ok_or(Malformed)?;
                    if data.is_empty() {
                        break;
                    }
                    write_chunk(data, out);
                    forwarded.payload += data.len();
                }
                forwarded.consumed = bytes.len() - rest.len();
                if chunks.is_complete() {
                    out.extend_from_slice(LAST_CHUNK);
                    *self = Self::Complete;
                }
            }
            Self::Close => {
                if !bytes.is_empty() {
                    write_chunk(bytes, out);
                }
                forwarded = Forwarded { consumed: bytes.len(), payload: bytes.len() };
            }
            Self::Complete => {}
        }
        Ok(forwarded)
    }

    /// The server has closed the connection. False: the body is not complete.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> bool {
        if matches!(self, Self::Close) {
            out.extend_from_slice(LAST_CHUNK);
            *self = Self::Complete;
        }
        self.is_complete()
    }
}

/// Trailer fields end here.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a client reads of chunks, and whether they are complete.
    fn unchunk(bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut chunks = Chunks::new();
        let (mut rest, mut data) = (bytes, Vec::new());
        loop {
            let piece = chunks.next_data(&mut rest).unwrap();
            if piece.is_empty() {
                assert!(rest.is_empty());
                return (data, chunks.is_complete());
            }
            data.extend_from_slice(piece);
        }
    }

    /// Passes bytes in pieces. Returns what the client gets, how many bytes were consumed, and whether the body is complete.
    fn pass(framing: Framing, pieces: &[&[u8]], closes: bool) -> Option<(Vec<u8>, Forwarded, bool)> {
        let (mut body, mut out, mut all) = (Body::new(framing), Vec::new(), Forwarded::default());
        for piece in pieces {
            let forwarded = body.pass(piece, &mut out).ok()?;
            all.consumed += forwarded.consumed;
            all.payload += forwarded.payload;
        }
        let complete = if closes { body.end(&mut out) } else { body.is_complete() };
        Some((out, all, complete))
    }

    fn cut<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
    }

    #[test]
    fn a_connection_that_closes_early_leaves_a_body_incomplete() {
        for (framing, bytes) in [
            (Framing::Length(5), b"abcd" as &[u8]),
            (Framing::Chunked, b"5\r\nabcde\r\n"),
            (Framing::Chunked, b"5\r\nabcde\r\n0\r\n"),
            (Framing::Chunked, b""),
        ] {
            let (.., complete) = pass(framing, &[bytes], true).unwrap();
            assert!(!complete, "{framing:?} {}", bytes.escape_ascii());
        }
        let (out, _, complete) = pass(Framing::Close, &[b"abc"], true).unwrap();
        assert!(complete);
        assert_eq!(unchunk(&out), (b"abc".to_vec(), true));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bytes in [b"x\r\n" as &[u8], b"5\nabcde", b"1\r\nab\r\n", b"-1\r\n", b"10000000000000000\r\n"] {
            assert!(pass(Framing::Chunked, &[bytes], false).is_none(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn extensions_and_trailers_end_here() {
        let bytes = b"3;a=b\r\nabc\r\n0\r\nSet-Cookie: a=1\r\n\r\nHTTP/1.1";
        let (out, forwarded, complete) = pass(Framing::Chunked, &[bytes], false).unwrap();
        assert!(complete);
        assert_eq!(out, b"3\r\nabc\r\n0\r\n\r\n");
        assert_eq!((forwarded.consumed, forwarded.payload), (bytes.len() - "HTTP/1.1".len(), 3));
    }

    proptest! {
        #[test]
        fn the_client_gets_the_body_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
            cuts in prop::collection::vec(0usize..2000, 0..12),
            kind in 0u8..3,
        ) {
            let body = pieces.concat();
            let mut bytes = Vec::new();
            let framing = match kind {
                0 => Framing::Length(body.len() as u64),
                1 => Framing::Chunked,
                _ => Framing::Close,
            };
            for piece in &pieces {
                if framing == Framing::Chunked {
                    bytes.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
                }
                bytes.extend_from_slice(piece);
                if framing == Framing::Chunked {
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            if framing == Framing::Chunked {
                bytes.extend_from_slice(LAST_CHUNK);
            }
            let own = bytes.len();
            if framing != Framing::Close {
                bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
            }
            let (out, forwarded, complete) = pass(framing, &cut(&bytes, &cuts), framing == Framing::Close).unwrap();
            prop_assert!(complete);
            prop_assert_eq!((forwarded.consumed, forwarded.payload), (own, body.len()));
            let read = if let Framing::Length(_) = framing { (out, true) } else { unchunk(&out) };
            prop_assert_eq!(read, (body, true));
        }

        #[test]
        fn any_bytes_of_a_server_are_passed_alike_however_they_are_cut(
            bytes in prop::collection::vec(prop::sample::select(b"0135aF;\r\n x".to_vec()), 0..60),
            cuts in prop::collection::vec(0usize..60, 0..8),
        ) {
            let whole = pass(Framing::Chunked, &[&bytes], false);
            let pieces = pass(Framing::Chunked, &cut(&bytes, &cuts), false);
            prop_assert_eq!(whole.is_some(), pieces.is_some());
            if let (Some((out, forwarded, complete)), Some((other, same, also))) = (whole, pieces) {
                prop_assert_eq!((forwarded, complete), (same, also));
                if complete {
                    prop_assert_eq!(unchunk(&out), unchunk(&other));
                }
            }
        }
    }
}
