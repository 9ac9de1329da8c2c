//! The server side of `/ws`: echoes messages, and answers `who` with the server's name.

use std::io::{self, Write as _};

use super::super::http1::{Head, Reader};
use super::super::websocket::{Frame, accept_key, read_frame, write_frame};
use super::answers::Next;

pub(super) fn serve(reader: &mut Reader, head: &Head, name: &str) -> io::Result<Next> {
    let key = head.header("sec-websocket-key").unwrap_or_default();
    if !head.has_token("upgrade", "websocket") || !head.has_token("connection", "upgrade") || key.is_empty() {
        reader.stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(Next::Keep);
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    );
    reader.stream.write_all(answer.as_bytes())?;
    while let Some(frame) = read_frame(reader)? {
        match frame {
            Frame::Text(text) if text == "who" => write_frame(reader, &Frame::Text(name.to_owned()), false)?,
            Frame::Ping(data) => write_frame(reader, &Frame::Pong(data), false)?,
            Frame::Close => {
                write_frame(reader, &Frame::Close, false)?;
                break;
            }
            other => write_frame(reader, &other, false)?,
        }
    }
    Ok(Next::Close)
}
