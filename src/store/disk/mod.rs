//! The table and session data as bytes, so that what no token carries outlives the process.
//!
//! Only the form is here: written to and read from anything, without paths and clocks. Whoever has the file sees to it
//! that it is replaced whole.
//!
//! ```text
//! file     = heading block* end
//! heading  = "homingss"  version: u32  crc: u32
//! block    = kind: u32  length: u32  payload  crc: u32
//! targets   = (pool: u16 length, bytes; server: u16 length, bytes)*     kind 1; numbered from 0 in the order of the file
//! sessions = (key: 16 bytes  target: u32  epoch: u32  created: u64  last seen: u64)*           kind 2
//! data     = (key: 16 bytes  target: u32  epoch: u32  created: u64  last seen: u64
//!             length: u32  length: u32  data  told)*                     kind 4; after all sessions
//! end      = sessions: u64  taken: u64  data: u64                                             kind 3; nothing follows
//! ```
//!
//! Version 1 had no data: neither the blocks, nor their number in the end. It is read as well.
//!
//! Numbers are little endian, times are Unix milliseconds on the wall clock. A checksum is CRC-32 (IEEE) of *all* that comes
//! before it but the other checksums, so a block that is damaged, missing, repeated or out of order is found by the next
//! one, and a file that ends early lacks its end. Heading and version stay where they are in every version to come.
//!
//! Targets are written by name, and only those that a session is bound to: numbers are of one process, and the names of
//! servers long gone would else be carried on for ever. An ended session that is remembered as such is bound to the place
//! with the empty name.
//!
//! Data is what servers handed over ([`crate::store::local::data`]), and `told` what a session's new server has yet to be told; of
//! what is not there the length is 0. It stands beside the sessions and not in them: a session with a token may have data
//! while the table does not know it. Its target is any of its pool. It is written after the sessions, so that it is never older
//! than they are.
//!
//! Keys are keyed hashes, or random: without the configuration's keys the sessions are worth nothing to whoever steals them.
//! Data may be a login.

mod ahead;
mod fields;
mod hands;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io::{self, Read, Seek, Write};

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::local::data::{DataRecord, SessionData};
use crate::store::local::table::Table;
use crate::store::targets::TargetIndex;

use self::ahead::each_block;
use self::fields::{End, Session};
use self::hands::with_help;
use self::read::{Blocks, Meaning, Said, read_end};
use self::write::Writer;

const MAGIC: &[u8; 8] = b"homingss";
/// Of what is written. A file of a later one is not read.
pub const VERSION: u32 = 2;
/// It had no session data.
const FIRST_VERSION: u32 = 1;
/// Magic, version, checksum.
const HEADING: usize = 16;
/// Kind and length.
const BLOCK_HEADING: usize = 8;
const CHECKSUM: usize = 4;
/// Key, target, epoch, created, last seen.
const SESSION: usize = 40;
/// The same, and two lengths. Texts follow.
const DATUM: usize = SESSION + 8;
/// A block of this size costs one write and hides nobody's latency. What is read may not be larger than twice that, so
/// that the last one in a block may be as large as another block.
const BLOCK: usize = 256 * 1024;
const LARGEST_BLOCK: usize = 2 * BLOCK;

const TARGETS: u32 = 1;
const SESSIONS: u32 = 2;
const END: u32 = 3;
const DATA: u32 = 4;

/// Why a snapshot is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It does not begin like one.
    #[error("it is not a snapshot of homing")]
    NotASnapshot,
    /// A later homing wrote it.
    #[error("a later homing wrote it: its format is {0}, and this one reads up to {VERSION}")]
    UnsupportedVersion(u32),
    /// It is not what was written.
    #[error("it is damaged: {what}, in the block at byte {at}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// Where the block begins that is wrong.
        at: u64,
    },
    /// The system would not let us.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a process remembers of its sessions.
#[derive(Clone, Copy, Debug)]
pub struct LocalStore<'m> {
    /// Where they are bound.
    pub table: &'m Table,
    /// What servers handed over for them.
    pub data: &'m SessionData,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// Sessions of the table.
    pub sessions: u64,
    /// Sessions with data, or with a move that their server has yet to be told of.
    pub data: u64,
}

/// What a pool wants back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadScope {
    /// It is no longer there, or keeps no sessions.
    Skip,
    /// Its servers hand nothing over.
    Sessions,
    /// They do.
    SessionsAndData,
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadResult {
    /// What is back.
    pub loaded: SessionCounts,
    /// Left out: of pools that do not want it, of sessions that are over meanwhile, or more than there is room for.
    pub skipped: SessionCounts,
    /// When the snapshot was taken.
    pub taken_at: UnixMillis,
}

/// Whether a file begins like a snapshot that this homing wrote, or could have.
///
/// # Errors
/// What it is instead; [`ReadError::Corrupt`] when it is too short to tell.
pub fn look(input: impl Read) -> Result<(), ReadError> {
    Blocks::open(input).map(drop)
}

/// Writes all sessions of a table and what is kept beside it, shard by shard; requests go on meanwhile. `taken` is now.
///
/// # Errors
/// Those of `out`.
pub fn write(memory: LocalStore<'_>, taken: UnixMillis, out: impl Write) -> io::Result<SessionCounts> {
    let LocalStore { table, data } = memory;
    let mut writer = Writer::begin(out)?;
    // Numbers of the table to numbers of the file.
    let mut numbers: Vec<Option<u32>> = Vec::new();
    let mut sessions = Vec::new();
    for shard in 0..table.shards() {
        sessions.clear();
        table.copy_shard(shard, &mut sessions);
        for (key, known) in &sessions {
            if let Some(target) = number(known.target, &mut numbers, table, &mut writer)? {
                writer.session(*key, target, known)?;
            }
        }
    }
    let mut shard_of_data = Vec::new();
    for shard in 0..data.shards() {
        data.copy_shard(shard, &mut shard_of_data);
        for kept in shard_of_data.drain(..) {
            if let Some(target) = number(kept.owner.pool, &mut numbers, table, &mut writer)? {
                writer.datum(&kept, target)?;
            }
        }
    }
    writer.end(taken)
}

