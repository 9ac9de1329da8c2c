//! A client that plays a case of h2spec.

use crate::world::frames::{
    Connection, Frame, Next, PREFACE, block, code, flag, frame, kind, request, reset, setting, settings, window_update,
};
use crate::world::{PATIENCE, Wire};

/// What must come of a case, as h2spec judges it.
#[derive(Clone, Copy)]
pub(super) enum Want {
    /// The first frame is SETTINGS, and no acknowledgement.
    FirstSettings,
    /// The next SETTINGS are an acknowledgement.
    SettingsAck,
    /// The next PING, whatever it is.
    Ping,
    PingAck([u8; 8]),
    PingAckOrClose([u8; 8]),
    /// HEADERS on this stream.
    Headers(u32),
    Data,
    /// DATA of one byte.
    OneByte,
    /// The end of a stream.
    StreamEnd,
    Close,
    GoAway(u32),
    Reset(u32),
    /// GOAWAY with one of these codes, or the connection is closed.
    ConnectionError(&'static [u32]),
    /// The same, or `RST_STREAM` with one of the codes.
    StreamError(&'static [u32]),
}

pub(super) enum Outcome {
    Passed,
    /// The connection is closed, after a GOAWAY with another code.
    OtherCode(u32),
    Failed,
}

pub(super) struct Peer {
    connection: Connection,
    /// The proxy's SETTINGS.
    settings: Option<Frame>,
    seen: Vec<String>,
    /// What is sent when the case waits for something: at once, since the response to one frame must not overtake the next.
    unsent: Vec<u8>,
    /// Something that the case waited for in between did not come.
    broken: bool,
}

impl Peer {
    pub(super) fn new(wire: Wire) -> Self {
        let connection = Connection::new(wire);
        Self { connection, settings: None, seen: Vec::new(), unsent: Vec::new(), broken: false }
    }

    pub(super) fn begin(&mut self) {
        self.settings = self.connection.begin(&[(setting::INITIAL_WINDOW_SIZE, 65_535)], PATIENCE);
        self.broken = self.settings.is_none();
    }

    pub(super) fn preface(&mut self) {
        self.raw(PREFACE);
        self.settings(&[(setting::INITIAL_WINDOW_SIZE, 65_535)]);
    }

    /// The value of one of the proxy's settings.
    pub(super) fn setting(&self, id: u16) -> Option<u32> {
        let payload = &self.settings.as_ref()?.payload;
        let mut values = payload.chunks(6).filter(|value| value[..2] == id.to_be_bytes());
        Some(u32::from_be_bytes(values.next_back()?[2..].try_into().ok()?))
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw(&frame(kind, flags, stream, payload));
    }

    /// A block of fields that is complete.
    pub(super) fn headers(&mut self, stream: u32, end_stream: u8, block: &[u8]) {
        self.frame(kind::HEADERS, end_stream | flag::END_HEADERS, stream, block);
    }

    /// A whole request.
    pub(super) fn get(&mut self, stream: u32) {
        self.headers(stream, flag::END_STREAM, &fields("GET", &[]));
    }

    /// A request whose body follows.
    pub(super) fn post(&mut self, stream: u32) {
        self.headers(stream, 0, &fields("POST", &[]));
    }

    pub(super) fn continuation(&mut self, stream: u32, end_headers: bool, block: &[u8]) {
        self.frame(kind::CONTINUATION, flag::END_HEADERS * u8::from(end_headers), stream, block);
    }

    pub(super) fn data(&mut self, stream: u32, end_stream: u8, bytes: &[u8]) {
        self.frame(kind::DATA, end_stream, stream, bytes);
    }

    /// A PRIORITY frame with the weight 256.
    pub(super) fn priority(&mut self, stream: u32, depends_on: u32) {
        self.frame(kind::PRIORITY, 0, stream, &priority(depends_on, 255));
    }

    pub(super) fn reset(&mut self, stream: u32, code: u32) {
        self.raw(&reset(stream, code));
    }

    pub(super) fn settings(&mut self, values: &[(u16, u32)]) {
        self.raw(&settings(values));
    }

    pub(super) fn ping(&mut self, flags: u8, data: &[u8]) {
        self.frame(kind::PING, flags, 0, data);
    }

    pub(super) fn goaway(&mut self, code: u32, debug: &[u8]) {
        self.frame(kind::GOAWAY, 0, 0, &[&[0; 4], &code.to_be_bytes(), debug].concat());
    }

    pub(super) fn window_update(&mut self, stream: u32, increment: u32) {
        self.raw(&window_update(stream, increment));
    }

    /// Waits for something in the middle of a case, without which the case fails.
    pub(super) fn expect(&mut self, want: Want) {
        self.broken |= !matches!(self.wait(want), Outcome::Passed);
    }

    /// Reads until it is clear what came of the case.
    pub(super) fn wait(&mut self, want: Want) -> Outcome {
        if self.broken {
            return Outcome::Failed;
        }
        // Fails once the proxy has closed the connection, which is what many cases want.
        let _ = self.connection.send(&std::mem::take(&mut self.unsent));
        let mut other_code = None;
        loop {
            match self.connection.next(PATIENCE) {
                Next::Silence => return Outcome::Failed,
                Next::Closed => {
                    self.seen.push("closed".to_owned());
                    return match (want, other_code) {
                        (Want::ConnectionError(_) | Want::StreamError(_), Some(code)) => Outcome::OtherCode(code),
                        (
                            Want::ConnectionError(_) | Want::StreamError(_) | Want::Close | Want::PingAckOrClose(_),
                            _,
                        ) => Outcome::Passed,
                        _ => Outcome::Failed,
                    };
                }
                Next::Frame(frame) => {
                    self.seen.push(describe(&frame));
                    if let Some(passed) = judge(want, &frame) {
                        return if passed { Outcome::Passed } else { Outcome::Failed };
                    }
                    if frame.kind == kind::GOAWAY {
                        other_code = Some(frame.number(4));
                    }
                }
            }
        }
    }

    pub(super) fn seen(&self) -> String {
        self.seen.join(", ")
    }
}

/// Whether a frame is what is wanted; `None`: the next ones say.
fn judge(want: Want, frame: &Frame) -> Option<bool> {
    let is = |kind| frame.kind == kind;
    let acknowledges = |data: [u8; 8]| frame.has(flag::ACK) && frame.payload == data;
    let wanted = match want {
        Want::FirstSettings => return Some(is(kind::SETTINGS) && !frame.has(flag::ACK)),
        Want::SettingsAck if is(kind::SETTINGS) => return Some(frame.has(flag::ACK)),
        Want::PingAck(data) if is(kind::PING) => return Some(acknowledges(data)),
        Want::OneByte if is(kind::DATA) => return Some(frame.payload.len() == 1),
        Want::GoAway(code) if is(kind::GOAWAY) => return Some(frame.number(4) == code),
        Want::Reset(code) if is(kind::RST_STREAM) => return Some(frame.number(0) == code),
        Want::Headers(stream) if is(kind::HEADERS) => return Some(frame.stream == stream),
        Want::Ping => is(kind::PING),
        Want::Data => is(kind::DATA),
        Want::PingAckOrClose(data) => is(kind::PING) && acknowledges(data),
        Want::StreamEnd => (is(kind::DATA) || is(kind::HEADERS)) && frame.has(flag::END_STREAM),
        Want::ConnectionError(codes) => is(kind::GOAWAY) && codes.contains(&frame.number(4)),
        Want::StreamError(codes) => {
            is(kind::GOAWAY) && codes.contains(&frame.number(4))
                || is(kind::RST_STREAM) && codes.contains(&frame.number(0))
        }
        _ => false,
    };
    wanted.then_some(true)
}

fn describe(frame: &Frame) -> String {
    let ack = if frame.has(flag::ACK) { " ACK" } else { "" };
    match frame.kind {
        kind::DATA => "DATA".to_owned(),
        kind::HEADERS => "HEADERS".to_owned(),
        kind::RST_STREAM => format!("RST_STREAM {}", code::name(frame.number(0))),
        kind::SETTINGS => format!("SETTINGS{ack}"),
        kind::PING => format!("PING{ack}"),
        kind::GOAWAY => format!("GOAWAY {}", code::name(frame.number(4))),
        kind::WINDOW_UPDATE => "WINDOW_UPDATE".to_owned(),
        other => format!("a frame of type {other}"),
    }
}

/// The block of a request's fields, and more.
pub(super) fn fields(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    [block(&request(method, "/")), block(more)].concat()
}

/// A field that is as long as the suite makes it.
pub(super) fn dummy() -> Vec<u8> {
    block(&[("x-dummy0", &"x".repeat(4000))])
}

/// The payload of a PRIORITY frame.
pub(super) fn priority(depends_on: u32, weight: u8) -> Vec<u8> {
    [&depends_on.to_be_bytes()[..], &[weight]].concat()
}
