//! The table as bytes, so that sessions without a token outlive the process.
//!
//! Only the form is here: written to and read from anything, without paths and clocks. Whoever has the file sees to it
//! that it is replaced whole.
//!
//! ```text
//! file     = heading block* end
//! heading  = "homingss"  version: u32  crc: u32
//! block    = kind: u32  length: u32  payload  crc: u32
//! places   = (pool: u16 length, bytes; server: u16 length, bytes)*     kind 1; numbered from 0 in the order of the file
//! sessions = (key: 16 bytes  place: u32  epoch: u32  created: u64  last seen: u64)*           kind 2
//! end      = sessions: u64  taken: u64                                                        kind 3; nothing follows
//! ```
//!
//! Numbers are little endian, times are Unix milliseconds on the wall clock. A checksum is CRC-32 (IEEE) of *all* that comes
//! before it but the other checksums, so a block that is damaged, missing, repeated or out of place is found by the next
//! one, and a file that ends early lacks its end. Heading and version stay where they are in every version to come.
//!
//! Places are written by name, and only those that a session is bound to: numbers are of one process, and the names of
//! servers long gone would else be carried on for ever. An ended session that is remembered as such is bound to the place
//! with the empty name.
//!
//! Keys are keyed hashes, or random: nothing here is worth anything to whoever steals it, without the keys.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io::{self, Read, Seek, Write};

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::Known;
use crate::store::memory::Table;
use crate::store::places::PlaceIndex;

use self::read::{Block, Reader};
use self::write::Writer;

const MAGIC: &[u8; 8] = b"homingss";
/// Of what is written. A file of a later one is not read.
pub const VERSION: u32 = 1;
/// Magic, version, checksum.
const HEADING: usize = 16;
/// Kind and length.
const BLOCK_HEADING: usize = 8;
const CHECKSUM: usize = 4;
/// Key, place, epoch, created, last seen.
const SESSION: usize = 40;
/// A block of this size costs one write and hides nobody's latency. What is read may not be larger than twice that.
const BLOCK: usize = 256 * 1024;
const LARGEST_BLOCK: usize = 2 * BLOCK;

const PLACES: u32 = 1;
const SESSIONS: u32 = 2;
const END: u32 = 3;

/// Why a snapshot is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It does not begin like one.
    #[error("it is not a snapshot of homing")]
    Foreign,
    /// A later homing wrote it.
    #[error("a later homing wrote it: its format is {0}, and this one reads up to {VERSION}")]
    Newer(u32),
    /// It is not what was written.
    #[error("it is damaged: {what}, in the block at byte {at}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where the block begins that is wrong.
        at: u64,
    },
    /// The system would not let us.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What became of the sessions of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Put into the table.
    pub sessions: u64,
    /// Left out: of pools that are no longer configured, over meanwhile, or more than the table takes.
    pub left_out: u64,
    /// When the snapshot was taken.
    pub taken: UnixMillis,
}

/// Whether a file begins like a snapshot that this homing wrote, or could have.
///
/// # Errors
/// What it is instead; [`Unread::Damaged`] when it is too short to tell.
pub fn look(input: impl Read) -> Result<(), Unread> {
    Reader::open(input).map(drop)
}

/// Writes all sessions of a table, shard by shard; requests go on meanwhile. `taken` is now. Returns how many.
///
/// # Errors
/// Those of `out`.
pub fn write(table: &Table, taken: UnixMillis, out: impl Write) -> io::Result<u64> {
    let mut writer = Writer::begin(out)?;
    // Numbers of the table to numbers of the file.
    let mut numbers: Vec<Option<u32>> = Vec::new();
    let mut sessions = Vec::new();
    for shard in 0..table.shards() {
        sessions.clear();
        table.copy_shard(shard, &mut sessions);
        for (key, known) in &sessions {
            if let Some(place) = number(known.place, &mut numbers, table, &mut writer)? {
                writer.session(*key, place, known)?;
            }
        }
    }
    writer.end(taken)
}

