//! Snapshots: the table and session data as bytes, so that bindings without a token outlive the process.
//!
//! Only the format is here: it is written to and read from anything, without paths and clocks. The owner of the file replaces
//! it atomically.
//!
//! ```text
//! file     = heading block* end
//! heading  = "homingss"  version: u32  crc: u32
//! block    = kind: u32  length: u32  payload  crc: u32
//! targets  = (pool: u16 length, bytes; server: u16 length, bytes)*     kind 1; numbered from 0 in the order of the file
//! sessions = (key: 16 bytes  target: u32  epoch: u32  created: u64  last seen: u64)*           kind 2
//! data     = (key: 16 bytes  target: u32  epoch: u32  created: u64  last seen: u64
//!             length: u32  length: u32  data  moved header)*              kind 4; after all sessions
//! end      = sessions: u64  taken: u64  data: u64                                             kind 3; nothing follows
//! ```
//!
//! Version 1 had no data, neither the blocks nor their number in the end. It is read as well.
//!
//! Numbers are little endian, times are Unix milliseconds of the wall clock. A checksum is the CRC-32 (IEEE) of *everything*
//! before it but the other checksums, so the next checksum detects a block that is damaged, missing, repeated or out of order,
//! and a truncated file lacks its end. Heading and version stay where they are in every future version.
//!
//! Targets are written by name, and only those with a session: indices are valid in one process only, and names of removed
//! servers would otherwise be carried along for ever. A tombstone is bound to the target with the empty server name.
//!
//! Data is what servers handed over ([`crate::store::local::data`]), and the moved header what a session's new server has not
//! acknowledged yet; a length of 0 means there is none. It is separate from the sessions, because a session with a token may
//! have data without being in the table. Its target is any of its pool. It is written after the sessions, so that it is never
//! older than they are.
//!
//! Keys are keyed hashes, or random: without the configuration's keys, stolen sessions are worthless. Data may be a login.
//!
//! [`mod@format`] has the layout of blocks, [`mod@write`] and [`read`] the stream of blocks, [`mod@load`] fills the table.

mod format;
mod load;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use self::format::{LocalStore, ReadError, SessionCounts, VERSION};
pub use self::load::{LoadResult, LoadScope, load};
pub use self::read::check_heading;
pub use self::write::write;
