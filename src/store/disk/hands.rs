//! Puts sessions back on two threads, which with the one that reads is what a small machine can do at once.

use std::mem::take;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

use crate::session::key::SessionKey;
use crate::session::token::UnixMillis;
use crate::store::TableEntry;
use crate::store::local::table::Table;

use super::ReadError;

type Sessions = Vec<(SessionKey, TableEntry)>;

/// Who puts sessions back: whoever calls, and a helper.
pub(super) struct Hands<'t> {
    table: &'t Table,
    now: UnixMillis,
    helper: SyncSender<Sessions>,
    /// What the helper has done with, and how many of them are in.
    done: Receiver<(Sessions, u64)>,
    /// So many times the helper is not done yet.
    waited_for: usize,
    /// LocalStore for the next ones.
    spare: Sessions,
    back: u64,
}

/// Lets somebody work with a helper.
///
/// # Errors
/// Those of the work; the system's when it has no thread.
pub(super) fn with_help<T>(
    table: &Table,
    now: UnixMillis,
    work: impl FnOnce(&mut Hands<'_>) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    thread::scope(|scope| {
        // One in the helper's hands and one before them: of more one thread might be left with at the end.
        let (helper, given) = sync_channel(1);
        let (told, done) = channel();
        let help = move || help(table, now, &given, &told);
        thread::Builder::new().name("fill table".to_owned()).spawn_scoped(scope, help)?;
        // With the work these hands end, and so does the helper: nothing is put back after that.
        work(&mut Hands { table, now, helper, done, waited_for: 0, spare: Vec::new(), back: 0 })
    })
}

fn help(table: &Table, now: UnixMillis, given: &Receiver<Sessions>, done: &Sender<(Sessions, u64)>) {
    for mut sessions in given {
        let back = table.import(sessions.drain(..), now);
        if done.send((sessions, back)).is_err() {
            break;
        }
    }
}

impl Hands<'_> {
    /// Puts some sessions back, soon.
    pub(super) fn import(&mut self, sessions: impl Iterator<Item = (SessionKey, TableEntry)>) {
        let mut some = take(&mut self.spare);
        some.extend(sessions);
        match self.helper.try_send(some) {
            Ok(()) => self.waited_for += 1,
            Err(TrySendError::Full(mut some) | TrySendError::Disconnected(mut some)) => {
                self.back += self.table.import(some.drain(..), self.now);
                self.spare = some;
            }
        }
        while let Ok(done) = self.done.try_recv() {
            self.note(done);
        }
    }

    /// Waits until all are back, and says how many are in.
    pub(super) fn all_back(&mut self) -> u64 {
        while self.waited_for > 0 {
            let Ok(done) = self.done.recv() else { break };
            self.note(done);
        }
        self.back
    }

    fn note(&mut self, (emptied, back): (Sessions, u64)) {
        self.waited_for -= 1;
        self.back += back;
        self.spare = emptied;
    }
}
