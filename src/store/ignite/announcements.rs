//! Events of the continuous query as announcements of bindings that moved or ended.

use bytes::Bytes;

use super::protocol::notification::{self, Event, Kind as Change};
use super::stored::Stored;
use crate::store::engine::{Kind, Name, Value};

/// The bindings that a notification announces. Values in another format are skipped.
pub(super) fn of(payload: Bytes) -> Vec<(Name, Value)> {
    let (events, complete) = notification::events(payload);
    if let Err(malformed) = complete {
        tracing::debug!(%malformed, "events of the store that cannot be read");
    }
    events.into_iter().filter_map(announcement).collect()
}

/// Neither a first binding nor a longer time to live is a move.
fn announcement(Event { key, before, after, kind }: Event) -> Option<(Name, Value)> {
    let name = Name::from_stored(key.as_text()?);
    let (_, _, Kind::Binding) = name.parts()? else { return None };
    let value = Stored::read(after).ok().flatten()?.value;
    let moved = match kind {
        Change::Created => value.epoch() > 0,
        Change::Updated => Stored::read(before).ok().flatten().is_none_or(|before| before.value != value),
        Change::Gone => false,
    };
    moved.then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::super::protocol::reader::Object;
    use super::*;
    use crate::session::key::SessionKey;

    fn text(text: &str) -> Object {
        Object::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn epoch(key: &str, before: Option<&str>, after: Option<&str>, kind: Change) -> Option<u32> {
        let object = |value: Option<&str>| value.map_or(Object::Null, text);
        let event = Event { key: text(key), before: object(before), after: object(after), kind };
        announcement(event).map(|(name, value)| {
            assert_eq!(name.as_str(), key);
            value.epoch()
        })
    }

    #[test]
    fn moves_and_ends_are_announced_and_nothing_more() {
        let name = Name::new("shop", SessionKey(7), Kind::Binding);
        let name = name.as_str();
        let (first, renewed) = ("1 0 a 7 edge-1 ttl=60", "1 0 a 7 edge-1 ttl=90");
        let (moved, ended) = ("1 1 b 7 edge-1 ttl=60", "1 2 - 7 ops");
        let announced = |before, after, kind| epoch(name, before, after, kind);
        assert_eq!(announced(None, Some(first), Change::Created), None, "a first binding");
        assert_eq!(announced(Some(first), Some(renewed), Change::Updated), None, "a longer life");
        assert_eq!(announced(Some(first), Some(moved), Change::Updated), Some(1), "a move");
        assert_eq!(announced(None, Some(moved), Change::Created), Some(1), "a move of what was not kept");
        assert_eq!(announced(Some(moved), Some(ended), Change::Updated), Some(2), "an end, by another program");
        assert_eq!(announced(Some("hello"), Some(moved), Change::Updated), Some(1), "in the place of a foreign value");
        assert_eq!(announced(Some(moved), None, Change::Gone), None, "forgotten");
        assert_eq!(announced(Some(moved), Some("hello"), Change::Updated), None, "a foreign value");
        assert_eq!(epoch("shop:short", None, Some(moved), Change::Created), None, "a foreign name");
        assert_eq!(epoch(&format!("{name}:d"), None, Some(moved), Change::Created), None, "session data");
    }
}
