//! One connection that all requests share. A response carries the id of its request, so a slow one holds no other back.
//!
//! A task owns the socket ([`drive`]); a request is a message to it with a place for the response. A caller that loses
//! interest drops that place and nothing more: the response is read all the same and thrown away. A node that leaves a
//! heartbeat unanswered ends the connection.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, sleep};

use super::protocol::notification::EVENTS;
use super::protocol::request::Request;
use super::protocol::response::{Failure, Message, Response};
use super::protocol::{Malformed, frame, response};
use crate::store::engine::StoreError;

/// Sends requests on a connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    requests: mpsc::Sender<Pending>,
    /// "ignite at 127.0.0.1:10800".
    label: Arc<str>,
    /// The node has told of a topology. Relaxed: nothing is published by it.
    joined: Arc<AtomicBool>,
}

/// Where a connection's task takes its requests from.
pub(super) struct Queue {
    requests: mpsc::Receiver<Pending>,
    /// As [`Connection`] has it.
    joined: Arc<AtomicBool>,
}

/// A request on its way to the task.
#[derive(Debug)]
pub(super) struct Pending {
    request: Request,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Bytes, StoreError>>;
/// Takes the payload of each notification with events; must not block.
pub(super) type OnEvents = Box<dyn Fn(Bytes) + Send + Sync>;

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct Broken {
    /// In words, with the node's name.
    pub(super) reason: String,
    /// It had answered a heartbeat, so it was in use for a second at least.
    pub(super) proven: bool,
}

/// How often a node is asked whether it is there, and how long it may take to say so.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often a node that has not joined its cluster yet is asked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Requests on their way to the task. A full queue holds its callers back, as a full socket does.
const MOST_QUEUED: usize = 1024;
/// Requests that are taken from the queue at once.
const MOST_TAKEN: usize = 128;
/// Requests that wait for their responses.
const MOST_WAITING: usize = 16 * 1024;
/// Bytes that wait to be written, after which no further request is taken.
const FULL: usize = 256 * 1024;
/// Room for what is read at once.
const READ: usize = 16 * 1024;

impl Connection {
    /// One that is not driven yet.
    pub(super) fn new(label: Arc<str>) -> (Self, Queue) {
        let (requests, queue) = mpsc::channel(MOST_QUEUED);
        let joined = Arc::default();
        let queue = Queue { requests: queue, joined: Arc::clone(&joined) };
        (Self { requests, label, joined }, queue)
    }

