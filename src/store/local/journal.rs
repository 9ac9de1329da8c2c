//! Which sessions change, for a process that takes over from this one, or that this one took over from.
//!
//! Without such a process a change costs one test of a flag. A subscriber reads the session itself, by its key: what counts is
//! how it is then, and of two changes the second read finds the result of both.
//!
//! While clients may come to either process, a change is confirmed by the other one before the request goes on, so that the
//! client's next request finds its session wherever it arrives. Requests do not wait for a process that is behind: it may hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use parking_lot::RwLock;

use crate::session::key::SessionKey;

/// A session that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalEntry {
    /// It is new, or bound to another server.
    Session(SessionKey),
    /// It is no longer in the table.
    Removal(SessionKey),
    /// The data that its server handed over.
    Data(SessionKey),
}

/// How long a request waits for the other process.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(100);
/// Changes that a subscriber may be behind. Some seconds of a busy proxy, in a few megabytes.
const BACKLOG: usize = 1 << 17;

/// Passes changes on to its subscribers. Share it in an `Arc`.
#[derive(Debug, Default)]
pub struct Journal {
    /// Whether there are subscribers. Relaxed: a change that is noted after a shard was copied finds the lock of the shard
    /// released by the copy, and with it the flag.
    active: AtomicBool,
    subscribers: RwLock<Vec<Subscriber>>,
    next: AtomicU64,
}

/// A change for a subscriber.
#[derive(Debug)]
pub struct Notice {
    /// The change; `None` = only the confirmation that all before it have been applied.
    pub entry: Option<JournalEntry>,
    /// Gets a word when the other process has applied it.
    pub confirmation: Option<SyncSender<()>>,
}

#[derive(Debug)]
struct Subscriber {
    id: u64,
    sender: SyncSender<Notice>,
    state: Arc<SubscriberState>,
}

#[derive(Debug, Default)]
struct SubscriberState {
    /// Changes are confirmed.
    confirms: AtomicBool,
    /// A confirmation did not come in time: none is waited for until the process has caught up.
    behind: AtomicBool,
    lost: AtomicU64,
}

/// What changes, until it is dropped.
pub struct Subscription {
    /// The changes.
    pub changes: Receiver<Notice>,
    handle: SubscriptionHandle,
}

/// Changes or ends a subscription, from anywhere.
#[derive(Debug, Clone)]
pub struct SubscriptionHandle {
    journal: Arc<Journal>,
    id: u64,
    state: Arc<SubscriberState>,
}

impl Journal {
    /// Notes a change, after it was made.
    #[inline]
    pub fn note(&self, entry: JournalEntry) {
        if self.active.load(Ordering::Relaxed) {
            self.publish(entry, None);
        }
    }

    /// Passes a change on that came from the process of one subscriber: to all others.
    pub fn forward(&self, entry: JournalEntry, from: u64) {
        self.publish(entry, Some(from));
    }

