//! Messages of the Open Binary Client Protocol: rows of frames, each with its length, its flags and its bytes, in little
//! endian. Plain code, both ways.
//!
//! The first frame says which message it is, which request it answers, and has the parameters of fixed size; each further
//! frame is a text, a blob, or the begin or the end of a structure. Later versions append parameters, so a reader skips what
//! it does not know.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

/// A message that is not in parts, as members send them.
const WHOLE: u16 = 0xC000;
/// The last frame of a message.
const FINAL: u16 = 0x2000;
const BEGIN: u16 = 0x1000;
const END: u16 = 0x0800;
const NULL: u16 = 0x0400;
const EVENT: u16 = 0x0200;
/// The member need not wait for its backups: they would acknowledge to the client themselves.
const BACKUP_AWARE: u16 = 0x0100;

/// Length and flags.
const HEAD: usize = 6;
/// Type and correlation id, with which every message begins.
const INTRODUCTION: usize = 12;
/// Where the correlation id of a request stands.
const CORRELATION: usize = HEAD + 4;
/// Larger than any response to the requests here: 512 bindings with the largest session data.
const MAX_LENGTH: usize = 64 * 1024 * 1024;

/// Bytes that are not a message, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// A whole message of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message(Bytes);

/// Splits the received bytes into messages.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Bytes of the current message whose frames have been read.
    seen: usize,
}

impl Decoder {
    /// The next message, once it is complete. Allocates no memory for bytes that were not received.
    pub(super) fn take(&mut self, incoming: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        loop {
            let Some((length, flags)) = incoming.get(self.seen..).and_then(head) else { return Ok(None) };
            if length < HEAD || length > MAX_LENGTH - self.seen {
                return Err(Malformed("a frame of an impossible length"));
            }
            if self.seen == 0 && (flags & WHOLE != WHOLE || length < HEAD + INTRODUCTION) {
                return Err(Malformed("a message that does not begin like one"));
            }
            if incoming.len() - self.seen < length {
                return Ok(None);
            }
            self.seen += length;
            if flags & FINAL != 0 {
                return Ok(Some(Message(incoming.split_to(std::mem::take(&mut self.seen)).freeze())));
            }
        }
    }
}

/// Length and flags of the frame that begins here.
fn head(bytes: &[u8]) -> Option<(usize, u16)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (flags, _) = rest.split_first_chunk()?;
    // One that is negative is longer than any.
    Some((usize::try_from(i32::from_le_bytes(*length)).unwrap_or(usize::MAX), u16::from_le_bytes(*flags)))
}

impl Message {
    /// Service, method, and whether it is a response or an event; 0 for an error.
    pub(super) fn kind(&self) -> u32 {
        Fixed(self.0.get(HEAD..).unwrap_or_default()).int().map_or(0, i32::cast_unsigned)
    }

    /// Of the request that it belongs to.
    pub(super) fn correlation(&self) -> i64 {
        Fixed(self.0.get(CORRELATION..).unwrap_or_default()).long().unwrap_or_default()
    }

    pub(super) fn is_event(&self) -> bool {
        head(&self.0).is_some_and(|(_, flags)| flags & EVENT != 0)
    }

    /// The parameters of fixed size, and the frames after them.
    pub(super) fn open(&self) -> Result<(Fixed<'_>, Frames<'_>), Malformed> {
        let mut frames = Frames(&self.0);
        let first = frames.next()?;
        // An event has a partition where an answer has the number of its backups.
        let introduction = INTRODUCTION + if self.is_event() { 4 } else { 1 };
        Ok((Fixed(first.content.get(introduction..).ok_or(Malformed("a message without its introduction"))?), frames))
    }
}

/// Parameters of fixed size, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed<'a>(pub(super) &'a [u8]);

