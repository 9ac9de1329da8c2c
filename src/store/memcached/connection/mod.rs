//! One connection that all requests to a server share: they are written as they come, and answered in order.
//!
//! A task owns the socket ([`drive`]); a request is a message to it with a place for the answers. So whoever loses interest
//! drops that place and nothing else: the answers are read all the same and thrown away, and every other answer stays with
//! its question. An answer that does not fit its question ends the connection, and so does a server that leaves a probe
//! unanswered. As the probe stands in the same row as everything else, an answer too many or too few is found out by it.

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

use super::answer::{self, Answer};
use super::batch::{Batch, Expectations, Expected, NOOP};
use crate::store::engine::StoreError;

/// What asks on a connection.
#[derive(Clone)]
pub(super) struct Connection {
    requests: mpsc::Sender<Request>,
    /// "memcached at 127.0.0.1:11211".
    label: Arc<str>,
    /// Requests in a row whose callers gave up before any answer came. Relaxed: it only tells how it went lately.
    given_up: Arc<AtomicU32>,
}

/// After so many, a server that is one of several costs no further request its patience; the probe tells what it is.
const MOST_GIVEN_UP: u32 = 4;

/// Counts a caller that goes away without its answer.
struct Asking<'a> {
    given_up: &'a AtomicU32,
    answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.given_up.fetch_add(1, Relaxed);
        }
    }
}

/// Where a connection's task takes its requests from.
pub(super) struct Requests {
    queue: mpsc::Receiver<Request>,
    /// As [`Connection`] has it.
    given_up: Arc<AtomicU32>,
}

/// A batch on its way.
pub(super) struct Request {
    bytes: Vec<u8>,
    expected: Expectations,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Vec<Answer>, StoreError>>;

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct Broken {
    /// In words, with the server's name.
    pub(super) reason: String,
    /// It had answered a probe, so it was in use for a second at least.
    pub(super) proven: bool,
}

/// How often a server is asked whether it is there, and how long it may take to say so.
const PROBE: Duration = Duration::from_secs(1);
/// Requests on their way to the task. A full queue holds its callers back, as a full socket does.
const MOST_QUEUED: usize = 1024;
/// Requests that are taken from the queue at once.
const MOST_TAKEN: usize = 128;
/// Requests that wait for their answers.
const MOST_WAITING: usize = 16 * 1024;
/// Bytes that wait to be written, after which no further request is taken.
const FULL: usize = 256 * 1024;
/// Room for what is read at once.
const READ: usize = 16 * 1024;

impl Connection {
    /// One that is not driven yet.
    pub(super) fn new(label: Arc<str>) -> (Self, Requests) {
        let (sender, receiver) = mpsc::channel(MOST_QUEUED);
        let given_up = Arc::default();
        let requests = Requests { queue: receiver, given_up: Arc::clone(&given_up) };
        (Self { requests: sender, label, given_up }, requests)
    }

