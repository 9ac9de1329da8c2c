//! Requests that wait for a server, because it has as many in flight as it may have (`limits.max_requests_per_server`).
//!
//! A request waits for one server, its session's, or for any that takes new sessions. A slot that becomes free goes to the
//! request that has waited longest of those that it suits; a request that has just arrived does not overtake them. The queue
//! belongs to the pool's name and is carried over reloads. Its lock is taken only while a server is full.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The requests of a pool that wait; `S`: a slot at a server.
pub struct Queue<S> {
    /// How many there are. Raised before a waiting request looks for a free slot, and read after a slot was freed: one of the
    /// two sees the other.
    count: AtomicUsize,
    /// How many of them wait for any server.
    any: AtomicUsize,
    /// Slots that any-server requests were given so far.
    any_turns: AtomicU64,
    waiters: Mutex<Waiters<S>>,
}

/// A server's part of the queue.
#[derive(Default)]
pub struct Lane {
    /// Requests that wait for the server. Written under the queue's lock.
    queued: AtomicUsize,
    /// How many of them have got a slot so far.
    turns: AtomicU64,
}

struct Waiters<S> {
    /// The number of the next one: the order in which they came.
    next: u64,
    /// By the address of the server's lane, which the waiting request keeps alive.
    bound: HashMap<usize, VecDeque<Waiter<S>>>,
    any: VecDeque<Waiter<S>>,
}

struct Waiter<S> {
    number: u64,
    turn: oneshot::Sender<WaitEnd<S>>,
    /// Whether a server suits a request that waits for any.
    suits: Suits,
}

/// Whether a server suits a request that waits for any.
pub type Suits = Box<dyn Fn(&Arc<Lane>) -> bool + Send>;

/// What ends a wait.
pub enum WaitEnd<S> {
    /// The request has a slot.
    Slot(S),
    /// Its server takes no requests any more: another selection is due.
    Reselect,
}

/// A request that waits. Dropped, it leaves the queue; a slot that it was given goes on to the next.
pub struct QueuedRequest<S> {
    number: u64,
    queue: Arc<Queue<S>>,
    /// Of the server that it waits for; `None` = any.
    lane: Option<Arc<Lane>>,
    turns_before: u64,
    turn: oneshot::Receiver<WaitEnd<S>>,
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

impl Lane {
    /// Requests that wait for the server.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::SeqCst)
    }
}

impl<S> Default for Queue<S> {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            any: AtomicUsize::new(0),
            any_turns: AtomicU64::new(0),
            waiters: Mutex::new(Waiters { next: 0, bound: HashMap::new(), any: VecDeque::new() }),
        }
    }
}

impl<S> Queue<S> {
    /// Requests wait for any server.
    pub fn has_any(&self) -> bool {
        self.any.load(Ordering::SeqCst) > 0
    }

    /// How many requests wait for any server.
    pub fn any(&self) -> usize {
        self.any.load(Ordering::Relaxed)
    }

