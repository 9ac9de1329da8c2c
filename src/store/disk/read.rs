//! Reads a snapshot, block by block. Whatever the bytes are, they are either what was written or an error.
//!
//! [`Blocks`] brings them, whole and checked, and [`Meaning`] says what is in them: two steps, so that one can be ahead of
//! the other ([`ahead`](super::ahead)).

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use crc32fast::Hasher;

use super::fields::{Datum, End, Fields, Sessions};
use super::{
    BLOCK_HEADING, CHECKSUM, DATA, END, FIRST_VERSION, HEADING, LARGEST_BLOCK, MAGIC, ReadError, SESSION, SESSIONS,
    TARGETS, VERSION,
};

/// The blocks of a snapshot that is being read.
pub(super) struct Blocks<R> {
    input: R,
    /// Of all that was read but the checksums.
    crc: Hasher,
    /// Where the next one begins.
    next: u64,
    version: u32,
    ended: bool,
}

/// A block as it was written, whatever that means.
pub(super) struct Block {
    kind: u32,
    /// Where it begins.
    at: u64,
    pub(super) payload: Vec<u8>,
}

impl<R: Read> Blocks<R> {
    /// Reads the heading.
    pub(super) fn open(mut input: R) -> Result<Self, ReadError> {
        let mut heading = Vec::with_capacity(HEADING);
        input.by_ref().take(HEADING as u64).read_to_end(&mut heading)?;
        let begins_right = heading.iter().zip(MAGIC).all(|(is, right)| is == right);
        if !begins_right {
            return Err(ReadError::NotASnapshot);
        }
        let damaged = |what| ReadError::Corrupt { what, at: 0 };
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
            later => return Err(ReadError::UnsupportedVersion(later)),
        }
        Ok(Self { input, crc: hasher, next: HEADING as u64, version, ended: false })
    }

    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// The next block, into the memory of one that is no longer needed. `None` = there was an end, and nothing follows it.
    pub(super) fn next(&mut self, mut payload: Vec<u8>) -> Result<Option<Block>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.next;
        let damaged = |what| ReadError::Corrupt { what, at };
        let ends = |error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => damaged(ENDS_EARLY),
            _ => ReadError::Io(error),
        };
        let mut heading = [0; BLOCK_HEADING];
        self.input.read_exact(&mut heading).map_err(ends)?;
        let mut fields = Fields(&heading);
        let (kind, length) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
        let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST_BLOCK);
        let length = length.ok_or(damaged("its length makes no sense"))?;
        payload.resize(length, 0);
        self.input.read_exact(&mut payload).map_err(ends)?;
        let mut crc = [0; CHECKSUM];
        self.input.read_exact(&mut crc).map_err(ends)?;
        self.crc.update(&heading);
        self.crc.update(&payload);
        if self.crc.clone().finalize().to_le_bytes() != crc {
            return Err(damaged(NOT_ITS_SUM));
        }
        self.next += (BLOCK_HEADING + length + CHECKSUM) as u64;
        self.ended = kind == END;
        if self.ended && self.input.read(&mut [0])? > 0 {
            return Err(damaged("it goes on behind its end"));
        }
        Ok(Some(Block { kind, at, payload }))
    }
}

/// What a block says.
pub(super) enum Said<'b> {
    /// Names of pools and servers; their numbers go on from those before.
    Targets(Vec<(&'b str, &'b str)>),
    /// Sessions of targets that were named before.
    Sessions(Sessions<'b>),
    /// Data of sessions of targets that were named before.
    Data(Vec<Datum>),
    /// All is read, and it is as it was written.
    End(End),
}

/// What the blocks of a snapshot say, one after the other.
pub(super) struct Meaning {
    version: u32,
    targets: u32,
    sessions: u64,
    data: u64,
}

impl Meaning {
    pub(super) const fn in_version(version: u32) -> Self {
        Self { version, targets: 0, sessions: 0, data: 0 }
    }

    /// What the next block says.
    pub(super) fn of<'b>(&mut self, block: &'b Block) -> Result<Said<'b>, ReadError> {
        let damaged = |what| ReadError::Corrupt { what, at: block.at };
        let payload = Fields(block.payload.as_slice());
        match block.kind {
            TARGETS => {
                let named = payload.targets().ok_or(damaged(NO_SENSE))?;
                let count = u32::try_from(named.len()).ok().and_then(|count| self.targets.checked_add(count));
                self.targets = count.ok_or(damaged(NO_SENSE))?;
                Ok(Said::Targets(named))
            }
            SESSIONS => {
                let (sessions, rest) = block.payload.as_chunks::<SESSION>();
                let placed = Sessions(sessions.iter()).all(|session| session.target < self.targets);
                if !placed || !rest.is_empty() || self.data > 0 {
                    return Err(damaged(NO_SENSE));
                }
                self.sessions += sessions.len() as u64;
                Ok(Said::Sessions(Sessions(sessions.iter())))
            }
            DATA if self.version > FIRST_VERSION => {
                let data = payload.data().ok_or(damaged(NO_SENSE))?;
                if data.iter().any(|datum| datum.session.target >= self.targets) {
                    return Err(damaged(NO_SENSE));
                }
                self.data += data.len() as u64;
                Ok(Said::Data(data))
            }
            END => {
                let end = payload.end(self.version).ok_or(damaged(NO_SENSE))?;
                if (end.sessions, end.data) != (self.sessions, self.data) {
                    return Err(damaged("it has not as many sessions as it says"));
                }
                Ok(Said::End(end))
            }
            _ => Err(damaged(NO_SENSE)),
        }
    }
}

/// What a snapshot says at its end, before anything of it is checked; `None` when no end is there, or when it says what
/// cannot be. What it says is right if what is read from the start to the end is, see [`Blocks`].
pub(super) fn read_end(input: &mut (impl Read + Seek)) -> io::Result<Option<End>> {
    let length = input.seek(SeekFrom::End(0))?;
    for (version, payload) in [(VERSION, 24), (FIRST_VERSION, 16)] {
        let size = BLOCK_HEADING + payload + CHECKSUM;
        let Some(at) = length.checked_sub(size as u64) else { continue };
        input.seek(SeekFrom::Start(at))?;
        let mut block = Vec::with_capacity(size);
        input.by_ref().take(size as u64).read_to_end(&mut block)?;
        let mut fields = Fields(block.get(..BLOCK_HEADING + payload).unwrap_or_default());
        let is_end = fields.u32() == Some(END) && fields.u32().is_some_and(|told| told as usize == payload);
        if let Some(end) = fields.end(version).filter(|end| is_end && end.sessions <= length / SESSION as u64) {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

const ENDS_EARLY: &str = "the file ends in it";
const NOT_ITS_SUM: &str = "its checksum is wrong";
const NO_SENSE: &str = "its contents make no sense";
