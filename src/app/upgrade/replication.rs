//! What changes in one of the two processes is told to the other while both run: a session that a client began at the one
//! process is known when the client's next request arrives at the other.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;

use super::channel::Channel;
use super::message::{Bytes, DataChange, Key, Message, SessionChange};
use crate::app::state::AppState;
use crate::proxy::context::wall_clock;
use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::local::data::{DataRecord, HandoffPayload, Owner};
use crate::store::local::journal::{JournalEntry, Notice, Subscription, SubscriptionHandle};
use crate::store::targets::Target;
use crate::store::{TableEntry, TableLookup};

/// The message of a change; `None` when there is nothing left to tell.
fn message(app: &AppState, entry: JournalEntry) -> Option<Message> {
    let table = &app.sessions.table;
    match entry {
        JournalEntry::Session(key) => {
            let TableLookup::Live(found) = table.find(&key, wall_clock()) else { return None };
            let target = table.target_at(found.target)?;
            Some(Message::Session(SessionChange {
                key: Key(key),
                pool: target.pool().to_owned(),
                server: target.server().to_string(),
                epoch: found.epoch,
                created: found.created.0,
                seen: found.last_seen.0,
            }))
        }
        JournalEntry::Removal(key) => match table.find(&key, wall_clock()) {
            // It began again.
            TableLookup::Live(_) => None,
            _ => Some(Message::Removal(Key(key))),
        },
        JournalEntry::Data(key) => {
            let record = app.sessions.data.copy_one(&key)?;
            let bytes = |value: Option<HeaderValue>| value.map(|value| Bytes(value.as_bytes().to_vec()));
            Some(Message::Data(DataChange {
                key: Key(key),
                pool: table.target_at(record.owner.pool)?.pool().to_owned(),
                epoch: record.owner.epoch,
                created: record.owner.created.0,
                seen: record.seen.0,
                data: bytes(record.payload.data),
                moved_header: bytes(record.payload.moved_header),
            }))
        }
    }
}

/// Applies a change of the other process, and passes it on to others. `from`: the subscription of that process.
fn apply(app: &AppState, message: Message, from: u64) {
    let (table, data, now) = (&app.sessions.table, &app.sessions.data, wall_clock());
    let changed = match message {
        Message::Session(change) => target(app, &change.pool, &change.server).map(|target| {
            let entry = TableEntry {
                target: target.index(),
                epoch: change.epoch,
                created: UnixMillis(change.created),
                last_seen: UnixMillis(change.seen),
            };
            table.import(std::iter::once((change.key.0, entry)), now);
            if target.is_tombstone() {
                data.forget(&change.key.0);
            }
            JournalEntry::Session(change.key.0)
        }),
        Message::Removal(Key(key)) => {
            table.remove_remote(&key);
            data.forget(&key);
            Some(JournalEntry::Removal(key))
        }
        Message::Data(change) => data_record(app, change).map(|record| {
            let key = record.owner.key;
            data.import(record, table, now);
            JournalEntry::Data(key)
        }),
        _ => None,
    };
    if let Some(entry) = changed {
        table.journal().forward(entry, from);
    }
}

/// The target, unless this process has no such pool.
fn target(app: &AppState, pool: &str, server: &str) -> Option<Arc<Target>> {
    let runtime = app.current.load();
    let keeps_sessions = runtime.pools.iter().any(|one| &*one.pool.name == pool && one.persistence.is_some());
    keeps_sessions.then(|| app.sessions.table.target(pool, server))
}

fn data_record(app: &AppState, change: DataChange) -> Option<DataRecord> {
    let keeps_data =
        app.current.load().pools.iter().any(|one| {
            *one.pool.name == *change.pool && one.persistence.as_ref().is_some_and(|one| one.handoff.is_some())
        });
    let value = |bytes: Option<Bytes>| bytes.map(|bytes| HeaderValue::from_bytes(&bytes.0)).transpose().ok();
    let payload = HandoffPayload { moved_header: value(change.moved_header)?, data: value(change.data)? };
    let key: SessionKey = change.key.0;
    let (epoch, created) = (change.epoch, UnixMillis(change.created));
    let pool = keeps_data.then(|| app.sessions.table.target(&change.pool, "").index())?;
    Some(DataRecord { owner: Owner { key, epoch, created, pool }, seen: UnixMillis(change.seen), payload })
}

