//! One connection shared by all requests to a member. Responses are matched by correlation id and may come in any order.
//!
//! A task owns the socket ([`drive`]); a request is a message to it with a channel for the responses. A caller that gives up only
//! drops that channel: its responses are read and discarded. The correlation id of a listener is kept for its events. Unanswered
//! pings end the connection.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::frame::{Decoder, Malformed, Message, number};
use super::request;
use crate::store::engine::StoreError;

/// A handle to send requests.
#[derive(Clone)]
pub(super) struct Connection {
    requests: mpsc::Sender<Batch>,
    /// "Hazelcast at 127.0.0.1:5701".
    label: Arc<str>,
    /// Requests in a row that timed out without any response. Relaxed: a heuristic.
    given_up: Arc<AtomicU32>,
}

/// After this many, requests fail at once until the member responds or the ping ends the connection.
const MOST_GIVEN_UP: u32 = 4;

/// Counts a caller that gives up.
struct CallGuard<'a> {
    given_up: &'a AtomicU32,
    answered: bool,
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.given_up.fetch_add(1, Relaxed);
        }
    }
}

/// Called with each event of a listener, on the connection's task: must not block.
pub(super) type OnMessage = Box<dyn Fn(&Message) + Send + Sync>;

/// A queued batch of requests.
pub(super) struct Batch {
    requests: Vec<Vec<u8>>,
    reply: Reply,
    /// For the events of the first request, if that is a subscription.
    listener: Option<OnMessage>,
}

type Reply = oneshot::Sender<Result<Vec<Message>, StoreError>>;

/// The receiving end of a connection's task.
pub(super) struct Requests {
    queue: mpsc::Receiver<Batch>,
    /// Shared with [`Connection`].
    given_up: Arc<AtomicU32>,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct Broken {
    /// For logs, with the member's address.
    pub(super) reason: String,
    /// A ping was answered, so the connection lasted for at least a second.
    pub(super) proven: bool,
}

/// Between two pings.
const PING: Duration = Duration::from_secs(1);
/// This many pings may be unanswered: a garbage collection may stop a member for a second.
const MOST_PINGS: u32 = 2;
/// Batches queued for the task. A full queue applies backpressure, like a full socket.
const MOST_QUEUED: usize = 1024;
/// Batches taken from the queue at once.
const MOST_TAKEN: usize = 128;
/// Batches waiting for their responses.
const MOST_WAITING: usize = 16 * 1024;
/// Requests of one batch: a correlation id consists of the batch's number and the position in it.
const MOST_IN_BATCH: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 16;
/// Unwritten bytes above which no further batch is taken from the queue.
const FULL: usize = 256 * 1024;
/// Free space for one read.
const READ: usize = 16 * 1024;

impl Connection {
    /// Without a task yet.
    pub(super) fn new(label: Arc<str>) -> (Self, Requests) {
        let (sender, receiver) = mpsc::channel(MOST_QUEUED);
        let given_up = Arc::default();
        let requests = Requests { queue: receiver, given_up: Arc::clone(&given_up) };
        (Self { requests: sender, label, given_up }, requests)
    }

    /// One response for each request, in order; each may be an error of the member.
    ///
    /// # Errors
    /// When the connection ends before all of them have come.
    pub(super) async fn ask(&self, requests: Vec<Vec<u8>>) -> Result<Vec<Message>, StoreError> {
        if self.given_up.load(Relaxed) >= MOST_GIVEN_UP {
            return Err(StoreError::Unreachable(format!("{}: it does not answer", self.label)));
        }
        let mut guard = CallGuard { given_up: &self.given_up, answered: false };
        let answers = self.send(requests, None).await;
        guard.answered = true;
        answers
    }

    /// The response to a subscription. Its events are delivered until the connection ends, and may begin before the response.
    ///
    /// # Errors
    /// When the connection ends before the response has come.
    pub(super) async fn listen(&self, request: Vec<u8>, listener: OnMessage) -> Result<Vec<Message>, StoreError> {
        self.send(vec![request], Some(listener)).await
    }

    async fn send(&self, requests: Vec<Vec<u8>>, listener: Option<OnMessage>) -> Result<Vec<Message>, StoreError> {
        if requests.is_empty() || requests.len() > MOST_IN_BATCH {
            return if requests.is_empty() { Ok(Vec::new()) } else { Err(StoreError::Unsupported) };
        }
        let (reply, answers) = oneshot::channel();
        let gone = || StoreError::Unreachable(format!("{}: the connection has ended", self.label));
        self.requests.send(Batch { requests, reply, listener }).await.map_err(|_closed| gone())?;
        answers.await.map_err(|_dropped| gone())?
    }

    /// Waits for its end.
    pub(super) async fn closed(&self) {
        self.requests.closed().await;
    }

    /// Whether both are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.requests.same_channel(&other.requests)
    }
}

/// Runs a connection until it ends; then all waiting requests fail.
pub(super) async fn drive<S: AsyncRead + AsyncWrite>(stream: S, requests: Requests, label: &str) -> Broken {
    let Requests { mut queue, given_up } = requests;
    let mut driver = Driver { given_up, ..Driver::default() };
    let end = driver.run(stream, &mut queue).await;
    let reason = format!("{label}: {end}");
    driver.fail(&mut queue, &reason);
    Broken { reason, proven: driver.proven }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("it did not answer for {} seconds", MOST_PINGS)]
    Silent,
    #[error("it answered {0}")]
    Malformed(#[from] Malformed),
    #[error("it answered when nothing was asked")]
    Unasked,
    #[error("it is not used any more")]
    Unused,
}

