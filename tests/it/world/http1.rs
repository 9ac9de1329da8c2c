//! HTTP/1.1 by hand, for both ends: heads as they came over the wire, in their order, and bodies.

use std::io::{self, ErrorKind, Read};

use super::net::Stream;

/// A request's or response's first line and header lines, as received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) first_line: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All headers of that name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// Word `index` of the first line.
    pub(crate) fn word(&self, index: usize) -> &str {
        self.first_line.split(' ').nth(index).unwrap_or_default()
    }

    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().any(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }

    fn parse(bytes: &[u8]) -> Self {
        let text: String = bytes.iter().map(|b| char::from(*b)).collect();
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()),
                None => (line.to_owned(), String::new()),
            })
            .collect();
        Self { first_line, headers }
    }
}

/// Reads messages from a stream, keeping what came too early.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) stream: Stream,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Bytes received but not yet consumed.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets bytes that were looked at by [`pending`](Self::pending).
    pub(crate) fn consume(&mut self, count: usize) {
        self.buffer.drain(..count);
    }

    /// One more read into the buffer; the number of bytes, 0 at the end.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        let had = self.buffer.len();
        self.buffer.resize(had + 64 * 1024, 0);
        let read = loop {
            match self.stream.read(&mut self.buffer[had..]) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(had + read.as_ref().map_or(0, |n| *n));
        read
    }

    /// A head, up to its empty line; `None` when the stream ends before the first byte.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        let mut searched = 0;
        loop {
            let from = searched.min(self.buffer.len());
            if let Some(at) = self.buffer[from..].windows(4).position(|w| w == b"\r\n\r\n") {
                let head = Head::parse(&self.buffer[..from + at]);
                self.buffer.drain(..from + at + 4);
                return Ok(Some(head));
            }
            searched = self.buffer.len().saturating_sub(3);
            if self.fill()? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ended("in the middle of a head")) };
            }
        }
    }

    /// A line without its end.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(ended("in the middle of a line"));
            }
        }
    }

    /// Exactly `length` bytes, in pieces.
    pub(crate) fn exactly(&mut self, length: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && self.fill()? == 0 {
                return Err(ended("in the middle of a body"));
            }
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            take(&self.buffer[..n]);
            self.buffer.drain(..n);
            left -= n as u64;
        }
        Ok(())
    }

    /// One chunk of a chunked body; `None` after the last.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("{line:?} is no chunk size: {e}")))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            return Ok(None);
        }
        let mut data = Vec::new();
        self.exactly(size, |piece| data.extend_from_slice(piece))?;
        let end = self.line()?;
        if end.is_empty() {
            Ok(Some(data))
        } else {
            Err(io::Error::new(ErrorKind::InvalidData, "chunk without an end"))
        }
    }

    /// The body that belongs to this head, in pieces. With neither length nor chunks: nothing, or (`until_end`) all
    /// that comes until the stream ends.
    pub(crate) fn body(&mut self, head: &Head, until_end: bool, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        if head.has_token("transfer-encoding", "chunked") {
            while let Some(data) = self.chunk()? {
                take(&data);
            }
            return Ok(());
        }
        if let Some(length) = head.header("content-length") {
            let length =
                length.parse().map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("Content-Length: {e}")))?;
            return self.exactly(length, take);
        }
        if !until_end {
            return Ok(());
        }
        loop {
            if self.buffer.is_empty() && self.fill()? == 0 {
                return Ok(());
            }
            take(&self.buffer);
            self.buffer.clear();
        }
    }
}

fn ended(place: &str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, format!("the connection ended {place}"))
}

/// The value of a query parameter in a request target.
pub(crate) fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// Percent-decoding, for bytes that a URL cannot carry.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'%' && i + 2 < bytes.len())
            .then(|| u8::from_str_radix(&text[i + 1..i + 3], 16).ok())
            .flatten();
        out.push(code.unwrap_or(bytes[i]));
        i += if code.is_some() { 3 } else { 1 };
    }
    out
}

/// SHA-256 in hexadecimal.
pub(crate) struct Hash(ring::digest::Context);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn hex(self) -> String {
        self.0.finish().as_ref().iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"))
    }

    pub(crate) fn of(bytes: &[u8]) -> String {
        let mut hash = Self::new();
        hash.update(bytes);
        hash.hex()
    }
}
