//! One connection shared by all requests to a server: they are written as they come, and answered in order.
//!
//! A task owns the socket ([`drive`]). A request is a message to it with a channel for the responses. A caller that gives up
//! drops only that channel: the responses are still read and discarded, so every other response is matched to its command.
//! A response that does not fit its command ends the connection, and so does an unanswered probe. The probe is queued like
//! any other request, so it also detects a surplus or missing response.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::request::{Batch, Expectations, ExpectedResponse, NOOP};
use super::response::{self, Response};
use crate::store::engine::StoreError;

/// A handle to send requests.
#[derive(Clone)]
pub(super) struct Connection {
    requests: mpsc::Sender<Request>,
    /// "memcached at 127.0.0.1:11211".
    label: Arc<str>,
    /// Requests in a row whose callers gave up before a response. Relaxed: only a recent trend.
    abandoned: Arc<AtomicU32>,
}

/// After this many, requests fail at once until the server answers again or the probe ends the connection.
const MAX_ABANDONED: u32 = 4;

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

/// The receiving end of a connection's task.
pub(super) struct Requests {
    queue: mpsc::Receiver<Request>,
    /// Shared with [`Connection`].
    abandoned: Arc<AtomicU32>,
}

/// A queued batch.
pub(super) struct Request {
    bytes: Vec<u8>,
    expected: Expectations,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Vec<Response>, StoreError>>;

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct ConnectionEnd {
    /// For logs, with the server's address.
    pub(super) reason: String,
    /// A probe was answered, so the connection lasted for at least a second.
    pub(super) proven: bool,
}

/// Between two probes, and the limit for a response.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Requests queued for the task. A full queue applies backpressure, like a full socket.
const QUEUE_CAPACITY: usize = 1024;
/// Requests taken from the queue at once.
const MAX_DEQUEUED: usize = 128;
/// Requests waiting for their responses.
const MAX_WAITING: usize = 16 * 1024;
/// Unwritten bytes above which no further request is taken from the queue.
const MAX_OUTGOING: usize = 256 * 1024;
/// Free space for one read.
const READ_BUFFER: usize = 16 * 1024;

impl Connection {
    /// Without a task yet.
    pub(super) fn new(label: Arc<str>) -> (Self, Requests) {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let abandoned = Arc::default();
        let requests = Requests { queue: receiver, abandoned: Arc::clone(&abandoned) };
        (Self { requests: sender, label, abandoned }, requests)
    }

