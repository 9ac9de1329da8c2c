//! Loading a snapshot into an empty table, on two threads besides the reader: what a small machine can do at once.

use std::io::{self, Read, Seek};
use std::mem::take;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::local::data::DataRecord;
use crate::store::local::table::Table;
use crate::store::targets::TargetIndex;

use super::format::{EndBlock, LocalStore, ReadError, Session, SessionCounts};
use super::read::{BlockContents, Blocks, Decoder, each_block, read_end};

/// What is loaded of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadScope {
    /// Nothing: it no longer exists, or has no persistence.
    Skip,
    /// Sessions: it has no handoff.
    Sessions,
    /// Sessions and their data.
    SessionsAndData,
}

/// The result of [`load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadResult {
    /// Loaded.
    pub loaded: SessionCounts,
    /// Skipped: of pools out of scope, of sessions that have expired, or beyond the capacity.
    pub skipped: SessionCounts,
    /// When the snapshot was taken.
    pub taken_at: UnixMillis,
}

/// Loads a snapshot into an unused store: per pool what `scope` says, of sessions within their limits `now`, and when they
/// exceed the capacity, the most recently seen. All or nothing: when the input turns out to be damaged, everything is removed
/// again.
///
/// The input is read once, or twice when it exceeds the capacity.
///
/// # Errors
/// When the input is invalid; the store is as empty as before.
pub fn load(
    store: LocalStore<'_>,
    mut input: impl Read + Seek + Send,
    now: UnixMillis,
    scope: &dyn Fn(&str) -> LoadScope,
) -> Result<LoadResult, ReadError> {
    let LocalStore { table, data } = store;
    let mut intern =
        |pool: &str, server: &str| (scope(pool) != LoadScope::Skip).then(|| table.target(pool, server).index());
    let end = match read_end(&mut input)? {
        Some(end) => end,
        // Invalid: read it to find the error.
        None => each(&mut input, &mut |_, _| None, &mut |_| ())?,
    };
    let count = usize::try_from(end.sessions).unwrap_or(usize::MAX);
    let mut newest =
        if count <= table.capacity() { Newest::all() } else { Newest::of(table.capacity(), &mut input, &mut intern)? };
    table.reserve(count);
    let with_data = |target| table.target_at(target).is_some_and(|at| scope(at.pool()) == LoadScope::SessionsAndData);
    let result = with_helper(table, now, |importer| {
        let read = each(&mut input, &mut intern, &mut |items: Items<'_>| match items {
            Items::Sessions(all) => importer.import(all.filter(|(_, entry)| newest.accepts(entry.last_seen))),
            Items::Datum(record) if with_data(record.owner.pool) => {
                // The import of data asks the table when a session was last seen.
                importer.finish();
                data.import(record, table, now);
            }
            Items::Datum(_) => {}
        })?;
        if read == end {
            importer.finish();
            Ok(())
        } else {
            Err(ReadError::Io(io::Error::other("it changed while it was read")))
        }
    });
    result.inspect_err(|_| {
        table.clear();
        data.clear();
    })?;
    // What is in the file twice is loaded once.
    let loaded = SessionCounts { sessions: table.len() as u64, data: data.len() as u64 };
    let skipped = SessionCounts {
        sessions: end.sessions.saturating_sub(loaded.sessions),
        data: end.data.saturating_sub(loaded.data),
    };
    Ok(LoadResult { loaded, skipped, taken_at: end.taken })
}

/// The contents of a snapshot, a block of sessions or one datum at a time.
enum Items<'i> {
    Sessions(&'i mut dyn Iterator<Item = (SessionKey, TableEntry)>),
    Datum(DataRecord),
}

