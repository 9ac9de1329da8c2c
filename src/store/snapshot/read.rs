//! Reads a snapshot, block by block. Whatever the bytes are, they are either what was written or an error.

use std::io::{ErrorKind, Read};

use crc32fast::Hasher;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::Known;
use crate::store::places::PlaceIndex;

use super::{BLOCK_HEADING, CHECKSUM, END, HEADING, LARGEST_BLOCK, MAGIC, PLACES, SESSION, SESSIONS, Unread, VERSION};

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
    places: u32,
    sessions: u64,
}

/// What a block says.
pub(super) enum Block<'b> {
    /// Names of pools and servers; their numbers go on from those before.
    Places(Vec<(&'b str, &'b str)>),
    /// Sessions of places that were named before.
    Sessions(Sessions<'b>),
    /// All is read, and it is as it was written.
    End { sessions: u64, taken: UnixMillis },
}

/// A session as it is written.
pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) place: u32,
    epoch: u32,
    created: UnixMillis,
    last_seen: UnixMillis,
}

impl Session {
    pub(super) fn known(&self, place: PlaceIndex) -> Known {
        Known { place, epoch: self.epoch, created: self.created, last_seen: self.last_seen }
    }
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
            VERSION => {}
            0 => return Err(damaged("there is no version 0")),
            later => return Err(Unread::Newer(later)),
        }
        Ok(Self { input, crc: hasher, block: Vec::new(), at: 0, next: HEADING as u64, places: 0, sessions: 0 })
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
                if !placed || !rest.is_empty() {
                    return Err(damaged(NO_SENSE));
                }
                self.sessions += sessions.len() as u64;
                Ok(Block::Sessions(Sessions(sessions.iter())))
            }
            END => {
                let (sessions, taken) = payload.end().ok_or(damaged(NO_SENSE))?;
                if sessions != self.sessions {
                    return Err(damaged("it has not as many sessions as it says"));
                }
                match self.input.read(&mut [0]) {
                    Ok(0) => Ok(Block::End { sessions, taken }),
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

/// The sessions of a block.
pub(super) struct Sessions<'b>(std::slice::Iter<'b, [u8; SESSION]>);

impl Iterator for Sessions<'_> {
    type Item = Session;

    fn next(&mut self) -> Option<Session> {
        Fields(self.0.next()?).session()
    }
}

/// What is left of some bytes.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn session(&mut self) -> Option<Session> {
        Some(Session {
            key: SessionKey(self.bytes().map(u128::from_le_bytes)?),
            place: self.u32()?,
            epoch: self.u32()?,
            created: UnixMillis(self.u64()?),
            last_seen: UnixMillis(self.u64()?),
        })
    }

    fn name(&mut self) -> Option<&'b str> {
        let length = self.bytes().map(u16::from_le_bytes)?;
        let (name, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }

    fn places(mut self) -> Option<Vec<(&'b str, &'b str)>> {
        let mut named = Vec::new();
        while !self.0.is_empty() {
            named.push((self.name()?, self.name()?));
        }
        Some(named)
    }

    fn end(mut self) -> Option<(u64, UnixMillis)> {
        let end = (self.u64()?, UnixMillis(self.u64()?));
        self.0.is_empty().then_some(end)
    }
}
