//! The view of the cluster, and routing: each request goes to the owner of its partition, and is retried when a member responds
//! with an error that allows it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::data;
use super::frame::Message;
use super::member::{Member, Route};
use super::request::{self, Credentials, GET};
use super::response::{Failure, answer};
use crate::store::engine::{Event, Name, OnEvent, StoreError};

/// State shared by the operations and the connection tasks.
pub(super) struct Cluster {
    pub(super) credentials: Credentials,
    pub(super) map: String,
    /// For each step of connecting.
    pub(super) patience: Duration,
    /// Written by the connection tasks.
    view: ArcSwap<View>,
    /// Notified when a connection is established or lost.
    pub(super) changed: Notify,
    /// A connection is subscribed. Relaxed: it only avoids a repeated event.
    subscribed: AtomicBool,
    /// The listener of entries is confirmed. Relaxed: it is read after an event.
    announces: AtomicBool,
    on_event: OnEvent,
    /// Set once, when the engine ends: no event comes after it.
    stopped: AtomicBool,
    /// The connection tasks. Locked for the time of a push.
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The members, and the owner of each partition.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) members: Vec<Arc<Member>>,
    /// Of each partition the index of its owner among the members.
    pub(super) owners: Box<[Option<usize>]>,
    /// "5.7.0".
    pub(super) version: Option<Arc<str>>,
}

/// Requests to one partition, processed in order and retried together.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) partition: i32,
    pub(super) requests: Vec<Vec<u8>>,
    /// The type of the first request, whose response decides whether all are retried.
    pub(super) kind: u32,
}

/// The pauses between retries. Callers have their own deadline.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
];
/// Calls in one batch of a connection, each of two requests at most.
const MAX_CALLS: usize = 8192;

