//! Writes a snapshot, block by block.

use std::io::{self, Write};

use crc32fast::Hasher;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::Known;

use super::{BLOCK, BLOCK_HEADING, CHECKSUM, END, MAGIC, PLACES, SESSION, SESSIONS, VERSION};

/// A snapshot that is being written. Without its end it is none.
pub(super) struct Writer<W> {
    out: W,
    /// Of all that was written but the checksums.
    crc: Hasher,
    /// The sessions of the next block, behind room for its heading.
    block: Vec<u8>,
    places: u32,
    sessions: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let block = Vec::with_capacity(BLOCK_HEADING + BLOCK + SESSION + CHECKSUM);
        let mut writer = Self { out, crc: Hasher::new(), block, places: 0, sessions: 0 };
        let mut heading = MAGIC.to_vec();
        heading.extend_from_slice(&VERSION.to_le_bytes());
        writer.put(&mut heading)?;
        writer.block.resize(BLOCK_HEADING, 0);
        Ok(writer)
    }

    /// Names a place; returns its number.
    pub(super) fn place(&mut self, pool: &str, server: &str) -> io::Result<u32> {
        let mut block = vec![0; BLOCK_HEADING];
        for name in [pool, server] {
            let length = u16::try_from(name.len()).map_err(|long| io::Error::new(io::ErrorKind::InvalidInput, long))?;
            block.extend_from_slice(&length.to_le_bytes());
            block.extend_from_slice(name.as_bytes());
        }
        self.put_block(PLACES, &mut block)?;
        let number = self.places;
        self.places = number.checked_add(1).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(number)
    }

    /// Adds a session of a place with that number.
    pub(super) fn session(&mut self, key: SessionKey, place: u32, known: &Known) -> io::Result<()> {
        self.block.extend_from_slice(&key.0.to_le_bytes());
        self.block.extend_from_slice(&place.to_le_bytes());
        self.block.extend_from_slice(&known.epoch.to_le_bytes());
        self.block.extend_from_slice(&known.created.0.to_le_bytes());
        self.block.extend_from_slice(&known.last_seen.0.to_le_bytes());
        self.sessions += 1;
        if self.block.len() < BLOCK_HEADING + BLOCK { Ok(()) } else { self.flush() }
    }

    /// Writes the end. Returns how many sessions there are.
    pub(super) fn end(mut self, taken: UnixMillis) -> io::Result<u64> {
        self.flush()?;
        let mut block = vec![0; BLOCK_HEADING];
        block.extend_from_slice(&self.sessions.to_le_bytes());
        block.extend_from_slice(&taken.0.to_le_bytes());
        self.put_block(END, &mut block)?;
        self.out.flush()?;
        Ok(self.sessions)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.block);
        if block.len() > BLOCK_HEADING {
            self.put_block(SESSIONS, &mut block)?;
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