    /// Waits until the node has joined its cluster: it takes connections before that, and a cache that is made too early
    /// ends its start.
    ///
    /// # Errors
    /// When the connection ends before.
    pub(super) async fn joined(&self) -> Result<(), StoreError> {
        loop {
            self.ask(Request::heartbeat()).await?;
            if self.joined.load(Relaxed) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The payload of the response.
    ///
    /// # Errors
    /// When the server could not do it, or the connection ends before the response has come.
    pub(super) async fn ask(&self, request: Request) -> Result<Bytes, StoreError> {
        let (reply, response) = oneshot::channel();
        let gone = || StoreError::Unreachable(format!("{}: the connection has ended", self.label));
        self.requests.send(Pending { request, reply }).await.map_err(|_closed| gone())?;
        response.await.map_err(|_dropped| gone())?
    }

    /// The same, read.
    ///
    /// # Errors
    /// Also when the payload is none of this operation.
    pub(super) async fn ask_for<T>(
        &self,
        request: Request,
        read: impl FnOnce(Bytes) -> Result<T, Malformed>,
    ) -> Result<T, StoreError> {
        let payload = self.ask(request).await?;
        read(payload).map_err(|malformed| StoreError::Unreadable(format!("{}: {malformed}", self.label)))
    }
}

/// Drives a connection until it ends; then every request that waits is told so.
pub(super) async fn drive<S: AsyncRead + AsyncWrite>(
    stream: S,
    Queue { requests: mut queue, joined }: Queue,
    on_events: OnEvents,
    label: &str,
) -> Broken {
    let mut driver = Driver {
        incoming: BytesMut::new(),
        outgoing: BytesMut::new(),
        waiting: HashMap::new(),
        last_id: 0,
        heartbeat: None,
        proven: false,
        joined,
        on_events,
    };
    let end = driver.run(stream, &mut queue).await;
    let reason = format!("{label}: {end}");
    driver.fail(&mut queue, &reason);
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
    #[error("it sent {0}")]
    Malformed(#[from] Malformed),
    #[error("the cache does not exist any more")]
    NoCache,
    #[error("it ended the announcements")]
    NoAnnouncements,
    #[error("the connection is not used any more")]
    Unused,
}

/// What is on its way.
struct Driver {
    incoming: BytesMut,
    outgoing: BytesMut,
    waiting: HashMap<i64, Reply>,
    last_id: i64,
    /// The id of the heartbeat that has no response yet.
    heartbeat: Option<i64>,
    proven: bool,
    /// As [`Connection`] has it.
    joined: Arc<AtomicBool>,
    on_events: OnEvents,
}

impl Driver {
    async fn run<S: AsyncRead + AsyncWrite>(&mut self, stream: S, queue: &mut mpsc::Receiver<Pending>) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut taken = Vec::with_capacity(MOST_TAKEN);
        let mut unflushed = false;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            self.make_room();
            unflushed |= !self.outgoing.is_empty();
            // Responses first: after a pause of this process they are there, and are seen before the next heartbeat is due.
            let went_well = tokio::select! {
                biased;
                read = reader.read_buf(&mut self.incoming) => match read {
                    Ok(0) => Err(End::Closed),
                    Ok(_) => self.deliver(),
                    Err(error) => Err(error.into()),
                },
                count = queue.recv_many(&mut taken, MOST_TAKEN), if self.has_room() => {
                    self.enqueue(&mut taken);
                    if count == 0 { Err(End::Unused) } else { Ok(()) }
                }
                written = write(&mut writer, &mut self.outgoing), if unflushed => {
                    unflushed = false;
                    written.map_err(End::from)
                }
                _ = heartbeat.tick() => self.beat(),
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

    fn enqueue(&mut self, taken: &mut Vec<Pending>) {
        // A request whose caller is gone is not even sent.
        for Pending { request, reply } in taken.drain(..).filter(|pending| !pending.reply.is_closed()) {
            let id = self.send(request);
            self.waiting.insert(id, reply);
        }
    }

    fn send(&mut self, request: Request) -> i64 {
        self.last_id += 1;
        self.outgoing.extend_from_slice(&request.with_id(self.last_id));
        self.last_id
    }

    fn beat(&mut self) -> Result<(), End> {
        if self.heartbeat.is_some() {
            return Err(End::Silent);
        }
        self.heartbeat = Some(self.send(Request::heartbeat()));
        Ok(())
    }

    /// Hands out what came in whole.
    fn deliver(&mut self) -> Result<(), End> {
        while let Some(frame) = frame::take(&mut self.incoming)? {
            match response::read(frame)? {
                Message::Response(response) => self.respond(response)?,
                Message::Notification(EVENTS, payload) if !payload.is_empty() => (self.on_events)(payload),
                Message::Notification(..) => return Err(End::NoAnnouncements),
            }
        }
        Ok(())
    }

    fn respond(&mut self, Response { id, topology, outcome }: Response) -> Result<(), End> {
        // None has the number 0.
        if topology.is_some_and(|topology| topology > 0) {
            self.joined.store(true, Relaxed);
        }
        if self.heartbeat == Some(id) {
            self.heartbeat = None;
            self.proven = true;
            return Ok(());
        }
        let reply = self.waiting.remove(&id).ok_or(Malformed("a response to what was not asked"))?;
        let cache_is_gone = matches!(&outcome, Err(failure) if failure.status == Failure::NO_SUCH_CACHE);
        // The caller may have gone.
        drop(reply.send(outcome.map_err(|failure| refusal(&failure))));
        // The next connection makes the cache again.
        if cache_is_gone { Err(End::NoCache) } else { Ok(()) }
    }

    /// Tells all that wait.
    fn fail(&mut self, queue: &mut mpsc::Receiver<Pending>, reason: &str) {
        let error = || StoreError::Unreachable(reason.to_owned());
        for (_, reply) in self.waiting.drain() {
            drop(reply.send(Err(error())));
        }
        queue.close();
        while let Ok(pending) = queue.try_recv() {
            drop(pending.reply.send(Err(error())));
        }
    }
}

/// TLS may hold written bytes back until it is flushed.
async fn write(writer: &mut (impl AsyncWrite + Unpin), outgoing: &mut BytesMut) -> io::Result<()> {
    while !outgoing.is_empty() {
        writer.write_buf(outgoing).await?;
    }
    writer.flush().await
}

/// A failure of the server's, without the keys that it may name.
fn refusal(failure: &Failure) -> StoreError {
    /// How much of a server's own words is told.
    const LONGEST_WORDS: usize = 200;
    let words = failure.reason.split('[').next().unwrap_or_default();
    let words: String = words.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect();
    StoreError::Refused(format!("{} (status {})", words.trim_end_matches([' ', ':', '.']), failure.status))
}
