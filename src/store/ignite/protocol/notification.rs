//! The events of a continuous query.

use bytes::Bytes;

use super::Malformed;
use super::reader::{Object, Reader};

/// The code of a notification that carries events.
pub(in crate::store::ignite) const EVENTS: i16 = 2007;

/// Something was written into the cache.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::ignite) struct Event {
    pub(in crate::store::ignite) key: Object,
    pub(in crate::store::ignite) before: Object,
    pub(in crate::store::ignite) after: Object,
    pub(in crate::store::ignite) kind: Kind,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::ignite) enum Kind {
    /// Nothing was kept there before.
    Created,
    /// Another value was kept there before.
    Updated,
    /// Nothing is kept there any more: removed or expired.
    Gone,
}

/// Reads the events of a notification, up to the first that cannot be read: what others write into the cache must not
/// silence what comes before it.
pub(in crate::store::ignite) fn events(payload: Bytes) -> (Vec<Event>, Result<(), Malformed>) {
    let mut reader = Reader::new(payload);
    let mut events = Vec::new();
    // Three objects and a kind, each a byte at least.
    let complete = reader.count(4).and_then(|count| {
        for _ in 0..count {
            events.push(event(&mut reader)?);
        }
        reader.end()
    });
    (events, complete)
}

fn event(reader: &mut Reader) -> Result<Event, Malformed> {
    let (key, before, after) = (reader.object()?, reader.object()?, reader.object()?);
    let kind = match reader.u8()? {
        0 => Kind::Created,
        1 => Kind::Updated,
        2 | 3 => Kind::Gone,
        _ => return Err(Malformed("an event of an unknown kind")),
    };
    Ok(Event { key, before, after, kind })
}