impl Fixed<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed("a parameter that is missing"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Malformed> {
        self.byte().map(|byte| byte != 0)
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_le_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.take().map(i64::from_le_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<Option<Uuid>, Malformed> {
        let null = self.boolean()?;
        let (high, low) = (self.long()?.cast_unsigned(), self.long()?.cast_unsigned());
        Ok((!null).then(|| Uuid::from_u64_pair(high, low)))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The frames of a message that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frames<'a>(&'a [u8]);

/// A frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    flags: u16,
    pub(super) content: &'a [u8],
}

impl Frame<'_> {
    pub(super) const fn is_null(&self) -> bool {
        self.flags & NULL != 0
    }

    pub(super) const fn is_begin(&self) -> bool {
        self.flags & BEGIN != 0
    }

    pub(super) const fn is_end(&self) -> bool {
        self.flags & END != 0
    }
}

impl<'a> Frames<'a> {
    pub(super) fn next(&mut self) -> Result<Frame<'a>, Malformed> {
        let (length, flags) = head(self.0).ok_or(Malformed("a frame that is missing"))?;
        let (frame, rest) = self.0.split_at_checked(length).ok_or(Malformed("a frame that is cut"))?;
        self.0 = rest;
        Ok(Frame { flags, content: frame.get(HEAD..).unwrap_or_default() })
    }

    /// A blob or nothing.
    pub(super) fn nullable(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let frame = self.next()?;
        if frame.is_begin() || frame.is_end() {
            return Err(Malformed("a structure instead of a value"));
        }
        Ok((!frame.is_null()).then_some(frame.content))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.nullable()?.ok_or(Malformed("nothing instead of a text"))?;
        std::str::from_utf8(bytes).map_err(|_utf8| Malformed("a text that is not UTF-8"))
    }

    /// Whether a structure begins, instead of nothing.
    pub(super) fn nullable_begin(&mut self) -> Result<bool, Malformed> {
        let frame = self.next()?;
        if frame.is_begin() || frame.is_null() {
            Ok(frame.is_begin())
        } else {
            Err(Malformed("a value instead of a structure"))
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), Malformed> {
        if self.nullable_begin()? { Ok(()) } else { Err(Malformed("nothing instead of a structure")) }
    }

    /// Whether the structure at hand ends here; if so, its end is taken.
    pub(super) fn ends(&mut self) -> Result<bool, Malformed> {
        let mut ahead = *self;
        let ends = ahead.next()?.is_end();
        if ends {
            *self = ahead;
        }
        Ok(ends)
    }

    /// Goes past the end of the structure at hand, whatever is left of it.
    pub(super) fn leave(&mut self) -> Result<(), Malformed> {
        let mut depth = 1_usize;
        while depth > 0 {
            let frame = self.next()?;
            depth = if frame.is_begin() { depth + 1 } else { depth - usize::from(frame.is_end()) };
        }
        Ok(())
    }

    /// Goes past a value or a structure.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        if self.next()?.is_begin() { self.leave() } else { Ok(()) }
    }

    #[cfg(test)]
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A request under construction; the connection sets its correlation id.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    /// Where the last frame begins.
    last: usize,
}

impl Request {
    /// `partition` is -1 for none.
    pub(super) fn new(kind: u32, partition: i32) -> Self {
        let mut request = Self { bytes: Vec::with_capacity(256), last: 0 };
        request.open(WHOLE);
        request.fixed(&kind.to_le_bytes()).fixed(&[0; 8]).fixed(&partition.to_le_bytes())
    }

    /// Acknowledged by the partition's owner alone.
    pub(super) fn without_backups(mut self) -> Self {
        if let Some([.., flags]) = self.bytes.first_chunk_mut::<HEAD>() {
            *flags |= BACKUP_AWARE.to_be_bytes()[0];
        }
        self
    }

    fn open(&mut self, flags: u16) {
        self.close();
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&flags.to_le_bytes());
    }

    fn close(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.last).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(self.last..).and_then(<[u8]>::first_chunk_mut) {
            *place = length.to_le_bytes();
        }
    }

    /// A parameter of fixed size, of the frame at hand.
    fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(super) fn byte(self, byte: u8) -> Self {
        self.fixed(&[byte])
    }

    pub(super) fn boolean(self, boolean: bool) -> Self {
        self.byte(u8::from(boolean))
    }

    pub(super) fn int(self, int: i32) -> Self {
        self.fixed(&int.to_le_bytes())
    }

    pub(super) fn long(self, long: i64) -> Self {
        self.fixed(&long.to_le_bytes())
    }

    pub(super) fn uuid(self, uuid: Uuid) -> Self {
        let (high, low) = uuid.as_u64_pair();
        self.boolean(false).long(high.cast_signed()).long(low.cast_signed())
    }

    /// A separate frame.
    pub(super) fn blob(mut self, bytes: &[u8]) -> Self {
        self.open(0);
        self.fixed(bytes)
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.blob(text.as_bytes())
    }

    pub(super) fn nullable(mut self, text: Option<&str>) -> Self {
        let Some(text) = text else {
            self.open(NULL);
            return self;
        };
        self.text(text)
    }

    pub(super) fn begin(mut self) -> Self {
        self.open(BEGIN);
        self
    }

    pub(super) fn end(mut self) -> Self {
        self.open(END);
        self
    }

    /// Its bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.close();
        if let Some([_, _, _, _, _, flags]) = self.bytes.get_mut(self.last..).and_then(<[u8]>::first_chunk_mut) {
            *flags |= FINAL.to_be_bytes()[0];
        }
        self.bytes
    }
}

/// Sets the correlation id of a finished request.
pub(super) fn number(request: &mut [u8], correlation: i64) {
    if let Some(place) = request.get_mut(CORRELATION..).and_then(<[u8]>::first_chunk_mut) {
        *place = correlation.to_le_bytes();
    }
}

#[cfg(test)]
mod tests;