/// Tells the other process what changes and applies what it tells, until one of them ends. All other messages go through it
/// too.
pub(in crate::app) struct Replication {
    output: Output,
    subscription: SubscriptionHandle,
    /// Messages that are no changes.
    messages: Receiver<Message>,
    writer: JoinHandle<()>,
}

/// The way to the other process, shared by all threads.
type Output = Arc<Mutex<Channel>>;

/// Changes that wait for a [`Message::Pong`], in order.
type Unconfirmed = Arc<Mutex<VecDeque<SyncSender<()>>>>;

impl Replication {
    /// Begins with what was noted since the subscription began.
    pub(super) fn start(app: &Arc<AppState>, channel: Channel, subscription: Subscription) -> io::Result<Self> {
        let handle = subscription.handle().clone();
        let mut input = channel.try_clone()?;
        let (output, unconfirmed): (Output, Unconfirmed) = (Arc::new(Mutex::new(channel)), Arc::default());
        let (sender, messages) = mpsc::channel();
        let reader = Reader {
            app: Arc::clone(app),
            subscription: handle.clone(),
            output: Arc::clone(&output),
            unconfirmed: Arc::clone(&unconfirmed),
        };
        thread::Builder::new().name("upgrade reader".to_owned()).spawn(move || {
            while let Ok(message) = input.receive(None) {
                if reader.take(message, &sender).is_err() {
                    break;
                }
            }
            // The other process has ended, and needs no changes.
            reader.subscription.end();
            reader.unconfirmed.lock().clear();
        })?;
        let (app, to_other) = (Arc::clone(app), Arc::clone(&output));
        let writer = thread::Builder::new()
            .name("upgrade writer".to_owned())
            .spawn(move || write_changes(&app, &to_other, &unconfirmed, &subscription))?;
        Ok(Self { output, subscription: handle, messages, writer })
    }

    /// The changes.
    pub(super) const fn subscription(&self) -> &SubscriptionHandle {
        &self.subscription
    }

    /// Whether the other process has ended.
    pub(super) fn is_over(&self) -> bool {
        self.writer.is_finished()
    }

    /// Sends a message that is no change.
    pub(super) fn send(&self, message: &Message) -> io::Result<()> {
        self.output.lock().send(message)
    }

    /// Waits for a message that is no change.
    pub(super) fn receive(&self, timeout: Duration) -> io::Result<Message> {
        self.messages.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => ErrorKind::TimedOut.into(),
            RecvTimeoutError::Disconnected => ErrorKind::UnexpectedEof.into(),
        })
    }

    /// Tells the other process what is left, and ends.
    pub(in crate::app) fn finish(self) {
        self.subscription.end();
        let _ = self.writer.join();
        self.output.lock().close();
    }
}

/// Takes what the other process sends.
struct Reader {
    app: Arc<AppState>,
    subscription: SubscriptionHandle,
    output: Output,
    unconfirmed: Unconfirmed,
}

impl Reader {
    fn take(&self, message: Message, messages: &mpsc::Sender<Message>) -> io::Result<()> {
        match message {
            Message::Ping => self.output.lock().send(&Message::Pong)?,
            Message::Pong => {
                let (confirmation, is_last) = {
                    let mut unconfirmed = self.unconfirmed.lock();
                    (unconfirmed.pop_front(), unconfirmed.is_empty())
                };
                // The request may wait no more.
                let _ = confirmation.map(|confirmation| confirmation.try_send(()));
                if is_last {
                    self.subscription.note_caught_up();
                }
            }
            change @ (Message::Session(_) | Message::Removal(_) | Message::Data(_)) => {
                apply(&self.app, change, self.subscription.id());
            }
            other => drop(messages.send(other)),
        }
        Ok(())
    }
}

fn write_changes(app: &AppState, output: &Output, unconfirmed: &Unconfirmed, subscription: &Subscription) {
    for Notice { entry, confirmation } in &subscription.changes {
        let change = entry.and_then(|entry| message(app, entry));
        let mut output = output.lock();
        let mut sent = change.map_or(Ok(()), |change| output.send(&change));
        if let Some(confirmation) = confirmation {
            unconfirmed.lock().push_back(confirmation);
            sent = sent.and_then(|()| output.send(&Message::Ping));
        }
        if sent.is_err() {
            break;
        }
    }
    unconfirmed.lock().clear();
    let sessions = subscription.handle().lost();
    if sessions > 0 {
        tracing::warn!(sessions, "the other process was too slow for some changes of sessions");
    }
}