    /// All changes from now on.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        let (sender, changes) = sync_channel(BACKLOG);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(SubscriberState::default());
        let mut subscribers = self.subscribers.write();
        subscribers.push(Subscriber { id, sender, state: Arc::clone(&state) });
        self.active.store(true, Ordering::Relaxed);
        Subscription { changes, handle: SubscriptionHandle { journal: Arc::clone(self), id, state } }
    }

    #[cold]
    fn publish(&self, entry: JournalEntry, except: Option<u64>) {
        let mut awaited: Vec<(Receiver<()>, Arc<SubscriberState>)> = Vec::new();
        for one in self.subscribers.read().iter().filter(|one| Some(one.id) != except) {
            // One that is behind is asked, too: that it answers shows that it has caught up.
            let confirmed = one.send(Some(entry), one.state.confirms.load(Ordering::Relaxed));
            let confirmed = confirmed.filter(|_| !one.state.behind.load(Ordering::Relaxed));
            awaited.extend(confirmed.map(|confirmed| (confirmed, Arc::clone(&one.state))));
        }
        for (confirmed, state) in awaited {
            // Another error means that the other process has ended.
            if confirmed.recv_timeout(CONFIRM_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                state.behind.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Subscriber {
    fn send(&self, entry: Option<JournalEntry>, confirms: bool) -> Option<Receiver<()>> {
        let (confirmation, confirmed) = if confirms { Some(sync_channel(1)).unzip() } else { (None, None) };
        // A request must not wait for another process without end.
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Notice { entry, confirmation }) {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
        confirmed
    }
}

impl Subscription {
    /// Changes or ends it.
    pub const fn handle(&self) -> &SubscriptionHandle {
        &self.handle
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.end();
    }
}

impl SubscriptionHandle {
    /// Names it to the journal.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether requests wait until their changes are confirmed, from now on.
    pub fn set_confirming(&self, confirming: bool) {
        self.state.confirms.store(confirming, Ordering::Relaxed);
    }

    /// The other process has confirmed all that it was asked to confirm.
    pub fn note_caught_up(&self) {
        self.state.behind.store(false, Ordering::Relaxed);
    }

    /// Waits until everything that was noted before has been applied. False when that took too long.
    pub fn await_all(&self, timeout: Duration) -> bool {
        let subscribers = self.journal.subscribers.read();
        let confirmed = subscribers.iter().find(|one| one.id == self.id).and_then(|one| one.send(None, true));
        drop(subscribers);
        confirmed.is_some_and(|confirmed| confirmed.recv_timeout(timeout).is_ok())
    }

    /// Ends the subscription: its receiver gets what was noted before, then an error.
    pub fn end(&self) {
        let mut subscribers = self.journal.subscribers.write();
        subscribers.retain(|one| one.id != self.id);
        self.journal.active.store(!subscribers.is_empty(), Ordering::Relaxed);
    }

    /// Changes that were not passed on, because the subscriber was too slow.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: JournalEntry = JournalEntry::Session(SessionKey(1));
    const TWO: JournalEntry = JournalEntry::Removal(SessionKey(2));

    fn read(subscription: &Subscription) -> Vec<JournalEntry> {
        subscription.changes.try_iter().filter_map(|notice| notice.entry).collect()
    }

    #[test]
    fn a_subscriber_gets_what_changes_while_it_is_one() {
        let journal = Arc::new(Journal::default());
        journal.note(ONE);
        let first = journal.subscribe();
        journal.note(TWO);
        let second = journal.subscribe();
        journal.note(ONE);
        assert_eq!((read(&first), read(&second)), (vec![TWO, ONE], vec![ONE]));
        journal.note(TWO);
        first.handle().end();
        journal.note(ONE);
        assert_eq!((read(&first), read(&second)), (vec![TWO], vec![TWO, ONE]));
        drop(second);
        assert!(!journal.active.load(Ordering::Relaxed), "a change costs nothing again");
    }

    #[test]
    fn what_came_from_a_subscriber_goes_to_the_others_only() {
        let journal = Arc::new(Journal::default());
        let (from, other) = (journal.subscribe(), journal.subscribe());
        journal.forward(ONE, from.handle().id());
        assert_eq!((read(&from), read(&other)), (vec![], vec![ONE]));
    }

    #[test]
    fn a_slow_subscriber_delays_no_request_and_its_loss_is_counted() {
        let journal = Arc::new(Journal::default());
        let slow = journal.subscribe();
        for _ in 0..BACKLOG + 3 {
            journal.note(ONE);
        }
        assert_eq!((slow.handle().lost(), read(&slow).len()), (3, BACKLOG));
    }

    #[test]
    fn one_request_waits_for_a_process_that_hangs_and_no_other_until_it_has_caught_up() {
        let journal = Arc::new(Journal::default());
        let subscription = journal.subscribe();
        let handle = subscription.handle().clone();
        handle.set_confirming(true);
        let hang = std::time::Instant::now();
        (0..100).for_each(|_| journal.note(ONE));
        assert!((CONFIRM_TIMEOUT..CONFIRM_TIMEOUT * 10).contains(&hang.elapsed()), "{:?}", hang.elapsed());
        assert_eq!(subscription.changes.try_iter().filter(|notice| notice.confirmation.is_some()).count(), 100);
        handle.note_caught_up();
        let again = std::time::Instant::now();
        (0..100).for_each(|_| journal.note(ONE));
        assert!((CONFIRM_TIMEOUT..CONFIRM_TIMEOUT * 10).contains(&again.elapsed()), "{:?}", again.elapsed());
    }

    #[test]
    fn a_change_is_confirmed_before_its_request_goes_on() {
        let journal = Arc::new(Journal::default());
        let subscription = journal.subscribe();
        let handle = subscription.handle().clone();
        handle.set_confirming(true);
        let applied = Arc::new(AtomicU64::new(0));
        let of_other = Arc::clone(&applied);
        let other = std::thread::spawn(move || {
            for notice in subscription.changes.iter().take(3) {
                of_other.fetch_add(1, Ordering::SeqCst);
                notice.confirmation.unwrap().send(()).unwrap();
            }
        });
        journal.note(ONE);
        assert_eq!(applied.load(Ordering::SeqCst), 1);
        journal.note(TWO);
        assert_eq!(applied.load(Ordering::SeqCst), 2);
        assert!(handle.await_all(Duration::from_secs(10)));
        other.join().unwrap();
        journal.note(ONE);
        assert!(!handle.await_all(Duration::from_secs(10)), "the other process has ended: nothing is waited for");
    }
}
