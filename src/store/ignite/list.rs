//! Lists, partition by partition: a cursor is the next partition, so it outlives connections and holds nothing on a node.

use futures_util::future::try_join_all;

use super::connection::Connection;
use super::protocol::reader::Object;
use super::protocol::request::Request;
use super::protocol::response;
use super::stored::Stored;
use super::supervisor::Shared;
use crate::store::engine::{Kind, Name, Page, StoreError, Value};

/// Partitions that are scanned at once.
const AT_ONCE: usize = 32;
/// Entries in one response.
const PAGE: i32 = 256;

/// The next partition: `b17` of bindings, `d17` of session data, which come after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    kind: Kind,
    partition: usize,
}

impl Cursor {
    const START: Self = Self { kind: Kind::Binding, partition: 0 };

    fn read(text: &str) -> Option<Self> {
        let (kind, digits) = match text.split_at_checked(1)? {
            ("b", digits) => (Kind::Binding, digits),
            ("d", digits) => (Kind::Data, digits),
            _ => return None,
        };
        let partition = digits.parse::<u16>().ok()?;
        Some(Self { kind, partition: partition.into() })
    }

    fn text(self) -> String {
        let kind = match self.kind {
            Kind::Binding => 'b',
            Kind::Data => 'd',
        };
        format!("{kind}{}", self.partition)
    }

    /// The one after this partition; `None` = it was the last.
    const fn after(self, last: usize, count: usize) -> Option<Self> {
        match self.kind {
            _ if last + 1 < count => Some(Self { kind: self.kind, partition: last + 1 }),
            Kind::Binding => Some(Self { kind: Kind::Data, partition: 0 }),
            Kind::Data => None,
        }
    }
}

/// Scans partitions until about `limit` values are found.
pub(super) async fn list(
    shared: &Shared,
    connection: &Connection,
    prefix: &Name,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    let unknown = || StoreError::Refused("no page begins at this cursor: begin again without one".to_owned());
    let mut next = Some(cursor.map_or(Some(Cursor::START), Cursor::read).ok_or_else(unknown)?);
    let mut values = Vec::new();
    while let Some(cursor) = next.filter(|_| values.len() < limit.max(1)) {
        let cache = shared.cache(cursor.kind);
        let count = connection.ask_for(Request::partitions(cache), response::partitions).await?;
        let end = count.min(cursor.partition + AT_ONCE);
        let partitions = (cursor.partition..end).map(|partition| scan(shared, connection, cursor.kind, partition));
        for entries in try_join_all(partitions).await? {
            values.extend(entries.into_iter().filter(|(name, _)| name.as_str().starts_with(prefix.as_str())));
        }
        next = cursor.after(end.saturating_sub(1), count);
    }
    Ok(Page { values, next: next.map(Cursor::text) })
}

async fn scan(
    shared: &Shared,
    connection: &Connection,
    kind: Kind,
    partition: usize,
) -> Result<Vec<(Name, Value)>, StoreError> {
    let partition = i32::try_from(partition).unwrap_or(i32::MAX);
    let first = Request::scan(shared.cache(kind), partition, PAGE);
    let (cursor, mut page) = connection.ask_for(first, response::first_page).await?;
    let mut values = Vec::new();
    loop {
        values.extend(page.entries.into_iter().filter_map(value));
        if !page.more {
            return Ok(values);
        }
        page = connection.ask_for(Request::next_page(cursor), response::next_page).await?;
    }
}

/// Values in another format are skipped.
fn value((key, value): (Object, Object)) -> Option<(Name, Value)> {
    let name = Name::from_stored(key.as_text()?);
    name.parts()?;
    Some((name, Stored::read(value).ok()??.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        for text in ["b0", "b1023", "d0", "d65535"] {
            assert_eq!(Cursor::read(text).map(Cursor::text).as_deref(), Some(text));
        }
        for text in ["", "b", "x0", "nonsense", "b-1", "d65536", "7", "é"] {
            assert_eq!(Cursor::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn session_data_come_after_bindings() {
        let data = Cursor { kind: Kind::Data, partition: 0 };
        assert_eq!(Cursor::START.after(31, 1024), Some(Cursor { kind: Kind::Binding, partition: 32 }));
        assert_eq!(Cursor::START.after(1023, 1024), Some(data));
        assert_eq!(data.after(1023, 1024), None);
    }
}
