//! As much of RFC 6455 as an echo needs, for both ends.

use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::Wire;
use super::http1::Reader;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close,
}

/// The answer to a client's `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// The next frame; `None` when the connection ended between frames.
pub(crate) fn read_frame(reader: &mut Reader) -> io::Result<Option<Frame>> {
    if reader.pending().is_empty() && reader.fill()? == 0 {
        return Ok(None);
    }
    let start = take(reader, 2)?;
    let masked = start[1] & 0x80 != 0;
    let length = match start[1] & 0x7f {
        126 => take(reader, 2)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
        127 => take(reader, 8)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
        n => u64::from(n),
    };
    let mask = if masked { take(reader, 4)? } else { vec![0; 4] };
    let mut data = take(reader, length)?;
    data.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, m)| *byte ^= m);
    Ok(Some(match start[0] & 0x0f {
        1 => Frame::Text(String::from_utf8_lossy(&data).into_owned()),
        2 => Frame::Binary(data),
        8 => Frame::Close,
        9 => Frame::Ping(data),
        10 => Frame::Pong(data),
        other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("frame type {other}"))),
    }))
}

/// Writes a frame, masked as clients must.
pub(crate) fn write_frame(reader: &mut Reader, frame: &Frame, masked: bool) -> io::Result<()> {
    let (kind, data): (u8, &[u8]) = match frame {
        Frame::Text(text) => (1, text.as_bytes()),
        Frame::Binary(data) => (2, data),
        Frame::Close => (8, &[]),
        Frame::Ping(data) => (9, data),
        Frame::Pong(data) => (10, data),
    };
    let mut bytes = vec![0x80 | kind];
    let flag = if masked { 0x80 } else { 0 };
    match u16::try_from(data.len()) {
        Ok(n) if n < 126 => bytes.push(flag | n.to_be_bytes()[1]),
        Ok(n) => {
            bytes.push(flag | 0x7e);
            bytes.extend_from_slice(&n.to_be_bytes());
        }
        Err(_) => {
            bytes.push(flag | 0x7f);
            bytes.extend_from_slice(&(data.len() as u64).to_be_bytes());
        }
    }
    let mask: [u8; 4] = if masked { [0x12, 0x34, 0x56, 0x78] } else { [0; 4] };
    if masked {
        bytes.extend_from_slice(&mask);
    }
    bytes.extend(data.iter().zip(mask.iter().cycle()).map(|(byte, m)| byte ^ m));
    reader.stream.write_all(&bytes)
}

/// Whether the other side answers a ping.
pub(crate) fn is_alive(wire: &mut Wire) -> bool {
    write_frame(&mut wire.reader, &Frame::Ping(Vec::new()), true).is_ok()
        && matches!(read_frame(&mut wire.reader), Ok(Some(Frame::Pong(_))))
}

fn take(reader: &mut Reader, length: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    reader.exactly(length, |piece| data.extend_from_slice(piece))?;
    Ok(data)
}
