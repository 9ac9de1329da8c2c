//! Reads a snapshot on a thread of its own, so that the disk does not wait for the table, nor the table for the disk.

use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use super::ReadError;
use super::read::{Block, Blocks};

/// So many blocks are in memory at most: those that were read and not yet looked at, and one on either side.
const AHEAD: usize = 8;

/// Shows the blocks one after the other, until `look` has what it wants.
///
/// # Errors
/// Those of the blocks and of `look`, whichever is first in the order of the file; the system's when it has no thread.
pub(super) fn each_block<T>(
    mut blocks: Blocks<impl Read + Send>,
    mut look: impl FnMut(&Block) -> Result<Option<T>, ReadError>,
) -> Result<T, ReadError> {
    let (full, filled) = sync_channel(AHEAD);
    // What was looked at goes back to be filled again.
    let (empty, emptied) = channel();
    thread::scope(|scope| {
        let read = move || {
            while let Some(block) = blocks.next(emptied.try_recv().unwrap_or_default()).transpose() {
                let was_last = block.is_err();
                if full.send(block).is_err() || was_last {
                    break;
                }
            }
        };
        thread::Builder::new().name("read snapshot".to_owned()).spawn_scoped(scope, read)?;
        // Whoever leaves this loop early lets go of `filled`, and the thread ends with its next block.
        for block in filled {
            let block = block?;
            if let Some(found) = look(&block)? {
                return Ok(found);
            }
            // The thread may have read all there is.
            let _ = empty.send(block.payload);
        }
        Err(ReadError::Io(io::Error::from(ErrorKind::UnexpectedEof)))
    })
}
