//! Writes a snapshot, block by block.

use std::io::{self, Write};

use crc32fast::Hasher;
use http::HeaderValue;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::local::data::DataRecord;

use super::{
    BLOCK, BLOCK_HEADING, CHECKSUM, DATA, DATUM, END, MAGIC, SESSION, SESSIONS, SessionCounts, TARGETS, VERSION,
};

/// A snapshot that is being written. Without its end it is none.
pub(super) struct Writer<W> {
    out: W,
    /// Of all that was written but the checksums.
    crc: Hasher,
    /// The sessions or the data of the next block, behind room for its heading.
    block: Vec<u8>,
    /// Which of both.
    kind: u32,
    targets: u32,
    written: SessionCounts,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let block = Vec::with_capacity(BLOCK_HEADING + BLOCK + SESSION + CHECKSUM);
        let written = SessionCounts::default();
        let mut writer = Self { out, crc: Hasher::new(), block, kind: SESSIONS, targets: 0, written };
        let mut heading = MAGIC.to_vec();
        heading.extend_from_slice(&VERSION.to_le_bytes());
        writer.put(&mut heading)?;
        writer.block.resize(BLOCK_HEADING, 0);
        Ok(writer)
    }

    /// Names a target; returns its number.
    pub(super) fn target(&mut self, pool: &str, server: &str) -> io::Result<u32> {
        let mut block = vec![0; BLOCK_HEADING];
        for name in [pool, server] {
            let length = u16::try_from(name.len()).map_err(|long| io::Error::new(io::ErrorKind::InvalidInput, long))?;
            block.extend_from_slice(&length.to_le_bytes());
            block.extend_from_slice(name.as_bytes());
        }
        self.put_block(TARGETS, &mut block)?;
        let number = self.targets;
        self.targets = number.checked_add(1).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(number)
    }

    /// Adds a session of a target with that number.
    pub(super) fn session(&mut self, key: SessionKey, target: u32, known: &TableEntry) -> io::Result<()> {
        self.add_session(key, target, (known.epoch, known.created, known.last_seen));
        self.written.sessions += 1;
        self.flush_if_full()
    }

    /// Adds what is kept of a session beside the table; the place with that number is its pool's. After all sessions.
    pub(super) fn datum(&mut self, kept: &DataRecord, target: u32) -> io::Result<()> {
        let DataRecord { owner, seen, payload } = kept;
        let texts =
            [&payload.data, &payload.moved_header].map(|text| text.as_ref().map_or(&[][..], HeaderValue::as_bytes));
        let size = DATUM + texts.iter().map(|text| text.len()).sum::<usize>();
        // No server may hand over so much, and a block with it would not be read.
        if size == DATUM || size > BLOCK {
            return Ok(());
        }
        if self.kind != DATA {
            self.flush()?;
            self.kind = DATA;
        }
        self.add_session(owner.key, target, (owner.epoch, owner.created, *seen));
        for text in texts {
            let length = u32::try_from(text.len()).map_err(|long| io::Error::new(io::ErrorKind::InvalidInput, long))?;
            self.block.extend_from_slice(&length.to_le_bytes());
        }
        for text in texts {
            self.block.extend_from_slice(text);
        }
        self.written.data += 1;
        self.flush_if_full()
    }

    fn add_session(&mut self, key: SessionKey, target: u32, (epoch, created, seen): (u32, UnixMillis, UnixMillis)) {
        self.block.extend_from_slice(&key.0.to_le_bytes());
        self.block.extend_from_slice(&target.to_le_bytes());
        self.block.extend_from_slice(&epoch.to_le_bytes());
        self.block.extend_from_slice(&created.0.to_le_bytes());
        self.block.extend_from_slice(&seen.0.to_le_bytes());
    }

    /// Writes the end. Returns what there is before it.
    pub(super) fn end(mut self, taken: UnixMillis) -> io::Result<SessionCounts> {
        self.flush()?;
        let mut block = vec![0; BLOCK_HEADING];
        for number in [self.written.sessions, taken.0, self.written.data] {
            block.extend_from_slice(&number.to_le_bytes());
        }
        self.put_block(END, &mut block)?;
        self.out.flush()?;
        Ok(self.written)
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.block.len() < BLOCK_HEADING + BLOCK { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.block);
        if block.len() > BLOCK_HEADING {
            self.put_block(self.kind, &mut block)?;
            block.truncate(BLOCK_HEADING);
        }
        self.block = block;
        Ok(())
    }

    /// Writes a block that begins with room for its heading.
    fn put_block(&mut self, kind: u32, block: &mut Vec<u8>) -> io::Result<()> {
        let length = block.len().saturating_sub(BLOCK_HEADING);
        let length = u32::try_from(length).map_err(|long| io::Error::new(io::ErrorKind::InvalidInput, long))?;
        let heading = kind.to_le_bytes().into_iter().chain(length.to_le_bytes());
        for (to, from) in block.iter_mut().zip(heading) {
            *to = from;
        }
        self.put(block)
    }

    /// Writes this and the checksum of all so far, in one piece.
    fn put(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.crc.update(bytes);
        // Not of the checksum itself: a CRC that goes on over its own value starts anew, and would forget what came before.
        bytes.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        self.out.write_all(bytes)
    }
}
