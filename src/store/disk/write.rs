//! Writing a snapshot, block by block.

use std::io::{self, Write};

use crc32fast::Hasher;
use http::HeaderValue;

use crate::session::key::{ServerId, SessionKey};
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::local::data::DataRecord;
use crate::store::local::table::Table;
use crate::store::targets::TargetIndex;

use super::format::{
    BLOCK, BLOCK_HEADING, CHECKSUM, DATA, DATUM, END, LocalStore, MAGIC, SESSION, SESSIONS, SessionCounts, TARGETS,
    VERSION,
};

/// Writes all sessions and their data, shard by shard, while requests go on. `taken` is now.
///
/// # Errors
/// Those of `out`.
pub fn write(store: LocalStore<'_>, taken: UnixMillis, out: impl Write) -> io::Result<SessionCounts> {
    let LocalStore { table, data } = store;
    let mut writer = Writer::begin(out)?;
    // By index in the table, the number in the file, and the id of the server that had the index then.
    let mut numbers: Vec<Option<(u32, ServerId)>> = Vec::new();
    let mut sessions = Vec::new();
    for shard in 0..table.shards() {
        sessions.clear();
        table.copy_shard(shard, &mut sessions);
        for (key, entry) in &sessions {
            if let Some(target) = number(entry.target, &mut numbers, table, &mut writer)? {
                writer.session(*key, target, entry)?;
            }
        }
    }
    let mut shard_of_data = Vec::new();
    for shard in 0..data.shards() {
        data.copy_shard(shard, &mut shard_of_data);
        for record in shard_of_data.drain(..) {
            if let Some(target) = number(record.owner.pool, &mut numbers, table, &mut writer)? {
                writer.datum(&record, target)?;
            }
        }
    }
    writer.end(taken)
}

/// The number of a target in the file, whose name is written at its first use. `None` for a foreign index.
fn number(
    target: TargetIndex,
    numbers: &mut Vec<Option<(u32, ServerId)>>,
    table: &Table,
    writer: &mut Writer<impl Write>,
) -> io::Result<Option<u32>> {
    let index = target.0 as usize;
    let Some(target) = table.target_at(target) else { return Ok(None) };
    // Another server may have got the number since its name was written.
    if let Some(Some((number, id))) = numbers.get(index)
        && *id == target.id()
    {
        return Ok(Some(*number));
    }
    let id = target.id();
    let number = writer.target(target.pool(), &target.server())?;
    if numbers.len() <= index {
        numbers.resize(index + 1, None);
    }
    if let Some(slot) = numbers.get_mut(index) {
        *slot = Some((number, id));
    }
    Ok(Some(number))
}

/// A snapshot in progress: invalid without its end.
pub(super) struct Writer<W> {
    out: W,
    /// Of everything written but the checksums.
    crc: Hasher,
    /// The next block of sessions or data, after space for its heading.
    block: Vec<u8>,
    /// Sessions or data.
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

    /// Writes the name of a target. Returns its number.
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

    /// Adds a session.
    pub(super) fn session(&mut self, key: SessionKey, target: u32, entry: &TableEntry) -> io::Result<()> {
        self.add_session(key, target, (entry.epoch, entry.created, entry.last_seen));
        self.written.sessions += 1;
        self.flush_if_full()
    }

    /// Adds session data. After all sessions.
    pub(super) fn datum(&mut self, record: &DataRecord, target: u32) -> io::Result<()> {
        let DataRecord { owner, seen, payload } = record;
        let texts =
            [&payload.data, &payload.moved_header].map(|text| text.as_ref().map_or(&[][..], HeaderValue::as_bytes));
        let size = DATUM + texts.iter().map(|text| text.len()).sum::<usize>();
        // More than a server may hand over, and the block would not be read.
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

    /// Writes the end. Returns what was written before.
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

    /// Writes a block that begins with space for its heading.
    fn put_block(&mut self, kind: u32, block: &mut Vec<u8>) -> io::Result<()> {
        let length = block.len().saturating_sub(BLOCK_HEADING);
        let length = u32::try_from(length).map_err(|long| io::Error::new(io::ErrorKind::InvalidInput, long))?;
        let heading = kind.to_le_bytes().into_iter().chain(length.to_le_bytes());
        for (to, from) in block.iter_mut().zip(heading) {
            *to = from;
        }
        self.put(block)
    }

    /// Writes the bytes and the checksum so far, in one call.
    fn put(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.crc.update(bytes);
        // The checksum itself is left out: a CRC over its own value is constant and would lose everything before.
        bytes.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        self.out.write_all(bytes)
    }
}
