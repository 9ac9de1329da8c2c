//! HTTP/2 frame by frame: a client that may break every rule of RFC 9113.

use std::io;
use std::time::{Duration, Instant};

use super::client::Wire;

/// What a connection begins with (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 32;
}

/// Identifiers of settings (section 6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Codes of errors (section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

    pub(crate) fn name(code: u32) -> String {
        let named = match code {
            NO_ERROR => "NO_ERROR",
            PROTOCOL_ERROR => "PROTOCOL_ERROR",
            FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            STREAM_CLOSED => "STREAM_CLOSED",
            FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            REFUSED_STREAM => "REFUSED_STREAM",
            CANCEL => "CANCEL",
            COMPRESSION_ERROR => "COMPRESSION_ERROR",
            ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            other => return other.to_string(),
        };
        named.to_owned()
    }
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A SETTINGS frame.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A `WINDOW_UPDATE` frame; stream 0 is the connection.
pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A `RST_STREAM` frame.
pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// The fields of a request without a body.
pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "example.test")]
}

/// HEADERS of a whole request.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = block(&request("GET", path));
    frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, stream, &fields)
}

/// A block of fields, none of them indexed or compressed (RFC 7541, section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(name.as_bytes(), value.as_bytes(), &mut out);
    }
    out
}

pub(crate) fn literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        integer(0, 7, text.len(), out);
        out.extend_from_slice(text);
    }
}

/// An integer behind the first bits of its octet (RFC 7541, section 5.1).
pub(crate) fn integer(first: u8, prefix: u32, number: usize, out: &mut Vec<u8>) {
    let byte = |number: usize| u8::try_from(number).expect("a byte");
    let most = (1 << prefix) - 1;
    if number < most {
        out.push(first | byte(number));
        return;
    }
    out.push(first | byte(most));
    let mut rest = number - most;
    while rest >= 128 {
        out.push(byte(rest % 128) | 128);
        rest /= 128;
    }
    out.push(byte(rest));
}

/// A frame that came back.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The four bytes from there: the code of `RST_STREAM` from 0, that of GOAWAY from 4.
    pub(crate) fn number(&self, from: usize) -> u32 {
        let bytes = self.payload.get(from..from + 4).expect("a number");
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }
}

/// What a connection brings next.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Frame),
    Closed,
    Silence,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
}

impl Connection {
    /// Nothing is sent yet.
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Sends the preface and these settings, and acknowledges those of the proxy. Returns them.
    pub(crate) fn begin(&mut self, values: &[(u16, u32)], patience: Duration) -> Option<Frame> {
        self.send(&[PREFACE, &settings(values)].concat()).ok()?;
        let (mut theirs, mut acknowledged) = (None, false);
        while theirs.is_none() || !acknowledged {
            match self.next(patience) {
                Next::Frame(frame) if frame.kind == kind::SETTINGS && frame.has(flag::ACK) => acknowledged = true,
                Next::Frame(frame) if frame.kind == kind::SETTINGS => theirs = Some(frame),
                Next::Frame(_) => {}
                Next::Closed | Next::Silence => return None,
            }
        }
        self.send(&frame(kind::SETTINGS, flag::ACK, 0, &[])).ok()?;
        theirs
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.try_send(bytes)
    }

    /// The next frame that arrives within that time.
    pub(crate) fn next(&mut self, patience: Duration) -> Next {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = self.take() {
                return Next::Frame(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let _ = self.wire.reader.stream.set_patience(left);
            match self.wire.reader.fill() {
                Ok(0) => return Next::Closed,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Next::Silence;
                }
                Err(_) => return Next::Closed,
            }
        }
    }

    /// A frame that has arrived whole.
    fn take(&mut self) -> Option<Frame> {
        let bytes = self.wire.reader.pending();
        let head: [u8; 9] = bytes.get(..9)?.try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).ok()?;
        let payload = bytes.get(9..9 + length)?.to_vec();
        self.wire.reader.consume(9 + length);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}
