//! What stands in the blocks of a snapshot, field by field. Nothing is believed here: what makes no sense is `None`.

use http::HeaderValue;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::local::data::{DataRecord, HandoffPayload, Owner};
use crate::store::targets::TargetIndex;

use super::{FIRST_VERSION, SESSION};

/// A session as it is written.
pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) target: u32,
    epoch: u32,
    created: UnixMillis,
    last_seen: UnixMillis,
}

impl Session {
    pub(super) fn known(&self, target: TargetIndex) -> TableEntry {
        TableEntry { target, epoch: self.epoch, created: self.created, last_seen: self.last_seen }
    }
}

/// The sessions of a block.
pub(super) struct Sessions<'b>(pub(super) std::slice::Iter<'b, [u8; SESSION]>);

impl Iterator for Sessions<'_> {
    type Item = Session;

    fn next(&mut self) -> Option<Session> {
        Fields(self.0.next()?).session()
    }
}

/// What is kept of a session beside the table, as it is written.
pub(super) struct Datum {
    pub(super) session: Session,
    payload: HandoffPayload,
}

impl Datum {
    pub(super) fn kept(self, pool: TargetIndex) -> DataRecord {
        let Session { key, epoch, created, last_seen: seen, .. } = self.session;
        DataRecord { owner: Owner { key, epoch, created, pool }, seen, payload: self.payload }
    }
}

/// What the end says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) sessions: u64,
    pub(super) data: u64,
    pub(super) taken: UnixMillis,
}

/// What is left of some bytes.
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl<'b> Fields<'b> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn piece(&mut self, length: usize) -> Option<&'b [u8]> {
        let (piece, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(piece)
    }

    fn session(&mut self) -> Option<Session> {
        Some(Session {
            key: SessionKey(self.bytes().map(u128::from_le_bytes)?),
            target: self.u32()?,
            epoch: self.u32()?,
            created: UnixMillis(self.u64()?),
            last_seen: UnixMillis(self.u64()?),
        })
    }

    fn name(&mut self) -> Option<&'b str> {
        let length = self.bytes().map(u16::from_le_bytes)?;
        std::str::from_utf8(self.piece(usize::from(length))?).ok()
    }

    pub(super) fn targets(mut self) -> Option<Vec<(&'b str, &'b str)>> {
        let mut named = Vec::new();
        while !self.0.is_empty() {
            named.push((self.name()?, self.name()?));
        }
        Some(named)
    }

    /// At most a block's: so many values at a time are in memory twice, and no more.
    pub(super) fn data(mut self) -> Option<Vec<Datum>> {
        let mut data = Vec::new();
        while !self.0.is_empty() {
            let session = self.session()?;
            let (data_length, told_length) = (self.u32()?, self.u32()?);
            let (data_text, told_text) = (self.text(data_length)?, self.text(told_length)?);
            let payload = HandoffPayload { data: value(data_text)?, moved_header: value(told_text)? };
            data.push(Datum { session, payload });
        }
        Some(data)
    }

    fn text(&mut self, length: u32) -> Option<&'b [u8]> {
        self.piece(usize::try_from(length).ok()?)
    }

    pub(super) fn end(mut self, version: u32) -> Option<End> {
        let (sessions, taken) = (self.u64()?, UnixMillis(self.u64()?));
        let data = if version > FIRST_VERSION { self.u64()? } else { 0 };
        self.0.is_empty().then_some(End { sessions, data, taken })
    }
}

/// The value of a header; no text is no value. `None` = no header may have it.
#[expect(clippy::option_option, reason = "there may be none, and there may be something wrong")]
fn value(text: &[u8]) -> Option<Option<HeaderValue>> {
    if text.is_empty() { Some(None) } else { HeaderValue::from_bytes(text).ok().map(Some) }
}