/// The number of a place in the file; its name is written when it is first asked for. `None` = no place of this table.
fn number(
    place: PlaceIndex,
    numbers: &mut Vec<Option<u32>>,
    table: &Table,
    writer: &mut Writer<impl Write>,
) -> io::Result<Option<u32>> {
    let index = place.0 as usize;
    if let Some(Some(number)) = numbers.get(index) {
        return Ok(Some(*number));
    }
    let Some(place) = table.place_at(place) else { return Ok(None) };
    let number = writer.place(place.pool(), place.server())?;
    if numbers.len() <= index {
        numbers.resize(index + 1, None);
    }
    if let Some(slot) = numbers.get_mut(index) {
        *slot = Some(number);
    }
    Ok(Some(number))
}

/// Puts the sessions of a snapshot into a table that nobody uses yet: those of pools that `wanted` says yes to, that are
/// within their limits `now`, and when there are more than the table takes, those who were here last. All of it or nothing:
/// the whole input is checked before the first of them is put in.
///
/// # Errors
/// When it is not as it was written; the table is as empty as before.
pub fn load(
    table: &Table,
    mut input: impl Read + Seek,
    now: UnixMillis,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Loaded, Unread> {
    let (there, taken) = each_session(&mut input, &mut |_, _| None, &mut |_, _| ())?;
    let mut intern = |pool: &str, server: &str| wanted(pool).then(|| table.place(pool, server).index());
    let newest = if usize::try_from(there).is_ok_and(|there| there <= table.capacity()) {
        Newest::all()
    } else {
        Newest::of(table.capacity(), &mut input, &mut intern)?
    };
    table.reserve(usize::try_from(there).unwrap_or(usize::MAX));
    let (mut newest, mut sessions) = (newest, 0);
    let put_back = &mut |key, known: &Known| {
        if newest.takes(known.last_seen) && table.put_back(key, known, now) {
            sessions += 1;
        }
    };
    if let Err(error) = each_session(&mut input, &mut intern, put_back) {
        // It was whole a moment ago.
        table.forget_all();
        return Err(error);
    }
    Ok(Loaded { sessions, left_out: there - sessions, taken })
}

/// Reads all of the input from its start, and shows the sessions of the places that `intern` has a number for. Returns how
/// many there are in all, and when they were written.
fn each_session(
    input: &mut (impl Read + Seek),
    intern: &mut dyn FnMut(&str, &str) -> Option<PlaceIndex>,
    show: &mut dyn FnMut(SessionKey, &Known),
) -> Result<(u64, UnixMillis), Unread> {
    input.rewind()?;
    let mut reader = Reader::open(input)?;
    let mut places = Vec::new();
    loop {
        match reader.next()? {
            Block::Places(named) => places.extend(named.iter().map(|(pool, server)| intern(pool, server))),
            Block::Sessions(sessions) => {
                for session in sessions {
                    let number = usize::try_from(session.place).ok();
                    if let Some(Some(place)) = number.and_then(|number| places.get(number)) {
                        show(session.key, &session.known(*place));
                    }
                }
            }
            Block::End { sessions, taken } => return Ok((sessions, taken)),
        }
    }
}

/// Who may come when there are too many: those who were here at `since` or later, but of those at that very moment only so
/// many.
struct Newest {
    since: UnixMillis,
    at_that_moment: usize,
}

impl Newest {
    fn all() -> Self {
        Self { since: UnixMillis(0), at_that_moment: usize::MAX }
    }

    /// Looks at the times of all sessions: eight bytes each, for as long as it takes.
    fn of(
        most: usize,
        input: &mut (impl Read + Seek),
        intern: &mut dyn FnMut(&str, &str) -> Option<PlaceIndex>,
    ) -> Result<Self, Unread> {
        let mut times = Vec::new();
        each_session(input, intern, &mut |_, known| times.push(known.last_seen))?;
        let surplus = times.len().saturating_sub(most);
        if surplus == 0 {
            return Ok(Self::all());
        }
        if most == 0 {
            return Ok(Self { since: UnixMillis(u64::MAX), at_that_moment: 0 });
        }
        let (_, since, later) = times.select_nth_unstable(surplus);
        let since = *since;
        let later = later.iter().filter(|time| **time > since).count();
        Ok(Self { since, at_that_moment: most - later })
    }

    fn takes(&mut self, last_seen: UnixMillis) -> bool {
        if last_seen != self.since {
            return last_seen > self.since;
        }
        let takes = self.at_that_moment > 0;
        self.at_that_moment = self.at_that_moment.saturating_sub(1);
        takes
    }
}
