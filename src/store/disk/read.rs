//! Reading a snapshot block by block, on a separate thread. Any input yields what was written, or an error.
//!
//! [`Blocks`] reads and verifies blocks, and [`Decoder`] interprets them, so that one can run ahead of the other.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use crc32fast::Hasher;

use super::format::{
    BLOCK_HEADING, CHECKSUM, DATA, Datum, END, EndBlock, FIRST_VERSION, Fields, HEADING, LARGEST_BLOCK, MAGIC,
    ReadError, SESSION, SESSIONS, Sessions, TARGETS, VERSION,
};

/// Whether the input begins like a snapshot that this version can read.
///
/// # Errors
/// What it is instead; [`ReadError::Corrupt`] when it is too short to tell.
pub fn check_heading(input: impl Read) -> Result<(), ReadError> {
    Blocks::open(input).map(drop)
}

/// The blocks of a snapshot.
pub(super) struct Blocks<R> {
    input: R,
    /// Of everything read but the checksums.
    crc: Hasher,
    /// Where the next block begins.
    next: u64,
    version: u32,
    ended: bool,
}

/// A verified block, not yet decoded.
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
        let is_snapshot = heading.iter().zip(MAGIC).all(|(is, right)| is == right);
        if !is_snapshot {
            return Err(ReadError::NotASnapshot);
        }
        let corrupt = |what| ReadError::Corrupt { what, at: 0 };
        let mut fields = Fields(&heading);
        let (Some(_), Some(version), Some(crc)) = (fields.bytes::<8>(), fields.u32(), fields.u32()) else {
            return Err(corrupt(TRUNCATED));
        };
        let mut hasher = Hasher::new();
        hasher.update(heading.get(..HEADING - CHECKSUM).unwrap_or_default());
        if hasher.clone().finalize() != crc {
            return Err(corrupt(WRONG_CHECKSUM));
        }
        match version {
            FIRST_VERSION..=VERSION => {}
            0 => return Err(corrupt("there is no version 0")),
            later => return Err(ReadError::UnsupportedVersion(later)),
        }
        Ok(Self { input, crc: hasher, next: HEADING as u64, version, ended: false })
    }

    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// The next block, into the memory of a former one. `None` after the end block.
    pub(super) fn next(&mut self, mut payload: Vec<u8>) -> Result<Option<Block>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.next;
        let corrupt = |what| ReadError::Corrupt { what, at };
        let read_error = |error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => corrupt(TRUNCATED),
            _ => ReadError::Io(error),
        };
        let mut heading = [0; BLOCK_HEADING];
        self.input.read_exact(&mut heading).map_err(read_error)?;
        let mut fields = Fields(&heading);
        let (kind, length) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
        let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST_BLOCK);
        let length = length.ok_or(corrupt("its length is invalid"))?;
        payload.resize(length, 0);
        self.input.read_exact(&mut payload).map_err(read_error)?;
        let mut crc = [0; CHECKSUM];
        self.input.read_exact(&mut crc).map_err(read_error)?;
        self.crc.update(&heading);
        self.crc.update(&payload);
        if self.crc.clone().finalize().to_le_bytes() != crc {
            return Err(corrupt(WRONG_CHECKSUM));
        }
        self.next += (BLOCK_HEADING + length + CHECKSUM) as u64;
        self.ended = kind == END;
        if self.ended && self.input.read(&mut [0])? > 0 {
            return Err(corrupt("it continues after its end"));
        }
        Ok(Some(Block { kind, at, payload }))
    }
}

/// The contents of a block.
pub(super) enum BlockContents<'b> {
    /// Names of pools and servers, numbered consecutively.
    Targets(Vec<(&'b str, &'b str)>),
    /// Sessions of targets in earlier blocks.
    Sessions(Sessions<'b>),
    /// Data of sessions of targets in earlier blocks.
    Data(Vec<Datum>),
    /// Everything has been read and verified.
    End(EndBlock),
}

/// Decodes the blocks in order.
pub(super) struct Decoder {
    version: u32,
    targets: u32,
    sessions: u64,
    data: u64,
}

impl Decoder {
    pub(super) const fn new(version: u32) -> Self {
        Self { version, targets: 0, sessions: 0, data: 0 }
    }

