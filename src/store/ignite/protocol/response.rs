//! What a frame from the server is, and what the payload of each operation says.

use bytes::Bytes;

use super::Malformed;
use super::reader::{Object, Reader};

/// A frame from the server, after the handshake.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::ignite) enum Message {
    /// The response to a request.
    Response(Response),
    /// Told without a request; its kind is an operation's code.
    Notification(i16, Bytes),
}

/// The response to a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::ignite) struct Response {
    /// Of the request.
    pub(in crate::store::ignite) id: i64,
    /// The number of the cluster's topology that the node has taken part in agreeing on, when it is another than before.
    pub(in crate::store::ignite) topology: Option<i64>,
    /// The payload, or why there is none.
    pub(in crate::store::ignite) outcome: Result<Bytes, Failure>,
}

/// The server could not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::ignite) struct Failure {
    /// Which kind of failure.
    pub(in crate::store::ignite) status: i32,
    /// In its words, which may name keys.
    pub(in crate::store::ignite) reason: String,
}

impl Failure {
    /// The cache is gone, or never was.
    pub(in crate::store::ignite) const NO_SUCH_CACHE: i32 = 1000;
}

/// Flags of a response.
const FAILED: i16 = 0x01;
const TOPOLOGY_CHANGED: i16 = 0x02;
const NOTIFICATION: i16 = 0x04;

/// Reads a frame.
///
/// # Errors
/// When it is no message.
pub(in crate::store::ignite) fn read(frame: Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader::new(frame);
    let id = reader.i64()?;
    let flags = reader.i16()?;
    let mut topology = None;
    if flags & TOPOLOGY_CHANGED != 0 {
        topology = Some(reader.i64()?);
        // How often the caches have changed since.
        reader.i32()?;
    }
    let kind = if flags & NOTIFICATION != 0 { Some(reader.i16()?) } else { None };
    if flags & FAILED != 0 {
        let failure = Failure { status: reader.i32()?, reason: reader.text()? };
        return Ok(match kind {
            None => Message::Response(Response { id, topology, outcome: Err(failure) }),
            Some(kind) => Message::Notification(kind, Bytes::new()),
        });
    }
    Ok(match kind {
        None => Message::Response(Response { id, topology, outcome: Ok(reader.rest()) }),
        Some(kind) => Message::Notification(kind, reader.rest()),
    })
}

/// Yes or no: of a write that compares.
pub(in crate::store::ignite) fn done(payload: Bytes) -> Result<bool, Malformed> {
    let mut reader = Reader::new(payload);
    let done = reader.bool()?;
    reader.end()?;
    Ok(done)
}

/// One value, or null.
pub(in crate::store::ignite) fn value(payload: Bytes) -> Result<Object, Malformed> {
    let mut reader = Reader::new(payload);
    let value = reader.object()?;
    reader.end()?;
    Ok(value)
}

/// The id of a continuous query.
pub(in crate::store::ignite) fn cursor(payload: Bytes) -> Result<i64, Malformed> {
    let mut reader = Reader::new(payload);
    let cursor = reader.i64()?;
    reader.end()?;
    Ok(cursor)
}

/// Keys and values, in no order.
pub(in crate::store::ignite) fn entries(payload: Bytes) -> Result<Vec<(Object, Object)>, Malformed> {
    let mut reader = Reader::new(payload);
    let entries = pairs(&mut reader)?;
    reader.end()?;
    Ok(entries)
}

/// A page of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::ignite) struct ScanPage {
    pub(in crate::store::ignite) entries: Vec<(Object, Object)>,
    /// There is another page. The server forgets a cursor whose last page it has given.
    pub(in crate::store::ignite) more: bool,
}

/// The first page of a scan, and its cursor.
pub(in crate::store::ignite) fn first_page(payload: Bytes) -> Result<(i64, ScanPage), Malformed> {
    let mut reader = Reader::new(payload);
    let cursor = reader.i64()?;
    Ok((cursor, next_page(reader.rest())?))
}

/// Another page.
pub(in crate::store::ignite) fn next_page(payload: Bytes) -> Result<ScanPage, Malformed> {
    let mut reader = Reader::new(payload);
    let entries = pairs(&mut reader)?;
    let more = reader.bool()?;
    reader.end()?;
    Ok(ScanPage { entries, more })
}

fn pairs(reader: &mut Reader) -> Result<Vec<(Object, Object)>, Malformed> {
    // Each object has a byte at least.
    let count = reader.count(2)?;
    (0..count).map(|_| Ok((reader.object()?, reader.object()?))).collect()
}

/// How many partitions a cache has, by the nodes that own them.
pub(in crate::store::ignite) fn partitions(payload: Bytes) -> Result<usize, Malformed> {
    const NODE_ID: usize = 16;
    let mut reader = Reader::new(payload);
    reader.i64()?;
    reader.i32()?;
    let mut partitions = 0;
    for _ in 0..reader.count(1)? {
        let applicable = reader.bool()?;
        for _ in 0..reader.count(4)? {
            reader.i32()?;
            if applicable {
                let keys = reader.count(8)?;
                reader.bytes(8 * keys)?;
            }
        }
        let nodes = if applicable { reader.count(NODE_ID + 4)? } else { 0 };
        for _ in 0..nodes {
            // Written as an object, with a byte for its type before it.
            reader.object()?;
            let owned = reader.count(4)?;
            reader.bytes(4 * owned)?;
            partitions += owned;
        }
    }
    reader.end()?;
    Ok(partitions)
}