    /// One answer for each command, in their order.
    ///
    /// # Errors
    /// When the connection ends before all of them have come.
    pub(super) async fn ask(&self, batch: Batch<'_>) -> Result<Vec<Answer>, StoreError> {
        let (bytes, expected) = batch.finish();
        if expected.is_empty() {
            return Ok(Vec::new());
        }
        if self.given_up.load(Relaxed) >= MOST_GIVEN_UP {
            return Err(StoreError::Unreachable(format!("{}: it does not answer", self.label)));
        }
        let mut asking = Asking { given_up: &self.given_up, answered: false };
        let (reply, answers) = oneshot::channel();
        let gone = || StoreError::Unreachable(format!("{}: the connection has ended", self.label));
        self.requests.send(Request { bytes, expected, reply }).await.map_err(|_closed| gone())?;
        let answers = answers.await;
        asking.answered = true;
        answers.map_err(|_dropped| gone())?
    }
}

/// Drives a connection until it ends; then every request that waits is told so.
pub(super) async fn drive<S: AsyncRead + AsyncWrite>(stream: S, requests: Requests, label: &str) -> Broken {
    let Requests { mut queue, given_up } = requests;
    let mut driver = Driver { given_up, ..Driver::default() };
    let end = driver.run(stream, &mut queue).await;
    let reason = format!("{label}: {end}");
    driver.fail(&mut queue, &end, &reason);
    Broken { reason, proven: driver.proven }
}

/// How a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("it did not answer for a second")]
    Silent,
    #[error("it answered {0}")]
    Malformed(#[from] answer::Malformed),
    #[error("it did not understand: {0}")]
    NotUnderstood(Box<str>),
    #[error("it answered something else than what was asked")]
    Unexpected,
    #[error("it answered when nothing was asked")]
    Unasked,
    #[error("nobody uses it any more")]
    Unused,
}

/// What is on its way.
#[derive(Default)]
struct Driver {
    incoming: BytesMut,
    outgoing: BytesMut,
    waiting: VecDeque<Waiting>,
    /// A probe waits for its answer.
    probing: bool,
    proven: bool,
    /// As [`Connection`] has it.
    given_up: Arc<AtomicU32>,
}

/// A request that was written, or is about to be.
struct Waiting {
    expected: Expectations,
    answers: Vec<Answer>,
    /// `None` for a probe.
    reply: Option<Reply>,
}

impl Driver {
    async fn run<S: AsyncRead + AsyncWrite>(&mut self, stream: S, requests: &mut mpsc::Receiver<Request>) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut taken = Vec::with_capacity(MOST_TAKEN);
        let mut probe = tokio::time::interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probe.reset();
        loop {
            self.make_room();
            // Answers first: after a pause of this process they are there, and the probe must not be told of before them.
            let went_well = tokio::select! {
                biased;
                read = reader.read_buf(&mut self.incoming) => match read {
                    Ok(0) => Err(End::Closed),
                    Ok(_) => self.deliver(),
                    Err(error) => Err(error.into()),
                },
                count = requests.recv_many(&mut taken, MOST_TAKEN), if self.has_room() => {
                    self.enqueue(&mut taken);
                    if count == 0 { Err(End::Unused) } else { Ok(()) }
                }
                written = writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                    written.map(drop).map_err(End::from)
                }
                _ = probe.tick() => self.probe(),
            };
            if let Err(end) = went_well {
                return end;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.outgoing.len() < FULL && self.waiting.len() < MOST_WAITING
    }

    /// `read_buf` fills what room there is, and makes very little by itself.
    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() < READ / 4 {
            self.incoming.reserve(READ);
        }
    }

    fn enqueue(&mut self, taken: &mut Vec<Request>) {
        // Nobody waits for the answers of some any more: those are not even asked.
        for request in taken.drain(..).filter(|request| !request.reply.is_closed()) {
            self.outgoing.extend_from_slice(&request.bytes);
            let answers = Vec::with_capacity(request.expected.len());
            self.waiting.push_back(Waiting { expected: request.expected, answers, reply: Some(request.reply) });
        }
    }

    fn probe(&mut self) -> Result<(), End> {
        if self.probing {
            return Err(End::Silent);
        }
        self.probing = true;
        self.outgoing.extend_from_slice(NOOP);
        let expected = Expectations::from_slice(&[Expected::Noop]);
        self.waiting.push_back(Waiting { expected, answers: Vec::new(), reply: None });
        Ok(())
    }

    /// Hands out the answers that are whole.
    fn deliver(&mut self) -> Result<(), End> {
        while let Some(answer) = answer::take(&mut self.incoming)? {
            let waiting = self.waiting.front_mut().ok_or(End::Unasked)?;
            if !waiting.expected.get(waiting.answers.len()).is_some_and(|expected| expected.fits(&answer)) {
                return Err(match answer {
                    Answer::NotUnderstood(words) => End::NotUnderstood(words),
                    _ => End::Unexpected,
                });
            }
            waiting.answers.push(answer);
            if self.given_up.load(Relaxed) > 0 {
                self.given_up.store(0, Relaxed);
            }
            if waiting.answers.len() == waiting.expected.len() {
                self.settle();
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        let Some(settled) = self.waiting.pop_front() else { return };
        if let Some(reply) = settled.reply {
            // Nobody may wait any more.
            drop(reply.send(Ok(settled.answers)));
        } else {
            self.probing = false;
            self.proven = true;
        }
    }

    /// Tells all that wait. The one whose answer nobody can read hears that; it may ask the same again.
    fn fail(&mut self, requests: &mut mpsc::Receiver<Request>, end: &End, reason: &str) {
        let unreadable = matches!(end, End::Malformed(_) | End::NotUnderstood(_) | End::Unexpected);
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
