//! The event list: the last changes of state of this process, for the admin API, with their reason and who caused them.
//!
//! One list a process, as there is one log. Writing an event takes a lock for a few instructions, so nothing is recorded for
//! a request that changes nothing.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::move_history::{MoveHistory, SessionMove};

/// How many events are kept.
pub const KEPT: usize = 1000;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum EventKind {
    /// A server's state, by an operator or the file.
    State,
    /// A server's health.
    Health,
    /// A server's circuit breaker.
    Breaker,
    /// The configuration was reloaded, or that was refused.
    Reload,
    /// A session moved.
    Move,
    /// A session was ended by an operator.
    SessionEnded,
    /// The shared store is reachable again, or not any more.
    Store,
    /// A certificate was loaded, issued, renewed or removed, or not issued.
    Certificate,
}

/// What caused a change that no operator made.
pub mod cause {
    /// The configuration file.
    pub const FILE: &str = "file";
    /// What discovery found.
    pub const DISCOVERY: &str = "discovery";
    /// A signal.
    pub const SIGNAL: &str = "signal";
    /// Health checks.
    pub const HEALTH: &str = "health";
    /// The circuit breaker.
    pub const BREAKER: &str = "breaker";
    /// Sessions that leave crowded servers.
    pub const REBALANCE: &str = "rebalance";
    /// Certificates that the proxy orders.
    pub const ACME: &str = "acme";
    /// An operator who needs no token.
    pub const LOCAL: &str = "local";
}

/// A change, before it has its number and time. What does not apply is `None`.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// What changed.
    pub kind: EventKind,
    /// The pool.
    pub pool: Option<Arc<str>>,
    /// The server whose state changed.
    pub server: Option<Arc<str>>,
    /// The value before; for a move, the server before.
    pub from: Option<Arc<str>>,
    /// The value after; for a move, the server after.
    pub to: Option<Arc<str>>,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// The name of a token, or one of [`cause`]; `None` when a request caused it.
    pub who: Option<Arc<str>>,
    /// The key of the session. A secret: it is shown as its keyed hash only.
    pub session: Option<u128>,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, pool, server, from, to, reason, who, session: _ } = self;
        write!(f, "Change({kind:?} {pool:?} {server:?} {from:?} {to:?} {reason:?} {who:?})")
    }
}

impl Change {
    /// A change of that kind.
    pub fn new(kind: EventKind) -> Self {
        Self { kind, pool: None, server: None, from: None, to: None, reason: None, who: None, session: None }
    }

    /// Of a pool.
    #[must_use]
    pub fn pool(mut self, pool: &Arc<str>) -> Self {
        self.pool = Some(Arc::clone(pool));
        self
    }

    /// Of a server.
    #[must_use]
    pub fn server(mut self, server: &Arc<str>) -> Self {
        self.server = Some(Arc::clone(server));
        self
    }

    /// From one value to another.
    #[must_use]
    pub fn values(mut self, from: &str, to: &str) -> Self {
        (self.from, self.to) = (Some(from.into()), Some(to.into()));
        self
    }

    /// Why.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The session that moved or ended.
    #[must_use]
    pub fn session(mut self, key: u128) -> Self {
        self.session = Some(key);
        self
    }

    /// Who caused it.
    #[must_use]
    pub fn who(mut self, who: &str) -> Self {
        self.who = Some(who.into());
        self
    }
}

/// An event of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Rises by one with every event; the first is 1.
    pub id: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    /// What changed.
    pub change: Change,
}

/// A list of events.
pub struct EventList {
    events: Mutex<VecDeque<Event>>,
    /// The id of the last event.
    last: watch::Sender<u64>,
}

static EVENTS: LazyLock<EventList> = LazyLock::new(EventList::default);
static MOVES: LazyLock<MoveHistory> = LazyLock::new(MoveHistory::default);

/// The list of this process.
pub fn list() -> &'static EventList {
    &EVENTS
}

/// The sessions' last moves, of this process.
pub fn moves() -> &'static MoveHistory {
    &MOVES
}

/// Adds an event to the list of this process; a move of a session to the session's moves too.
pub fn record(change: Change) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    if let Change { kind: EventKind::Move, session: Some(key), from: Some(from), to: Some(to), reason, .. } = &change {
        let (from, to, reason) = (Arc::clone(from), Arc::clone(to), reason.clone().unwrap_or_default());
        MOVES.record(*key, SessionMove { at, from, to, reason });
    }
    EVENTS.record(change, at);
}

impl Default for EventList {
    fn default() -> Self {
        Self { events: Mutex::default(), last: watch::Sender::new(0) }
    }
}

impl EventList {
    /// Adds an event at that time. The oldest one goes when the list is full.
    pub fn record(&self, change: Change, at: u64) {
        let mut events = self.events.lock();
        let id = events.back().map_or(0, |last| last.id) + 1;
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(Event { id, at, change });
        // Under the lock, so that the number never falls.
        self.last.send_replace(id);
    }

    /// The events after the one with that id, oldest first. An id from before a restart may be above the last: then all.
    pub fn after(&self, id: u64) -> Vec<Event> {
        let events = self.events.lock();
        let last = events.back().map_or(0, |last| last.id);
        let after = if id > last { 0 } else { id };
        events.iter().filter(|event| event.id > after).cloned().collect()
    }

    /// The id of the last event; 0 while there is none.
    pub fn last_id(&self) -> u64 {
        *self.last.borrow()
    }

    /// Waits until there is an event after that one, or after the last one when that has a lower id.
    pub async fn grown(&self, id: u64) {
        let id = id.min(self.last_id());
        let mut last = self.last.subscribe();
        // The sender lives as long as the list.
        let _ = last.wait_for(|last| *last > id).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: usize) -> Change {
        Change::new(EventKind::Move).reason(&n.to_string())
    }

    #[test]
    fn the_list_keeps_the_last_thousand_and_numbers_all() {
        let list = EventList::default();
        for n in 1..=KEPT + 5 {
            list.record(change(n), 0);
        }
        let events = list.after(0);
        assert_eq!((events.len(), events[0].id, list.last_id()), (KEPT, 6, KEPT as u64 + 5));
        assert_eq!(list.after(KEPT as u64 + 3).iter().map(|event| event.id).collect::<Vec<_>>(), [1004, 1005]);
        assert_eq!(list.after(list.last_id()), []);
        assert_eq!(list.after(1_000_000).len(), KEPT, "a number of another process");
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_next_event() {
        let list = EventList::default();
        list.record(change(1), 0);
        list.grown(0).await;
        let (waited, ()) = tokio::join!(list.grown(1), async { list.record(change(2), 0) });
        assert_eq!(waited, ());
        assert_eq!(list.after(1)[0].change, change(2));
    }
}
