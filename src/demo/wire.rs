//! Just enough HTTP/1.1 for the sample servers: read a request, write a reply, never trust the sender.
//!
//! What a sample server does not understand it refuses with a status and closes; nothing that arrives can panic it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::head::{Framing, Head, find, parse_head};

/// Bytes of request line and headers; more: 431.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes of a body; more: 413.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// How long a connection may wait for its next request. Longer than the proxy keeps idle connections (30 s), so that
/// it is the proxy that closes them.
const IDLE: Duration = Duration::from_secs(120);
/// How long one read may wait within a request.
const STALLED: Duration = Duration::from_secs(10);

/// A whole request.
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) body: String,
}

impl Request {
    /// The first header of this (lower-case) name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of the first cookie of this name, over all Cookie lines.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        find(&self.head.headers, "cookie")
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// A parameter of the query or of a form in the body. Only plain words are looked for, so nothing is decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.head
            .query
            .split('&')
            .chain(self.body.trim_end().split('&'))
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// What a sample server answers.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// The server to stop once this reply has been sent: the one that sends it.
    pub(super) then_stop: bool,
}

impl Reply {
    /// A line of plain text.
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into(), ..Self::default() }
    }
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum Bad {
    /// The sender left or was too slow: nobody to answer.
    Gone,
    /// Answer with this status and close.
    Refused(u16, &'static str),
}

/// A connection, with the bytes that were read but not yet used.
pub(super) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads the next request; `None` when the sender has closed between two requests.
    pub(super) async fn next_request(&mut self) -> Result<Option<Request>, Bad> {
        let Some(head) = self.read_head().await? else {
            return Ok(None);
        };
        let head = parse_head(&head)?;
        let expects_go = find(&head.headers, "expect").any(|value| value.eq_ignore_ascii_case("100-continue"));
        if expects_go && head.framing != Framing::Length(0) && self.buffer.is_empty() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_gone| Bad::Gone)?;
        }
        let body = match head.framing {
            Framing::Length(length) => self.read_exactly(length).await?,
            Framing::Chunked => self.read_chunks().await?,
        };
        Ok(Some(Request { head, body: String::from_utf8_lossy(&body).into_owned() }))
    }

    /// Writes a reply; to a HEAD request without its body.
    pub(super) async fn answer(&mut self, reply: &Reply, to_head: bool, keep_alive: bool) -> io::Result<()> {
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n",
            reply.status,
            reason(reply.status),
            reply.content_type,
            reply.body.len(),
            if keep_alive { "keep-alive" } else { "close" },
        );
        for (name, value) in &reply.headers {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        }
        out.push_str("\r\n");
        if !to_head {
            out.push_str(&reply.body);
        }
        self.stream.write_all(out.as_bytes()).await?;
        self.stream.flush().await
    }

    async fn read_head(&mut self) -> Result<Option<Vec<u8>>, Bad> {
        loop {
            // Empty lines before a request are forgiven (RFC 9112, 2.2).
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.drain(..2);
            }
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok(Some(self.buffer.drain(..end + 4).collect()));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Bad::Refused(431, "request line and headers are too large"));
            }
            let first = self.buffer.is_empty();
            match self.fill(if first { IDLE } else { STALLED }).await? {
                0 if first => return Ok(None),
                0 => return Err(Bad::Gone),
                _ => {}
            }
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>, Bad> {
        while self.buffer.len() < length {
            if self.fill(STALLED).await? == 0 {
                return Err(Bad::Gone);
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn read_chunks(&mut self) -> Result<Vec<u8>, Bad> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let hexadecimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = usize::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
            let Some(size) = size else {
                return Err(Bad::Refused(400, "a chunk without a size"));
            };
            if size > MAX_BODY - body.len() {
                return Err(Bad::Refused(413, "the body is too large"));
            }
            if size == 0 {
                break;
            }
            body.append(&mut self.read_exactly(size).await?);
            if !self.read_line().await?.is_empty() {
                return Err(Bad::Refused(400, "a chunk is longer than its size"));
            }
        }
        // Trailers are read and dropped; there may be as many as headers, together.
        let mut left = MAX_HEAD;
        loop {
            let line = self.read_line().await?;
            if line.is_empty() {
                return Ok(body);
            }
            left = left.checked_sub(line.len()).ok_or(Bad::Refused(431, "the trailers are too large"))?;
        }
    }

    /// One line without its CRLF.
    async fn read_line(&mut self) -> Result<String, Bad> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_bytes| Bad::Refused(400, "not text"));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Bad::Refused(400, "a line without end"));
            }
            if self.fill(STALLED).await? == 0 {
                return Err(Bad::Gone);
            }
        }
    }

    /// Reads what has arrived; 0 when the sender has closed.
    async fn fill(&mut self, patience: Duration) -> Result<usize, Bad> {
        match timeout(patience, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(_)) | Err(_) => Err(Bad::Gone),
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
