//! `events`: the event list as it grows, or once.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::args::{EventsArgs, Format};
use super::client::{Client, ClientError};
use super::failure::Failure;
use super::servers::is_absence;
use super::table::{Column, Table, cell, number, text};
use super::wait::LONGEST_ABSENCE;
use crate::cli::output::{print_message, try_print};

/// How long the proxy holds a request back when there is nothing new.
const POLL: Duration = Duration::from_secs(30);
/// Between two attempts to reach a proxy that is away.
const RETRY: Duration = Duration::from_millis(500);

const COLUMNS: &[Column] = &[
    number("ID").at_least(6),
    text("TIME").at_least(24),
    text("KIND").at_least(13),
    text("POOL").at_least(8),
    text("SERVER").at_least(8),
    text("FROM").at_least(8),
    text("TO").at_least(8),
    text("WHO").at_least(8),
    text("SESSION").at_least(8),
    text("REASON"),
];

/// `events`.
pub(super) fn events(client: &Client, args: &EventsArgs) -> Result<(), Failure> {
    let page = client.get(&format!("/api/v1/events?after={}", args.after.unwrap_or(0)))?;
    let filter = Filter::new(args, SystemTime::now());
    let follows = args.follow || !args.once;
    let items: Vec<&Value> = items(&page)?.iter().filter(|event| filter.accepts(event)).collect();
    if !follows && args.client.output == Format::Json {
        let next = page.get("next").unwrap_or(&Value::Null);
        return Ok(try_print(&format!("{:#}\n", json!({ "items": items, "next": next })))?);
    }
    let mut table = Table::new(COLUMNS);
    if args.client.output == Format::Table {
        try_print(&(table.header() + "\n"))?;
    }
    print_events(&mut table, &items, args.client.output)?;
    if follows { follow(client, args, &mut table, Position::after(&page, args.after)) } else { Ok(()) }
}

fn items(page: &Value) -> Result<&Vec<Value>, ClientError> {
    let items = page.get("items").and_then(Value::as_array);
    items.ok_or_else(|| ClientError::Invalid("the list of events has no items".to_owned()))
}

struct Filter<'a> {
    kinds: &'a [String],
    since: Option<SystemTime>,
}

impl<'a> Filter<'a> {
    fn new(args: &'a EventsArgs, now: SystemTime) -> Self {
        Self { kinds: &args.kind, since: args.since.and_then(|since| now.checked_sub(since)) }
    }

    fn accepts(&self, event: &Value) -> bool {
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let at = || humantime::parse_rfc3339(text("at")).ok();
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == text("kind")))
            && self.since.is_none_or(|since| at().is_none_or(|at| at >= since))
    }
}

fn print_events(table: &mut Table, events: &[&Value], format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Json => events.iter().flat_map(|event| [event.to_string(), "\n".to_owned()]).collect(),
        Format::Table => {
            for event in events {
                let of = |name: &str| cell(event.get(name));
                table.push(["id", "at", "kind", "pool", "server", "from", "to", "who", "session", "reason"].map(of));
            }
            table.take_lines()
        }
    };
    Ok(try_print(&text)?)
}

/// How far the list has been read. Ids begin again with each process, so an event is known by its time too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Position {
    after: u64,
    last: Option<(u64, String)>,
}

impl Position {
    fn after(page: &Value, start: Option<u64>) -> Self {
        let mut position = Self { after: start.unwrap_or(0), last: None };
        position.advance(page);
        position
    }

    fn advance(&mut self, page: &Value) {
        if let Some(event) = page.get("items").and_then(Value::as_array).and_then(|items| items.last()) {
            self.last = identity(event);
        }
        let last = self.last.as_ref().map(|(id, _)| *id);
        self.after = page.get("next").and_then(Value::as_u64).or(last).unwrap_or(self.after);
    }

    /// Where to read on in a list that may be another process's.
    fn resume(&self, whole: &[Value]) -> u64 {
        let is_same = self.last.is_some() && whole.iter().any(|event| identity(event) == self.last);
        if is_same { self.after } else { 0 }
    }
}

fn identity(event: &Value) -> Option<(u64, String)> {
    Some((event.get("id")?.as_u64()?, event.get("at")?.as_str()?.to_owned()))
}

fn follow(client: &Client, args: &EventsArgs, table: &mut Table, mut position: Position) -> Result<(), Failure> {
    let filter = Filter { kinds: &args.kind, since: None };
    // Ids that fall are those of another process, as after a handover of the listener.
    let (mut absent_since, mut begins_again) = (None, false);
    loop {
        match poll(client, &position, absent_since.is_some() || begins_again) {
            Ok(page) => {
                let items: Vec<&Value> = items(&page)?.iter().filter(|event| filter.accepts(event)).collect();
                print_events(table, &items, args.client.output)?;
                let before = position.after;
                position.advance(&page);
                begins_again = position.after < before;
                absent_since = None;
            }
            Err(error) if is_absence(&error) => {
                if absent_since.is_none() {
                    print_message(&format!("{error}; trying again"));
                }
                let since = *absent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= LONGEST_ABSENCE {
                    return Err(error.into());
                }
                sleep(RETRY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The next events; of a list that may be another process's, those that have not been printed.
fn poll(client: &Client, position: &Position, begins_again: bool) -> Result<Value, ClientError> {
    if !begins_again {
        let path = format!("/api/v1/events?after={}&wait={}s", position.after, POLL.as_secs());
        return client.get_waiting(&path, POLL);
    }
    let mut page = client.get("/api/v1/events?after=0")?;
    let after = position.resume(items(&page)?);
    if let Some(items) = page.get_mut("items").and_then(Value::as_array_mut) {
        items.retain(|event| event.get("id").and_then(Value::as_u64).is_none_or(|id| id > after));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, at: &str) -> Value {
        json!({ "id": id, "at": at, "kind": "state" })
    }

    #[test]
    fn a_list_is_read_on_where_it_was_left_and_from_its_start_after_a_restart() {
        let page = json!({ "items": [event(1, "t1"), event(2, "t2")], "next": 2 });
        let position = Position::after(&page, None);
        assert_eq!(position.after, 2);
        let grown = [event(1, "t1"), event(2, "t2"), event(3, "t3")];
        assert_eq!(position.resume(&grown), 2, "the same process");
        let other = [event(1, "t7"), event(2, "t8"), event(3, "t9")];
        assert_eq!(position.resume(&other), 0, "another process has events of its own with these ids");
        let mut idle = position.clone();
        idle.advance(&json!({ "items": [], "next": null }));
        assert_eq!(idle, position, "nothing new");
    }

    #[test]
    fn events_are_selected_by_kind_and_time() {
        let now = humantime::parse_rfc3339("2026-11-29T12:00:00Z").expect("a time");
        let moved = json!({ "kind": "move", "at": "2026-11-29T11:55:00.000Z" });
        let kinds = ["move".to_owned()];
        let since = |minutes: u64| Some(now - Duration::from_secs(60 * minutes));
        let accepts = |kinds, since| Filter { kinds, since }.accepts(&moved);
        assert!(accepts(&[], None) && accepts(&kinds, since(10)));
        assert!(!accepts(&kinds, since(1)), "older");
        assert!(!accepts(&["health".to_owned()], None), "of another kind");
    }
}
