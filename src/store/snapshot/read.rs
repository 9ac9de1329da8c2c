//! Reads a snapshot, block by block. Whatever the bytes are, they are either what was written or an error.

use std::io::{ErrorKind, Read};

use crc32fast::Hasher;

use super::fields::{Datum, End, Fields, Sessions};
use super::{
    BLOCK_HEADING, CHECKSUM, DATA, END, FIRST_VERSION, HEADING, LARGEST_BLOCK, MAGIC, PLACES, SESSION, SESSIONS,
    Unread, VERSION,
};

/// A snapshot that is being read.
pub(super) struct Reader<R> {
    input: R,
    /// Of all that was read but the checksums.
    crc: Hasher,
    /// The block that was read last.
    block: Vec<u8>,
    /// Where it begins.
    at: u64,
    /// Where the next one begins.
    next: u64,
    version: u32,
    places: u32,
    sessions: u64,
    data: u64,
}

/// What a block says.
pub(super) enum Block<'b> {
    /// Names of pools and servers; their numbers go on from those before.
    Places(Vec<(&'b str, &'b str)>),
    /// Sessions of places that were named before.
    Sessions(Sessions<'b>),
    /// Data of sessions of places that were named before.
    Data(Vec<Datum>),
    /// All is read, and it is as it was written.
    End(End),
}

impl<R: Read> Reader<R> {
    /// Reads the heading.
    pub(super) fn open(mut input: R) -> Result<Self, Unread> {
        let mut heading = Vec::with_capacity(HEADING);
        input.by_ref().take(HEADING as u64).read_to_end(&mut heading)?;
        let begins_right = heading.iter().zip(MAGIC).all(|(is, right)| is == right);
        if !begins_right {
            return Err(Unread::Foreign);
        }
        let damaged = |what| Unread::Damaged { what, at: 0 };
        let mut fields = Fields(&heading);
        let (Some(_), Some(version), Some(crc)) = (fields.bytes::<8>(), fields.u32(), fields.u32()) else {
            return Err(damaged(ENDS_EARLY));
        };
        let mut hasher = Hasher::new();
        hasher.update(heading.get(..HEADING - CHECKSUM).unwrap_or_default());
        if hasher.clone().finalize() != crc {
            return Err(damaged(NOT_ITS_SUM));
        }
        match version {
            FIRST_VERSION..=VERSION => {}
            0 => return Err(damaged("there is no version 0")),
            later => return Err(Unread::Newer(later)),
        }
        let (block, next) = (Vec::new(), HEADING as u64);
        Ok(Self { input, crc: hasher, block, at: 0, next, version, places: 0, sessions: 0, data: 0 })
    }

    /// The next block, whole and checked. Not to be called after the end.
    pub(super) fn next(&mut self) -> Result<Block<'_>, Unread> {
        let kind = self.read_block()?;
        let at = self.at;
        let damaged = |what| Unread::Damaged { what, at };
        let payload = Fields(self.block.as_slice());
        match kind {
            PLACES => {
                let named = payload.places().ok_or(damaged(NO_SENSE))?;
                let count = u32::try_from(named.len()).ok().and_then(|count| self.places.checked_add(count));
                self.places = count.ok_or(damaged(NO_SENSE))?;
                Ok(Block::Places(named))
            }
            SESSIONS => {
                let (sessions, rest) = self.block.as_chunks::<SESSION>();
                let placed = Sessions(sessions.iter()).all(|session| session.place < self.places);
                if !placed || !rest.is_empty() || self.data > 0 {
                    return Err(damaged(NO_SENSE));
                }
                self.sessions += sessions.len() as u64;
                Ok(Block::Sessions(Sessions(sessions.iter())))
            }
            DATA if self.version > FIRST_VERSION => {
                let data = payload.data().ok_or(damaged(NO_SENSE))?;
                if data.iter().any(|datum| datum.session.place >= self.places) {
                    return Err(damaged(NO_SENSE));
                }
                self.data += data.len() as u64;
                Ok(Block::Data(data))
            }
            END => {
                let end = payload.end(self.version).ok_or(damaged(NO_SENSE))?;
                if (end.sessions, end.data) != (self.sessions, self.data) {
                    return Err(damaged("it has not as many sessions as it says"));
                }
                match self.input.read(&mut [0]) {
                    Ok(0) => Ok(Block::End(end)),
                    Ok(_) => Err(damaged("it goes on behind its end")),
                    Err(error) => Err(error.into()),
                }
            }
            _ => Err(damaged(NO_SENSE)),
        }
    }

    /// Reads a block's payload and returns its kind.
    fn read_block(&mut self) -> Result<u32, Unread> {
        self.at = self.next;
        let at = self.at;
        let damaged = |what| Unread::Damaged { what, at };
        let ends = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => damaged(ENDS_EARLY),
            _ => Unread::Io(error),
        };
        let mut heading = [0; BLOCK_HEADING];
        self.input.read_exact(&mut heading).map_err(ends)?;
        let mut fields = Fields(&heading);
        let (kind, length) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
        let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST_BLOCK);
        let length = length.ok_or(damaged("its length makes no sense"))?;
        self.block.resize(length, 0);
        self.input.read_exact(&mut self.block).map_err(ends)?;
        let mut crc = [0; CHECKSUM];
        self.input.read_exact(&mut crc).map_err(ends)?;
        self.crc.update(&heading);
        self.crc.update(&self.block);
        if self.crc.clone().finalize().to_le_bytes() != crc {
            return Err(damaged(NOT_ITS_SUM));
        }
        self.next += (BLOCK_HEADING + length + CHECKSUM) as u64;
        Ok(kind)
    }
}

const ENDS_EARLY: &str = "the file ends in it";
const NOT_ITS_SUM: &str = "its checksum is wrong";
const NO_SENSE: &str = "its contents make no sense";