impl Cluster {
    pub(super) fn new(credentials: Credentials, map: &str, patience: Duration, on_event: OnEvent) -> Self {
        Self {
            credentials,
            map: map.to_owned(),
            patience,
            view: ArcSwap::default(),
            changed: Notify::new(),
            subscribed: AtomicBool::new(false),
            announces: AtomicBool::new(false),
            on_event,
            stopped: AtomicBool::new(false),
            tasks: Mutex::default(),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub(super) fn set_view(&self, view: View) {
        self.view.store(Arc::new(view));
        self.changed.notify_waiters();
    }

    pub(super) fn emit(&self, event: Event) {
        if !self.stopped.load(Acquire) {
            (self.on_event)(event);
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed.load(Relaxed)
    }

    pub(super) fn set_subscribed(&self, subscribed: bool) {
        self.subscribed.store(subscribed, Relaxed);
    }

    pub(super) fn announces(&self) -> bool {
        self.announces.load(Relaxed)
    }

    pub(super) fn set_announces(&self, announces: bool) {
        self.announces.store(announces, Relaxed);
    }

    /// A task that ends with the engine.
    pub(super) fn watch(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        if self.stopped.load(Acquire) {
            task.abort();
        }
        tasks.push(task);
    }

    /// Ends all connections.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Release);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }

    pub(super) fn partitions(&self) -> i32 {
        i32::try_from(self.view.load().owners.len()).unwrap_or(i32::MAX)
    }

    /// Any established connection.
    pub(super) fn any(&self) -> Result<Connection, StoreError> {
        self.view.load().any()
    }

    /// Whether another member can forward requests to this one.
    pub(super) async fn reaches(&self, member: &Arc<Member>) -> bool {
        let view = self.view();
        let index = view.members.iter().position(|other| Arc::ptr_eq(other, member));
        let partition = view.owners.iter().position(|owner| owner.is_some() && *owner == index);
        let (Some(partition), Ok(connection)) = (partition.and_then(|at| i32::try_from(at).ok()), view.any()) else {
            return false;
        };
        // No session has this key.
        let key = data::key(&Name::from_stored(""));
        let asked = connection.ask(vec![request::get(&self.map, partition, &key)]);
        let answered = timeout(self.patience, asked).await;
        answered.is_ok_and(|answers| {
            answers.is_ok_and(|answers| answers.first().is_some_and(|one| answer(one, GET).is_ok()))
        })
    }

    /// The responses of one call.
    pub(super) async fn ask(&self, call: Call) -> Result<Vec<Message>, StoreError> {
        self.ask_all(vec![call]).await.pop().unwrap_or(Err(StoreError::Unsupported))
    }

    /// The responses of each call, in order. Retries calls that failed with a retryable error.
    pub(super) async fn ask_all(&self, calls: Vec<Call>) -> Vec<Result<Vec<Message>, StoreError>> {
        let mut results: Vec<_> = calls.iter().map(|_| Err(StoreError::Unsupported)).collect();
        let mut left: Vec<usize> = (0..calls.len()).collect();
        let mut pauses = PAUSES.iter();
        loop {
            let mut again = Vec::new();
            for (at, result) in self.round(&calls, &left).await {
                let redo = result.as_ref().is_ok_and(|answers| is_redo(answers, calls.get(at)));
                if redo {
                    again.push(at);
                }
                if let Some(place) = results.get_mut(at) {
                    *place = result;
                }
            }
            let Some(pause) = pauses.next().filter(|_| !again.is_empty()) else { return results };
            sleep(*pause).await;
            left = again;
        }
    }

    /// Sends these calls, grouped by connection.
    async fn round(&self, calls: &[Call], left: &[usize]) -> Vec<(usize, Result<Vec<Message>, StoreError>)> {
        let view = self.view();
        let mut by_connection: Vec<(Connection, Vec<usize>)> = Vec::new();
        let mut done = Vec::with_capacity(left.len());
        for (at, call) in left.iter().filter_map(|at| Some((*at, calls.get(*at)?))) {
            match view.route(call.partition) {
                Ok(connection) => {
                    match by_connection.iter_mut().find(|(other, some)| other.is(&connection) && some.len() < MAX_CALLS)
                    {
                        Some((_, calls)) => calls.push(at),
                        None => by_connection.push((connection, vec![at])),
                    }
                }
                Err(error) => done.push((at, Err(error))),
            }
        }
        let asked = by_connection.iter().map(|(connection, some)| async move {
            let some = some.iter().filter_map(|at| Some((*at, calls.get(*at)?)));
            ask_together(connection, some.collect()).await
        });
        done.extend(join_all(asked).await.into_iter().flatten());
        done
    }
}

async fn ask_together(
    connection: &Connection,
    calls: Vec<(usize, &Call)>,
) -> Vec<(usize, Result<Vec<Message>, StoreError>)> {
    let requests = calls.iter().flat_map(|(_, call)| call.requests.iter().cloned()).collect();
    match connection.ask(requests).await {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            calls.into_iter().map(|(at, call)| (at, Ok(answers.by_ref().take(call.requests.len()).collect()))).collect()
        }
        Err(error) => calls.into_iter().map(|(at, _)| (at, Err(error.clone()))).collect(),
    }
}

/// Whether the response is a retryable error.
fn is_redo(answers: &[Message], call: Option<&Call>) -> bool {
    let first = answers.first().zip(call).map(|(first, call)| answer(first, call.kind).map(drop));
    matches!(first, Some(Err(Failure::Redo(_))))
}

impl View {
    fn any(&self) -> Result<Connection, StoreError> {
        let mut why = StoreError::Unreachable("no member of Hazelcast was reached yet".to_owned());
        for member in &self.members {
            match member.route() {
                Route::Direct(connection) => return Ok(connection),
                Route::Lost(error) => why = error,
                Route::Forwarded => {}
            }
        }
        Err(why)
    }

    fn route(&self, partition: i32) -> Result<Connection, StoreError> {
        let owner = usize::try_from(partition).ok().and_then(|partition| *self.owners.get(partition)?);
        match owner.and_then(|owner| self.members.get(owner)).map(|member| member.route()) {
            Some(Route::Direct(connection)) => Ok(connection),
            Some(Route::Lost(error)) => Err(error),
            Some(Route::Forwarded) | None => self.any(),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn requests_go_to_the_owner_and_by_others_only_where_it_is_not_known_to_be_lost() {
        let members: Vec<_> = (1..=3).map(|id| Arc::new(Member::new(Uuid::from_u128(id), "x:1"))).collect();
        let [(first, _f), (second, _s)] = [(); 2].map(|()| Connection::new("x".into()));
        let owners = [Some(0), Some(1), Some(2), None].into();
        let view = View { members: members.clone(), owners, version: None };
        assert!(view.any().is_err() && view.route(0).is_err(), "none was reached yet");
        members[0].set_route(Route::Direct(first.clone()));
        members[1].set_route(Route::Direct(second.clone()));
        let to = |partition| view.route(partition).ok().map(|connection| if connection.is(&first) { 1 } else { 2 });
        assert_eq!([0, 1, 2, 3, -1, 99].map(to), [Some(1), Some(2), Some(1), Some(1), Some(1), Some(1)]);
        members[2].set_route(Route::Lost(StoreError::Unreachable("gone".to_owned())));
        assert_eq!(view.route(2).err(), Some(StoreError::Unreachable("gone".to_owned())), "at once");
        members[0].set_route(Route::Forwarded);
        assert_eq!(to(0), Some(2), "passed on by the second");
    }
}
