//! Reading answers: HTTP/1.1 with a `Content-Length`, in whatever pieces it comes.

use std::str::FromStr;

/// What the bench wants to know of an answer's head.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// From `X-Server: s3`.
    pub(crate) server: Option<u32>,
    /// The proxy or the server ends the connection after this answer.
    pub(crate) closes: bool,
    /// How many `Set-Cookie` there are.
    pub(crate) set_cookies: u32,
    length: u64,
}

/// Not an answer that the bench understands.
#[derive(Debug)]
pub(crate) struct Malformed;

/// One answer on its way.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// An incomplete head.
    partial: Vec<u8>,
    head: Option<Head>,
    /// Bytes of the body that have not come.
    left: u64,
}

impl Reader {
    /// Takes what came. The head, once all of the body is there; then the reader is ready for the next answer.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Option<Head>, Malformed> {
        let mut body = bytes;
        if self.head.is_none() {
            let found = if self.partial.is_empty() {
                split_head(bytes)
            } else {
                self.partial.extend_from_slice(bytes);
                split_head(&self.partial)
            };
            let Some((head, rest)) = found else {
                if self.partial.is_empty() {
                    self.partial.extend_from_slice(bytes);
                }
                return if self.partial.len() > 64 * 1024 { Err(Malformed) } else { Ok(None) };
            };
            let head = parse(head, |_| {})?;
            self.left = head.length;
            self.head = Some(head);
            body = bytes.get(bytes.len() - rest.len()..).ok_or(Malformed)?;
            self.partial.clear();
        }
        self.left = self.left.checked_sub(body.len() as u64).ok_or(Malformed)?;
        Ok(if self.left == 0 { self.head.take() } else { None })
    }
}

/// The head with its last line break, and what follows.
pub(crate) fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    bytes.split_at_checked(end)
}

/// Reads a head, and shows the value of every `Set-Cookie`.
pub(crate) fn parse(head: &[u8], mut cookie: impl FnMut(&[u8])) -> Result<Head, Malformed> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| line.get(9..12)).and_then(number).ok_or(Malformed)?;
    let mut found = Head { status, ..Head::default() };
    let mut has_length = false;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at_checked(colon).ok_or(Malformed)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        // Most headers are none of these: their lengths say so.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                found.length = number(value).ok_or(Malformed)?;
                has_length = true;
            }
            8 if name.eq_ignore_ascii_case(b"x-server") => {
                found.server = value.strip_prefix(b"s").and_then(number);
            }
            10 if name.eq_ignore_ascii_case(b"set-cookie") => {
                found.set_cookies += 1;
                cookie(value);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => found.closes = value.eq_ignore_ascii_case(b"close"),
            _ => {}
        }
    }
    if has_length { Ok(found) } else { Err(Malformed) }
}

fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