    /// Decodes the next block.
    pub(super) fn decode<'b>(&mut self, block: &'b Block) -> Result<BlockContents<'b>, ReadError> {
        let corrupt = |what| ReadError::Corrupt { what, at: block.at };
        let payload = Fields(block.payload.as_slice());
        match block.kind {
            TARGETS => {
                let named = payload.targets().ok_or(corrupt(INVALID))?;
                let count = u32::try_from(named.len()).ok().and_then(|count| self.targets.checked_add(count));
                self.targets = count.ok_or(corrupt(INVALID))?;
                Ok(BlockContents::Targets(named))
            }
            SESSIONS => {
                let (sessions, rest) = block.payload.as_chunks::<SESSION>();
                let valid = Sessions(sessions.iter()).all(|session| session.target < self.targets);
                if !valid || !rest.is_empty() || self.data > 0 {
                    return Err(corrupt(INVALID));
                }
                self.sessions += sessions.len() as u64;
                Ok(BlockContents::Sessions(Sessions(sessions.iter())))
            }
            DATA if self.version > FIRST_VERSION => {
                let data = payload.data().ok_or(corrupt(INVALID))?;
                if data.iter().any(|datum| datum.session.target >= self.targets) {
                    return Err(corrupt(INVALID));
                }
                self.data += data.len() as u64;
                Ok(BlockContents::Data(data))
            }
            END => {
                let end = payload.end(self.version).ok_or(corrupt(INVALID))?;
                if (end.sessions, end.data) != (self.sessions, self.data) {
                    return Err(corrupt("it does not have the number of sessions that it states"));
                }
                Ok(BlockContents::End(end))
            }
            _ => Err(corrupt(INVALID)),
        }
    }
}

/// The end block, before anything is verified; `None` when there is none or its numbers are impossible. It is right if
/// everything from the start verifies, see [`Blocks`].
pub(super) fn read_end(input: &mut (impl Read + Seek)) -> io::Result<Option<EndBlock>> {
    let length = input.seek(SeekFrom::End(0))?;
    for (version, payload) in [(VERSION, 24), (FIRST_VERSION, 16)] {
        let size = BLOCK_HEADING + payload + CHECKSUM;
        let Some(at) = length.checked_sub(size as u64) else { continue };
        input.seek(SeekFrom::Start(at))?;
        let mut block = Vec::with_capacity(size);
        input.by_ref().take(size as u64).read_to_end(&mut block)?;
        let mut fields = Fields(block.get(..BLOCK_HEADING + payload).unwrap_or_default());
        let is_end = fields.u32() == Some(END) && fields.u32().is_some_and(|length| length as usize == payload);
        if let Some(end) = fields.end(version).filter(|end| is_end && end.sessions <= length / SESSION as u64) {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Blocks in memory at most: read but not yet processed, and one on either side.
const AHEAD: usize = 8;

/// Reads blocks on another thread, so that neither waits for the other, until `process` returns a result.
///
/// # Errors
/// The first error in the order of the file, of reading or of `process`; the system's when it cannot start a thread.
pub(super) fn each_block<T>(
    mut blocks: Blocks<impl Read + Send>,
    mut process: impl FnMut(&Block) -> Result<Option<T>, ReadError>,
) -> Result<T, ReadError> {
    let (sender, receiver) = sync_channel(AHEAD);
    // The memory of processed blocks is used again.
    let (recycle, recycled) = channel();
    thread::scope(|scope| {
        let read = move || {
            while let Some(block) = blocks.next(recycled.try_recv().unwrap_or_default()).transpose() {
                let was_last = block.is_err();
                if sender.send(block).is_err() || was_last {
                    break;
                }
            }
        };
        thread::Builder::new().name("read snapshot".to_owned()).spawn_scoped(scope, read)?;
        // Leaving this loop early drops `receiver`, and the thread ends with its next block.
        for block in receiver {
            let block = block?;
            if let Some(result) = process(&block)? {
                return Ok(result);
            }
            // The thread may have ended.
            let _ = recycle.send(block.payload);
        }
        Err(ReadError::Io(io::Error::from(ErrorKind::UnexpectedEof)))
    })
}

const TRUNCATED: &str = "the file ends in it";
const WRONG_CHECKSUM: &str = "its checksum is wrong";
const INVALID: &str = "its contents are invalid";