/// Reads the whole input, and shows what belongs to targets that `intern` returns an index for. Returns the end block.
fn each(
    input: &mut (impl Read + Seek + Send),
    intern: &mut dyn FnMut(&str, &str) -> Option<TargetIndex>,
    show: &mut dyn FnMut(Items<'_>),
) -> Result<EndBlock, ReadError> {
    input.rewind()?;
    let blocks = Blocks::open(input)?;
    let mut decoder = Decoder::new(blocks.version());
    let mut targets = Vec::new();
    each_block(blocks, |block| {
        match decoder.decode(block)? {
            BlockContents::Targets(named) => targets.extend(named.iter().map(|(pool, server)| intern(pool, server))),
            BlockContents::Sessions(sessions) => {
                let placed =
                    |session: Session| Some((session.key, session.entry(target_of(session.target, &targets)?)));
                show(Items::Sessions(&mut sessions.filter_map(placed)));
            }
            BlockContents::Data(data) => {
                let located = data.into_iter().filter_map(|one| Some((target_of(one.session.target, &targets)?, one)));
                located.for_each(|(target, one)| show(Items::Datum(one.record(target))));
            }
            BlockContents::End(end) => return Ok(Some(end)),
        }
        Ok(None)
    })
}

fn target_of(number: u32, targets: &[Option<TargetIndex>]) -> Option<TargetIndex> {
    targets.get(usize::try_from(number).ok()?).copied().flatten()
}

/// The most recently seen sessions: those seen after `since`, and so many of those seen at that moment.
struct Newest {
    since: UnixMillis,
    at_since: usize,
}

impl Newest {
    fn all() -> Self {
        Self { since: UnixMillis(0), at_since: usize::MAX }
    }

    /// Collects the times of all sessions meanwhile: eight bytes each.
    fn of(
        capacity: usize,
        input: &mut (impl Read + Seek + Send),
        intern: &mut dyn FnMut(&str, &str) -> Option<TargetIndex>,
    ) -> Result<Self, ReadError> {
        let mut times = Vec::new();
        each(input, intern, &mut |items| {
            if let Items::Sessions(sessions) = items {
                times.extend(sessions.map(|(_, entry)| entry.last_seen));
            }
        })?;
        let surplus = times.len().saturating_sub(capacity);
        if surplus == 0 {
            return Ok(Self::all());
        }
        if capacity == 0 {
            return Ok(Self { since: UnixMillis(u64::MAX), at_since: 0 });
        }
        let (_, since, later) = times.select_nth_unstable(surplus);
        let since = *since;
        let later = later.iter().filter(|time| **time > since).count();
        Ok(Self { since, at_since: capacity - later })
    }

    fn accepts(&mut self, last_seen: UnixMillis) -> bool {
        if last_seen != self.since {
            return last_seen > self.since;
        }
        let accepts = self.at_since > 0;
        self.at_since = self.at_since.saturating_sub(1);
        accepts
    }
}

type Sessions = Vec<(SessionKey, TableEntry)>;

/// Imports sessions on this thread and on a helper.
struct Importer<'t> {
    table: &'t Table,
    now: UnixMillis,
    helper: SyncSender<Sessions>,
    /// Batches that the helper has finished, emptied.
    done: Receiver<Sessions>,
    /// Batches that the helper has not finished.
    outstanding: usize,
    /// Memory for the next batch.
    spare: Sessions,
}

/// Runs `work` with a helper thread.
///
/// # Errors
/// Those of `work`; the system's when it cannot start a thread.
fn with_helper<T>(
    table: &Table,
    now: UnixMillis,
    work: impl FnOnce(&mut Importer<'_>) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    thread::scope(|scope| {
        // One batch in progress and one queued: more could leave one thread alone with them at the end.
        let (helper, batches) = sync_channel(1);
        let (finished, done) = channel();
        let help = move || help(table, now, &batches, &finished);
        thread::Builder::new().name("fill table".to_owned()).spawn_scoped(scope, help)?;
        // Dropping the importer after `work` ends the helper.
        work(&mut Importer { table, now, helper, done, outstanding: 0, spare: Vec::new() })
    })
}

fn help(table: &Table, now: UnixMillis, batches: &Receiver<Sessions>, finished: &Sender<Sessions>) {
    for mut sessions in batches {
        table.import(sessions.drain(..), now);
        if finished.send(sessions).is_err() {
            break;
        }
    }
}

impl Importer<'_> {
    /// Queues a batch for the helper, or imports it here when the helper is busy.
    fn import(&mut self, sessions: impl Iterator<Item = (SessionKey, TableEntry)>) {
        let mut batch = take(&mut self.spare);
        batch.extend(sessions);
        match self.helper.try_send(batch) {
            Ok(()) => self.outstanding += 1,
            Err(TrySendError::Full(mut batch) | TrySendError::Disconnected(mut batch)) => {
                self.table.import(batch.drain(..), self.now);
                self.spare = batch;
            }
        }
        while let Ok(done) = self.done.try_recv() {
            self.record(done);
        }
    }

    /// Waits for all batches.
    fn finish(&mut self) {
        while self.outstanding > 0 {
            let Ok(done) = self.done.recv() else { break };
            self.record(done);
        }
    }

    fn record(&mut self, emptied: Sessions) {
        self.outstanding -= 1;
        self.spare = emptied;
    }
}