/// The state of a connection's task.
#[derive(Default)]
struct Driver {
    incoming: BytesMut,
    decoder: Decoder,
    outgoing: BytesMut,
    /// By number of the batch.
    waiting: HashMap<i64, Waiting>,
    /// By correlation id.
    listeners: HashMap<i64, OnMessage>,
    /// Of the last batch.
    serial: i64,
    /// Unanswered pings.
    pings: u32,
    proven: bool,
    /// Shared with [`Connection`].
    given_up: Arc<AtomicU32>,
}

/// A batch that has been or is about to be written.
struct Waiting {
    answers: Vec<Option<Message>>,
    missing: usize,
    /// `None` for a ping.
    reply: Option<Reply>,
}

impl Driver {
    async fn run<S: AsyncRead + AsyncWrite>(&mut self, stream: S, requests: &mut mpsc::Receiver<Batch>) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut taken = Vec::with_capacity(MOST_TAKEN);
        let mut ping = tokio::time::interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        loop {
            self.make_room();
            // Reads first: after a pause of this process the responses have arrived, and must be seen before a ping counts as
            // unanswered.
            let went_well = tokio::select! {
                biased;
                read = reader.read_buf(&mut self.incoming) => match read {
                    Ok(0) => Err(End::Closed),
                    Ok(_) => self.deliver(),
                    Err(error) => Err(error.into()),
                },
                count = requests.recv_many(&mut taken, MOST_TAKEN), if self.has_room() => {
                    taken.drain(..).for_each(|batch| self.enqueue(batch));
                    if count == 0 { Err(End::Unused) } else { Ok(()) }
                }
                written = writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                    written.map(drop).map_err(End::from)
                }
                _ = ping.tick() => self.ping(),
            };
            if let Err(end) = went_well {
                return end;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.outgoing.len() < FULL && self.waiting.len() < MOST_WAITING
    }

    /// `read_buf` fills the free space, and adds very little by itself.
    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() < READ / 4 {
            self.incoming.reserve(READ);
        }
    }

    /// A batch whose caller has given up is not sent.
    fn enqueue(&mut self, batch: Batch) {
        if batch.reply.is_closed() {
            return;
        }
        let first = self.write(batch.requests, Some(batch.reply));
        if let Some(listener) = batch.listener {
            self.listeners.insert(first, listener);
        }
    }

    /// The correlation id of the first.
    fn write(&mut self, requests: Vec<Vec<u8>>, reply: Option<Reply>) -> i64 {
        self.serial += 1;
        let first = self.serial << PLACE_BITS;
        let missing = requests.len();
        for (mut request, correlation) in requests.into_iter().zip(first..) {
            number(&mut request, correlation);
            self.outgoing.extend_from_slice(&request);
        }
        self.waiting.insert(self.serial, Waiting { answers: vec![None; missing], missing, reply });
        first
    }

    fn ping(&mut self) -> Result<(), End> {
        if self.pings >= MOST_PINGS {
            return Err(End::Silent);
        }
        self.pings += 1;
        self.write(vec![request::ping()], None);
        Ok(())
    }

    /// Hands out the complete messages.
    fn deliver(&mut self) -> Result<(), End> {
        while let Some(message) = self.decoder.take(&mut self.incoming)? {
            if !message.is_event() {
                self.answered(message)?;
            } else if let Some(listener) = self.listeners.get(&message.correlation()) {
                listener(&message);
            }
        }
        Ok(())
    }

    fn answered(&mut self, message: Message) -> Result<(), End> {
        let (serial, place) = (message.correlation() >> PLACE_BITS, message.correlation() & ((1 << PLACE_BITS) - 1));
        let waiting = self.waiting.get_mut(&serial).ok_or(End::Unasked)?;
        let place = usize::try_from(place).ok().and_then(|place| waiting.answers.get_mut(place)).ok_or(End::Unasked)?;
        if place.replace(message).is_some() {
            return Err(End::Unasked);
        }
        waiting.missing -= 1;
        if self.given_up.load(Relaxed) > 0 {
            self.given_up.store(0, Relaxed);
        }
        if waiting.missing == 0 {
            self.complete(serial);
        }
        Ok(())
    }

    fn complete(&mut self, serial: i64) {
        let Some(complete) = self.waiting.remove(&serial) else { return };
        if let Some(reply) = complete.reply {
            // The caller may have given up.
            drop(reply.send(Ok(complete.answers.into_iter().flatten().collect())));
        } else {
            self.pings = 0;
            self.proven = true;
        }
    }

    /// Fails all waiting requests.
    fn fail(&mut self, requests: &mut mpsc::Receiver<Batch>, reason: &str) {
        let error = || StoreError::Unreachable(reason.to_owned());
        for (_, waiting) in self.waiting.drain() {
            waiting.reply.map(|reply| reply.send(Err(error())));
        }
        requests.close();
        while let Ok(batch) = requests.try_recv() {
            drop(batch.reply.send(Err(error())));
        }
    }
}
