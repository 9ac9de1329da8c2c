//! What both ends speak: bodies with a length and in chunks, and frames of WebSockets.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wrong;

pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// A part of a body with a length, or a chunk.
    pub(super) async fn send_part(&mut self, bytes: &[u8], is_declared: bool) -> io::Result<()> {
        if is_declared {
            return self.send(bytes).await;
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk).await
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Up to this many bytes, at least one.
    pub(super) async fn some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..self.buffer.len().min(most)).collect())
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Everything before the mark, which is taken too.
    async fn until(&mut self, mark: &[u8]) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|bytes| bytes == mark) {
                let text: Vec<u8> = self.buffer.drain(..at + mark.len()).collect();
                return Ok(String::from_utf8_lossy(&text[..at]).into_owned());
            }
            self.fill().await?;
        }
    }

    pub(super) async fn head(&mut self) -> io::Result<String> {
        self.until(b"\r\n\r\n").await
    }

    /// The next chunk; `None` after the last.
    pub(super) async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.until(b"\r\n").await?;
        let Ok(size) = usize::from_str_radix(&size, 16) else {
            return wrong(format!("{size:?} is no size of a chunk"));
        };
        let mut data = self.exactly(size + 2).await?;
        data.truncate(size);
        Ok((size > 0).then_some(data))
    }

    /// A frame of less than 126 bytes.
    pub(super) async fn send_frame(&mut self, kind: u8, data: &[u8], is_masked: bool) -> io::Result<()> {
        let length = u8::try_from(data.len()).expect("a short frame");
        let mut frame = vec![0x80 | kind, length | if is_masked { 0x80 } else { 0 }];
        let mask: [u8; 4] = if is_masked { [0x12, 0x34, 0x56, 0x78] } else { [0; 4] };
        if is_masked {
            frame.extend_from_slice(&mask);
        }
        frame.extend(data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.send(&frame).await
    }

    pub(super) async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let start = self.exactly(2).await?;
        let mask = if start[1] & 0x80 == 0 { vec![0; 4] } else { self.exactly(4).await? };
        let mut data = self.exactly(usize::from(start[1] & 0x7f)).await?;
        data.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok((start[0] & 0x0f, data))
    }

    pub(super) async fn expect_end(&mut self) -> io::Result<()> {
        match self.fill().await {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
            Ok(()) => wrong("bytes after the end"),
        }
    }
}