    /// No request waits.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// A request begins to wait for a server, of `max` at most. The caller lets it look for a free slot with
    /// [`dispatch`](Self::dispatch).
    pub fn wait_for(self: &Arc<Self>, lane: &Arc<Lane>, max: usize) -> Result<QueuedRequest<S>, QueueFull> {
        let mut waiters = self.waiters.lock();
        if lane.queued() >= max {
            return Err(QueueFull);
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        lane.queued.fetch_add(1, Ordering::SeqCst);
        let (number, turn, waiter) = waiters.waiter(Box::new(|_| true));
        waiters.bound.entry(key(lane)).or_default().push_back(waiter);
        let turns_before = lane.turns.load(Ordering::Relaxed);
        Ok(QueuedRequest { number, queue: Arc::clone(self), lane: Some(Arc::clone(lane)), turns_before, turn })
    }

    /// The same for any server that suits.
    pub fn wait_for_any(self: &Arc<Self>, suits: Suits, max: usize) -> Result<QueuedRequest<S>, QueueFull> {
        let mut waiters = self.waiters.lock();
        if self.any() >= max {
            return Err(QueueFull);
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        self.any.fetch_add(1, Ordering::SeqCst);
        let (number, turn, waiter) = waiters.waiter(suits);
        waiters.any.push_back(waiter);
        let turns_before = self.any_turns.load(Ordering::Relaxed);
        Ok(QueuedRequest { number, queue: Arc::clone(self), lane: None, turns_before, turn })
    }

    /// Gives the free slots of a server to the requests that have waited longest. `slot` takes one.
    pub fn dispatch(&self, lane: &Arc<Lane>, slot: impl Fn() -> Option<S>) {
        if self.is_empty() {
            return;
        }
        let mut waiters = self.waiters.lock();
        // A waiter that has left meanwhile gives its slot back, and must find the queue unlocked.
        let mut declined = Vec::new();
        while let Some(place) = waiters.next_for(lane) {
            let Some(slot) = slot() else { break };
            let Some(waiter) = waiters.take(place, lane) else {
                declined.push(WaitEnd::Slot(slot));
                break;
            };
            match place {
                Place::Server => {
                    self.leave_server(lane);
                    lane.turns.fetch_add(1, Ordering::Relaxed);
                }
                Place::Any(_) => {
                    self.leave_any();
                    self.any_turns.fetch_add(1, Ordering::Relaxed);
                }
            }
            if let Err(turn) = waiter.turn.send(WaitEnd::Slot(slot)) {
                declined.push(turn);
            }
        }
        drop(waiters);
        drop(declined);
    }

    /// The requests that wait for this server need another selection.
    pub fn dismiss(&self, lane: &Arc<Lane>) {
        let waiters = self.waiters.lock().bound.remove(&key(lane)).unwrap_or_default();
        for waiter in waiters {
            self.leave_server(lane);
            // An error means that it has left.
            let _ = waiter.turn.send(WaitEnd::Reselect);
        }
    }

    fn leave_server(&self, lane: &Lane) {
        lane.queued.fetch_sub(1, Ordering::SeqCst);
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    fn leave_any(&self) {
        self.any.fetch_sub(1, Ordering::SeqCst);
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where a waiter stands.
#[derive(Clone, Copy)]
enum Place {
    /// First of those that wait for the server.
    Server,
    /// At this position of those that wait for any.
    Any(usize),
}

impl<S> Waiters<S> {
    fn waiter(&mut self, suits: Suits) -> (u64, oneshot::Receiver<WaitEnd<S>>, Waiter<S>) {
        let (turn, receiver) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        (number, receiver, Waiter { number, turn, suits })
    }

    /// The one that has waited longest of those that the server suits.
    fn next_for(&self, lane: &Arc<Lane>) -> Option<Place> {
        let bound = self.bound.get(&key(lane)).and_then(VecDeque::front).map(|waiter| waiter.number);
        let any = self.any.iter().take_while(|waiter| bound.is_none_or(|bound| waiter.number < bound));
        let any = any.enumerate().find(|(_, waiter)| (waiter.suits)(lane)).map(|(position, _)| Place::Any(position));
        any.or(bound.map(|_| Place::Server))
    }

    fn take(&mut self, place: Place, lane: &Arc<Lane>) -> Option<Waiter<S>> {
        match place {
            Place::Any(position) => self.any.remove(position),
            Place::Server => {
                let waiters = self.bound.get_mut(&key(lane))?;
                let first = waiters.pop_front();
                if waiters.is_empty() {
                    self.bound.remove(&key(lane));
                }
                first
            }
        }
    }
}

impl<S> QueuedRequest<S> {
    /// Waits for the turn. May be awaited again after it was cancelled.
    pub async fn turn(&mut self) -> WaitEnd<S> {
        // The queue outlives its waiters and drops none of them without a word.
        (&mut self.turn).await.unwrap_or(WaitEnd::Reselect)
    }

    /// Of those that wait for the same: how many still do, and how many got a slot since this one came.
    pub fn progress(&self) -> (usize, u64) {
        match &self.lane {
            Some(lane) => (lane.queued(), lane.turns.load(Ordering::Relaxed).wrapping_sub(self.turns_before)),
            None => (self.queue.any(), self.queue.any_turns.load(Ordering::Relaxed).wrapping_sub(self.turns_before)),
        }
    }
}

impl<S> Drop for QueuedRequest<S> {
    fn drop(&mut self) {
        let mut waiters = self.queue.waiters.lock();
        match &self.lane {
            Some(lane) => {
                let Some(of_server) = waiters.bound.get_mut(&key(lane)) else { return };
                if remove(of_server, self.number) {
                    if of_server.is_empty() {
                        waiters.bound.remove(&key(lane));
                    }
                    self.queue.leave_server(lane);
                }
            }
            None => {
                if remove(&mut waiters.any, self.number) {
                    self.queue.leave_any();
                }
            }
        }
    }
}

fn remove<S>(waiters: &mut VecDeque<Waiter<S>>, number: u64) -> bool {
    let position = waiters.binary_search_by_key(&number, |waiter| waiter.number);
    position.is_ok_and(|position| waiters.remove(position).is_some())
}

fn key(lane: &Arc<Lane>) -> usize {
    Arc::as_ptr(lane).addr()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    /// A server with so many free slots.
    struct Bench {
        queue: Arc<Queue<()>>,
        lane: Arc<Lane>,
        free: Cell<usize>,
    }

    impl Bench {
        fn new() -> Self {
            Self { queue: Arc::default(), lane: Arc::default(), free: Cell::new(0) }
        }

        fn free(&self, slots: usize) {
            self.free.set(self.free.get() + slots);
            let slot = || self.free.get().checked_sub(1).map(|left| self.free.set(left));
            self.queue.dispatch(&self.lane, slot);
        }
    }

    fn has_slot(waiting: &mut QueuedRequest<()>) -> bool {
        let mut turn = Box::pin(waiting.turn());
        matches!(turn.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(WaitEnd::Slot(())))
    }

    #[test]
    fn the_longest_wait_ends_first_whatever_it_is_for() {
        let bench = Bench::new();
        let mut bound = bench.queue.wait_for(&bench.lane, 9).unwrap();
        let mut unsuitable = bench.queue.wait_for_any(Box::new(|_| false), 9).unwrap();
        let mut any = bench.queue.wait_for_any(Box::new(|_| true), 9).unwrap();
        let mut last = bench.queue.wait_for(&bench.lane, 9).unwrap();
        bench.free(1);
        assert!(has_slot(&mut bound) && !has_slot(&mut any) && !has_slot(&mut last));
        bench.free(1);
        assert!(has_slot(&mut any) && !has_slot(&mut last));
        assert_eq!(last.progress(), (1, 1));
        bench.free(2);
        assert!(has_slot(&mut last) && !has_slot(&mut unsuitable));
        assert_eq!(bench.free.get(), 1, "no request is left that it suits");
        drop(unsuitable);
        assert!(bench.queue.is_empty());
    }

    #[test]
    fn no_more_wait_than_may_and_one_that_leaves_makes_room() {
        let bench = Bench::new();
        let first = bench.queue.wait_for(&bench.lane, 2).unwrap();
        let _second = bench.queue.wait_for(&bench.lane, 2).unwrap();
        assert_eq!(bench.queue.wait_for(&bench.lane, 2).err(), Some(QueueFull));
        drop(first);
        let _third = bench.queue.wait_for(&bench.lane, 2).unwrap();
        let _any = bench.queue.wait_for_any(Box::new(|_| true), 1).unwrap();
        assert_eq!(bench.queue.wait_for_any(Box::new(|_| true), 1).err(), Some(QueueFull));
    }

    #[test]
    fn requests_of_a_server_that_is_gone_select_again() {
        let bench = Bench::new();
        let mut waiting = bench.queue.wait_for(&bench.lane, 2).unwrap();
        bench.queue.dismiss(&bench.lane);
        let mut turn = Box::pin(waiting.turn());
        let turn = turn.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(turn, Poll::Ready(WaitEnd::Reselect)));
        assert!(bench.queue.is_empty());
    }

    proptest! {
        /// Requests come, leave and get slots in any order.
        #[test]
        fn first_come_first_served(steps in prop::collection::vec((0u8..4, 0usize..8), 0..120)) {
            let bench = Bench::new();
            let mut waiting: VecDeque<QueuedRequest<()>> = VecDeque::new();
            for (step, at) in steps {
                match step {
                    0 | 1 => waiting.push_back(if at % 2 == 0 {
                        bench.queue.wait_for(&bench.lane, 100).unwrap()
                    } else {
                        bench.queue.wait_for_any(Box::new(|_| true), 100).unwrap()
                    }),
                    2 => {
                        waiting.remove(at);
                    }
                    _ => {
                        bench.free(1);
                        if let Some(mut first) = waiting.pop_front() {
                            prop_assert!(has_slot(&mut first));
                            prop_assert_eq!(bench.free.get(), 0);
                        } else {
                            bench.free.set(0);
                        }
                        prop_assert!(!waiting.iter_mut().any(has_slot), "one slot, one request");
                    }
                }
                prop_assert_eq!(bench.queue.is_empty(), waiting.is_empty());
                prop_assert_eq!(bench.lane.queued() + bench.queue.any(), waiting.len());
            }
        }
    }
}