    /// The responses, one for each command, in order.
    ///
    /// # Errors
    /// When the connection ends before all of them have come.
    pub(super) async fn send(&self, batch: Batch<'_>) -> Result<Vec<Response>, StoreError> {
        let (bytes, expected) = batch.finish();
        if expected.is_empty() {
            return Ok(Vec::new());
        }
        if self.abandoned.load(Relaxed) >= MAX_ABANDONED {
            return Err(StoreError::Unreachable(format!("{}: it does not answer", self.label)));
        }
        let mut guard = AbandonGuard { abandoned: &self.abandoned, answered: false };
        let (reply, answers) = oneshot::channel();
        let gone = || StoreError::Unreachable(format!("{}: the connection has ended", self.label));
        self.requests.send(Request { bytes, expected, reply }).await.map_err(|_closed| gone())?;
        let answers = answers.await;
        guard.answered = true;
        answers.map_err(|_dropped| gone())?
    }
}

/// Runs a connection until it ends; then all waiting requests fail.
pub(super) async fn drive<S: AsyncRead + AsyncWrite>(stream: S, requests: Requests, label: &str) -> ConnectionEnd {
    let Requests { mut queue, abandoned } = requests;
    let mut driver = Driver { abandoned, ..Driver::default() };
    let end = driver.run(stream, &mut queue).await;
    let reason = format!("{label}: {end}");
    driver.fail(&mut queue, &end, &reason);
    ConnectionEnd { reason, proven: driver.proven }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum CloseReason {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("no response to a probe for a second")]
    Silent,
    #[error("invalid response: {0}")]
    Malformed(#[from] response::Malformed),
    #[error("it rejected a command: {0}")]
    ClientError(Box<str>),
    #[error("unexpected response")]
    Unexpected,
    #[error("response without a request")]
    Unsolicited,
    #[error("the engine was stopped")]
    Unused,
}

/// The state of a connection's task.
#[derive(Default)]
struct Driver {
    incoming: BytesMut,
    outgoing: BytesMut,
    waiting: VecDeque<PendingRequest>,
    /// A probe is unanswered.
    probing: bool,
    proven: bool,
    /// Shared with [`Connection`].
    abandoned: Arc<AtomicU32>,
}

/// A request that has been or is about to be written.
struct PendingRequest {
    expected: Expectations,
    answers: Vec<Response>,
    /// `None` for a probe.
    reply: Option<Reply>,
}

impl Driver {
    async fn run<S: AsyncRead + AsyncWrite>(
        &mut self,
        stream: S,
        requests: &mut mpsc::Receiver<Request>,
    ) -> CloseReason {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut taken = Vec::with_capacity(MAX_DEQUEUED);
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probe.reset();
        loop {
            self.make_room();
            // Reads first: after a pause of this process the responses have arrived, and must be seen before the probe is late.
            let result = tokio::select! {
                biased;
                read = reader.read_buf(&mut self.incoming) => match read {
                    Ok(0) => Err(CloseReason::Closed),
                    Ok(_) => self.deliver(),
                    Err(error) => Err(error.into()),
                },
                count = requests.recv_many(&mut taken, MAX_DEQUEUED), if self.has_room() => {
                    self.enqueue(&mut taken);
                    if count == 0 { Err(CloseReason::Unused) } else { Ok(()) }
                }
                written = writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                    written.map(drop).map_err(CloseReason::from)
                }
                _ = probe.tick() => self.probe(),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.outgoing.len() < MAX_OUTGOING && self.waiting.len() < MAX_WAITING
    }

    /// `read_buf` fills the free space, and adds very little by itself.
    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() < READ_BUFFER / 4 {
            self.incoming.reserve(READ_BUFFER);
        }
    }

    fn enqueue(&mut self, taken: &mut Vec<Request>) {
        // Requests whose callers have given up are not sent.
        for request in taken.drain(..).filter(|request| !request.reply.is_closed()) {
            self.outgoing.extend_from_slice(&request.bytes);
            let answers = Vec::with_capacity(request.expected.len());
            self.waiting.push_back(PendingRequest { expected: request.expected, answers, reply: Some(request.reply) });
        }
    }

    fn probe(&mut self) -> Result<(), CloseReason> {
        if self.probing {
            return Err(CloseReason::Silent);
        }
        self.probing = true;
        self.outgoing.extend_from_slice(NOOP);
        let expected = Expectations::from_slice(&[ExpectedResponse::Noop]);
        self.waiting.push_back(PendingRequest { expected, answers: Vec::new(), reply: None });
        Ok(())
    }

    /// Hands out the complete responses.
    fn deliver(&mut self) -> Result<(), CloseReason> {
        while let Some(answer) = response::parse(&mut self.incoming)? {
            let waiting = self.waiting.front_mut().ok_or(CloseReason::Unsolicited)?;
            if !waiting.expected.get(waiting.answers.len()).is_some_and(|expected| expected.fits(&answer)) {
                return Err(match answer {
                    Response::ClientError(words) => CloseReason::ClientError(words),
                    _ => CloseReason::Unexpected,
                });
            }
            waiting.answers.push(answer);
            if self.abandoned.load(Relaxed) > 0 {
                self.abandoned.store(0, Relaxed);
            }
            if waiting.answers.len() == waiting.expected.len() {
                self.complete_front();
            }
        }
        Ok(())
    }

    fn complete_front(&mut self) {
        let Some(settled) = self.waiting.pop_front() else { return };
        if let Some(reply) = settled.reply {
            // The caller may have given up.
            drop(reply.send(Ok(settled.answers)));
        } else {
            self.probing = false;
            self.proven = true;
        }
    }

    /// Fails all waiting requests: the one whose response was invalid as unreadable, the others as unreachable.
    fn fail(&mut self, requests: &mut mpsc::Receiver<Request>, end: &CloseReason, reason: &str) {
        let unreadable =
            matches!(end, CloseReason::Malformed(_) | CloseReason::ClientError(_) | CloseReason::Unexpected);
        let mut first = unreadable.then(|| StoreError::Unreadable(reason.to_owned()));
        let mut error = || first.take().unwrap_or_else(|| StoreError::Unreachable(reason.to_owned()));
        for waiting in self.waiting.drain(..) {
            let error = error();
            waiting.reply.map(|reply| reply.send(Err(error)));
        }
        requests.close();
        while let Ok(request) = requests.try_recv() {
            drop(request.reply.send(Err(error())));
        }
    }
}
