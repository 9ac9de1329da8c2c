//! One connection shared by all requests. A response carries the id of its request, so a slow one delays no other.
//!
//! A task owns the socket ([`drive`]); a request is a message to it with a channel for the response. A caller that
//! gives up only drops that channel: the response is still read and discarded. An unanswered heartbeat ends the connection.

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

/// A handle to send requests.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    requests: mpsc::Sender<Pending>,
    /// "ignite at 127.0.0.1:10800".
    label: Arc<str>,
    /// The node has reported a topology. Relaxed: nothing is published by it.
    joined: Arc<AtomicBool>,
}

/// The receiving end of a connection's task.
pub(super) struct Queue {
    requests: mpsc::Receiver<Pending>,
    /// Shared with [`Connection`].
    joined: Arc<AtomicBool>,
}

/// A queued request.
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
    /// For logs, with the node's address.
    pub(super) reason: String,
    /// A heartbeat was answered, so the connection lasted for at least a second.
    pub(super) proven: bool,
}

/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node is given up when its heartbeat was due again so many times: on a busy machine a pause of its collector may last for
/// more than a second.
const MOST_LATE: u32 = 2;
/// Between two heartbeats to a node that has not joined its cluster yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Requests queued for the task. A full queue applies backpressure, like a full socket.
const MOST_QUEUED: usize = 1024;
/// Requests taken from the queue at once.
const MOST_TAKEN: usize = 128;
/// Requests waiting for their responses.
const MOST_WAITING: usize = 16 * 1024;
/// Unwritten bytes above which no further request is taken from the queue.
const FULL: usize = 256 * 1024;
/// Free space for one read.
const READ: usize = 16 * 1024;

impl Connection {
    /// Without a task yet.
    pub(super) fn new(label: Arc<str>) -> (Self, Queue) {
        let (requests, queue) = mpsc::channel(MOST_QUEUED);
        let joined = Arc::default();
        let queue = Queue { requests: queue, joined: Arc::clone(&joined) };
        (Self { requests, label, joined }, queue)
    }

    /// Waits until the node has joined its cluster: it accepts connections before that, and a cache that is created too
    /// early makes its start fail.
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

    /// The parsed response.
    ///
    /// # Errors
    /// Also when the payload cannot be parsed.
    pub(super) async fn ask_for<T>(
        &self,
        request: Request,
        read: impl FnOnce(Bytes) -> Result<T, Malformed>,
    ) -> Result<T, StoreError> {
        let payload = self.ask(request).await?;
        read(payload).map_err(|malformed| StoreError::Unreadable(format!("{}: {malformed}", self.label)))
    }
}

/// Runs a connection until it ends; then all waiting requests fail.
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
        late: 0,
        proven: false,
        joined,
        on_events,
    };
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
    #[error("it did not answer for two seconds")]
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

/// The state of a connection's task.
struct Driver {
    incoming: BytesMut,
    outgoing: BytesMut,
    waiting: HashMap<i64, Reply>,
    last_id: i64,
    /// The id of the unanswered heartbeat.
    heartbeat: Option<i64>,
    /// How many times it was due again without having been answered.
    late: u32,
    proven: bool,
    /// Shared with [`Connection`].
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
            // Reads first: after a pause of this process the responses have arrived, and must be seen before the heartbeat is late.
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

    /// `read_buf` fills the free space, and adds very little by itself.
    fn make_room(&mut self) {
        if self.incoming.capacity() - self.incoming.len() < READ / 4 {
            self.incoming.reserve(READ);
        }
    }

    fn enqueue(&mut self, taken: &mut Vec<Pending>) {
        // Requests whose callers have given up are not sent.
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
        if self.heartbeat.is_none() {
            self.heartbeat = Some(self.send(Request::heartbeat()));
            return Ok(());
        }
        self.late += 1;
        if self.late < MOST_LATE { Ok(()) } else { Err(End::Silent) }
    }

    /// Hands out the complete messages.
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
        // Version 0 means none.
        if topology.is_some_and(|topology| topology > 0) {
            self.joined.store(true, Relaxed);
        }
        if self.heartbeat == Some(id) {
            (self.heartbeat, self.late) = (None, 0);
            self.proven = true;
            return Ok(());
        }
        let reply = self.waiting.remove(&id).ok_or(Malformed("a response to what was not asked"))?;
        let cache_is_gone = matches!(&outcome, Err(failure) if failure.status == Failure::NO_SUCH_CACHE);
        // The caller may have given up.
        drop(reply.send(outcome.map_err(|failure| refusal(&failure))));
        // The next connection creates the cache again.
        if cache_is_gone { Err(End::NoCache) } else { Ok(()) }
    }

    /// Fails all waiting requests.
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

/// A failure reported by the server, without the keys that its message may contain.
fn refusal(failure: &Failure) -> StoreError {
    /// How much of a server's error message is reported.
    const LONGEST_WORDS: usize = 200;
    let words = failure.reason.split('[').next().unwrap_or_default();
    let words: String = words.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect();
    StoreError::Refused(format!("{} (status {})", words.trim_end_matches([' ', ':', '.']), failure.status))
}
