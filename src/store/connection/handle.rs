//! The handle of a connection: requests are messages to its task, each with a channel for the responses.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::{mpsc, oneshot};

use super::codec::Codec;
use crate::store::engine::StoreError;

/// A handle to send requests. A caller that gives up drops only its channel: its responses are still read and discarded, so every
/// other response is matched to its request.
pub(in crate::store) struct Connection<C: Codec> {
    requests: mpsc::Sender<Request<C>>,
    /// "memcached at 127.0.0.1:11211".
    label: Arc<str>,
    /// Guarded calls in a row whose callers gave up before any response. Relaxed: only a recent trend.
    abandoned: Arc<AtomicU32>,
}

/// After this many, guarded calls fail at once until the server answers again or the probe ends the connection.
pub(super) const MAX_ABANDONED: u32 = 4;
/// Requests queued for the task. A full queue applies backpressure, like a full socket.
const QUEUE_CAPACITY: usize = 1024;

/// The receiving end, for the connection's task.
pub(in crate::store) struct Requests<C: Codec> {
    pub(super) queue: mpsc::Receiver<Request<C>>,
    /// Shared with [`Connection`].
    pub(super) abandoned: Arc<AtomicU32>,
}

/// A queued batch.
pub(super) struct Request<C: Codec> {
    pub(super) batch: C::Batch,
    pub(super) reply: Reply<C::Response>,
}

pub(super) type Reply<R> = oneshot::Sender<Result<Vec<R>, StoreError>>;

/// Counts a caller that gives up.
struct AbandonGuard<'a> {
    abandoned: &'a AtomicU32,
    answered: bool,
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.abandoned.fetch_add(1, Relaxed);
        }
    }
}

impl<C: Codec> Connection<C> {
    /// Without a task yet.
    pub(in crate::store) fn new(label: Arc<str>) -> (Self, Requests<C>) {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let abandoned = Arc::default();
        let requests = Requests { queue: receiver, abandoned: Arc::clone(&abandoned) };
        (Self { requests: sender, label, abandoned }, requests)
    }

    /// The responses, one for each request of the batch, in order.
    ///
    /// # Errors
    /// When the connection ends before all of them have come.
    pub(in crate::store) async fn call(&self, batch: C::Batch) -> Result<Vec<C::Response>, StoreError> {
        let (reply, responses) = oneshot::channel();
        let gone = || StoreError::Unreachable(format!("{}: the connection has ended", self.label));
        self.requests.send(Request { batch, reply }).await.map_err(|_closed| gone())?;
        responses.await.map_err(|_dropped| gone())?
    }

    /// The same for one server of several: fails at once when that one answers nothing, so that its requests do not wait, and the
    /// breaker before the whole store stays closed.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(in crate::store) async fn guarded_call(&self, batch: C::Batch) -> Result<Vec<C::Response>, StoreError> {
        if self.abandoned.load(Relaxed) >= MAX_ABANDONED {
            return Err(StoreError::Unreachable(format!("{}: it does not answer", self.label)));
        }
        let mut guard = AbandonGuard { abandoned: &self.abandoned, answered: false };
        let responses = self.call(batch).await;
        guard.answered = true;
        responses
    }

    /// The server's name in logs and errors.
    pub(in crate::store) fn label(&self) -> &str {
        &self.label
    }

    /// Waits for its end.
    pub(in crate::store) async fn closed(&self) {
        self.requests.closed().await;
    }

    /// Whether both are the same.
    pub(in crate::store) fn is(&self, other: &Self) -> bool {
        self.requests.same_channel(&other.requests)
    }
}

impl<C: Codec> Clone for Connection<C> {
    fn clone(&self) -> Self {
        let Self { requests, label, abandoned } = self;
        Self { requests: requests.clone(), label: Arc::clone(label), abandoned: Arc::clone(abandoned) }
    }
}
