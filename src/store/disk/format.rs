//! The layout of blocks: sizes, kinds, and fields. Nothing is trusted: invalid contents are `None`.

use std::io;

use http::HeaderValue;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::local::data::{DataRecord, HandoffPayload, Owner, SessionData};
use crate::store::local::table::Table;
use crate::store::targets::TargetIndex;

pub(super) const MAGIC: &[u8; 8] = b"homingss";
/// The version that is written. Later ones are not read.
pub const VERSION: u32 = 2;
/// Without session data.
pub(super) const FIRST_VERSION: u32 = 1;
/// Magic, version, checksum.
pub(super) const HEADING: usize = 16;
/// Kind and length.
pub(super) const BLOCK_HEADING: usize = 8;
pub(super) const CHECKSUM: usize = 4;
/// Key, target, epoch, created, last seen.
pub(super) const SESSION: usize = 40;
/// The same and two lengths. The texts follow.
pub(super) const DATUM: usize = SESSION + 8;
/// The size above which a block is written. Blocks of up to twice that are read, because the last datum of a block may be
/// as large as a block.
pub(super) const BLOCK: usize = 256 * 1024;
pub(super) const LARGEST_BLOCK: usize = 2 * BLOCK;

pub(super) const TARGETS: u32 = 1;
pub(super) const SESSIONS: u32 = 2;
pub(super) const END: u32 = 3;
pub(super) const DATA: u32 = 4;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It does not begin like one.
    #[error("it is not a snapshot of homing")]
    NotASnapshot,
    /// A later version wrote it.
    #[error("a later homing wrote it: its format is {0}, and this one reads up to {VERSION}")]
    UnsupportedVersion(u32),
    /// A checksum or the contents are wrong.
    #[error("it is damaged: {what}, in the block at byte {at}")]
    Corrupt {
        /// The problem.
        what: &'static str,
        /// Where the block begins.
        at: u64,
    },
    /// An error of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a snapshot is taken of and loaded into.
#[derive(Clone, Copy, Debug)]
pub struct LocalStore<'m> {
    /// The bindings.
    pub table: &'m Table,
    /// The data that servers handed over.
    pub data: &'m SessionData,
}

/// How many sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// In the table.
    pub sessions: u64,
    /// With data, or with a moved header.
    pub data: u64,
}

/// A session in a block.
pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) target: u32,
    epoch: u32,
    created: UnixMillis,
    last_seen: UnixMillis,
}

impl Session {
    pub(super) fn entry(&self, target: TargetIndex) -> TableEntry {
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

/// Session data in a block.
pub(super) struct Datum {
    pub(super) session: Session,
    payload: HandoffPayload,
}

impl Datum {
    pub(super) fn record(self, pool: TargetIndex) -> DataRecord {
        let Session { key, epoch, created, last_seen: seen, .. } = self.session;
        DataRecord { owner: Owner { key, epoch, created, pool }, seen, payload: self.payload }
    }
}

/// The contents of the end block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct EndBlock {
    pub(super) sessions: u64,
    pub(super) data: u64,
    pub(super) taken: UnixMillis,
}

/// Reads fields from the front of some bytes.
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

    /// At most one block, so few values are in memory twice.
    pub(super) fn data(mut self) -> Option<Vec<Datum>> {
        let mut data = Vec::new();
        while !self.0.is_empty() {
            let session = self.session()?;
            let (data_length, header_length) = (self.u32()?, self.u32()?);
            let (data_text, header_text) = (self.text(data_length)?, self.text(header_length)?);
            let payload = HandoffPayload { data: value(data_text)?, moved_header: value(header_text)? };
            data.push(Datum { session, payload });
        }
        Some(data)
    }

    fn text(&mut self, length: u32) -> Option<&'b [u8]> {
        self.piece(usize::try_from(length).ok()?)
    }

    pub(super) fn end(mut self, version: u32) -> Option<EndBlock> {
        let (sessions, taken) = (self.u64()?, UnixMillis(self.u64()?));
        let data = if version > FIRST_VERSION { self.u64()? } else { 0 };
        self.0.is_empty().then_some(EndBlock { sessions, data, taken })
    }
}

/// A header value; an empty text is none. The outer `None` = an invalid one.
#[expect(clippy::option_option, reason = "absent and invalid are different")]
fn value(text: &[u8]) -> Option<Option<HeaderValue>> {
    if text.is_empty() { Some(None) } else { HeaderValue::from_bytes(text).ok().map(Some) }
}