/// The number of a target in the file; its name is written when it is first asked for. `None` = no place of this table.
fn number(
    target: TargetIndex,
    numbers: &mut Vec<Option<u32>>,
    table: &Table,
    writer: &mut Writer<impl Write>,
) -> io::Result<Option<u32>> {
    let index = target.0 as usize;
    if let Some(Some(number)) = numbers.get(index) {
        return Ok(Some(*number));
    }
    let Some(target) = table.target_at(target) else { return Ok(None) };
    let number = writer.target(target.pool(), target.server())?;
    if numbers.len() <= index {
        numbers.resize(index + 1, None);
    }
    if let Some(slot) = numbers.get_mut(index) {
        *slot = Some(number);
    }
    Ok(Some(number))
}

/// Puts what is in a snapshot into a memory that nobody uses yet: what the pools want (`wanted`, by name), of sessions that
/// are within their limits `now`, and when there is more than there is room for, of those who were here last. All of it or
/// nothing: when it turns out not to be as it was written, what was put in is taken out again.
///
/// The input is read once, and once more before when there is more than there is room for.
///
/// # Errors
/// When it is not as it was written; the memory is as empty as before.
pub fn load(
    memory: LocalStore<'_>,
    mut input: impl Read + Seek + Send,
    now: UnixMillis,
    wanted: &dyn Fn(&str) -> LoadScope,
) -> Result<LoadResult, ReadError> {
    let LocalStore { table, data } = memory;
    let mut intern =
        |pool: &str, server: &str| (wanted(pool) != LoadScope::Skip).then(|| table.target(pool, server).index());
    let told = match read_end(&mut input)? {
        Some(told) => told,
        // There is nothing to be had, but to find out why not.
        None => each(&mut input, &mut |_, _| None, &mut |_| ())?,
    };
    let many = usize::try_from(told.sessions).unwrap_or(usize::MAX);
    let mut newest =
        if many <= table.capacity() { Newest::all() } else { Newest::of(table.capacity(), &mut input, &mut intern)? };
    table.reserve(many);
    let has_handoff =
        |target| table.target_at(target).is_some_and(|at| wanted(at.pool()) == LoadScope::SessionsAndData);
    let there = with_help(table, now, |hands| {
        let there = each(&mut input, &mut intern, &mut |items: Items<'_>| match items {
            Items::Sessions(all) => hands.import(all.filter(|(_, known)| newest.takes(known.last_seen))),
            Items::Datum(kept) if has_handoff(kept.owner.pool) => {
                // It is asked of the table when a session was here last.
                hands.all_back();
                data.import(kept, table, now);
            }
            Items::Datum(_) => {}
        })?;
        if there == told {
            Ok((there, hands.all_back()))
        } else {
            Err(ReadError::Io(io::Error::other("it changed while it was read")))
        }
    });
    let (there, sessions) = there.inspect_err(|_| {
        table.clear();
        data.clear();
    })?;
    let loaded = SessionCounts { sessions, data: data.len() as u64 };
    let skipped = SessionCounts { sessions: there.sessions - sessions, data: there.data.saturating_sub(loaded.data) };
    Ok(LoadResult { loaded, skipped, taken_at: there.taken })
}

/// What is in a snapshot.
enum Items<'i> {
    /// Sessions of one block.
    Sessions(&'i mut dyn Iterator<Item = (SessionKey, TableEntry)>),
    Datum(DataRecord),
}

/// Reads all of the input from its start, and shows what is of the targets that `intern` has a number for. Returns how much
/// there is in all, and when it was written.
fn each(
    input: &mut (impl Read + Seek + Send),
    intern: &mut dyn FnMut(&str, &str) -> Option<TargetIndex>,
    show: &mut dyn FnMut(Items<'_>),
) -> Result<End, ReadError> {
    input.rewind()?;
    let blocks = Blocks::open(input)?;
    let mut meaning = Meaning::in_version(blocks.version());
    let mut targets = Vec::new();
    each_block(blocks, |block| {
        match meaning.of(block)? {
            Said::Targets(named) => targets.extend(named.iter().map(|(pool, server)| intern(pool, server))),
            Said::Sessions(sessions) => {
                let placed =
                    |session: Session| Some((session.key, session.known(target_of(session.target, &targets)?)));
                show(Items::Sessions(&mut sessions.filter_map(placed)));
            }
            Said::Data(data) => {
                let placed = data.into_iter().filter_map(|one| Some((target_of(one.session.target, &targets)?, one)));
                placed.for_each(|(target, one)| show(Items::Datum(one.kept(target))));
            }
            Said::End(end) => return Ok(Some(end)),
        }
        Ok(None)
    })
}

fn target_of(number: u32, targets: &[Option<TargetIndex>]) -> Option<TargetIndex> {
    targets.get(usize::try_from(number).ok()?).copied().flatten()
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
        input: &mut (impl Read + Seek + Send),
        intern: &mut dyn FnMut(&str, &str) -> Option<TargetIndex>,
    ) -> Result<Self, ReadError> {
        let mut times = Vec::new();
        each(input, intern, &mut |items| {
            if let Items::Sessions(sessions) = items {
                times.extend(sessions.map(|(_, known)| known.last_seen));
            }
        })?;
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
