//! The protocol on a shared connection. A response carries the id of its request, so a slow one delays no other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::protocol::notification::EVENTS;
use super::protocol::request::Request;
use super::protocol::response::{self, Failure, Response};
use super::protocol::{Malformed, frame};
use crate::store::connection::{self, Codec, ConnectionEnd, Invalid, Message, drive};
use crate::store::engine::StoreError;

/// A handle to send requests.
#[derive(Clone)]
pub(super) struct Connection {
    inner: connection::Connection<NodeCodec>,
    /// The node has reported a topology. Relaxed: nothing is published by it.
    joined: Arc<AtomicBool>,
}

/// Takes the payload of each notification with events; must not block.
pub(super) type OnEvents = Box<dyn Fn(Bytes) + Send + Sync>;

/// Frames over one connection.
pub(super) struct NodeCodec {
    on_events: OnEvents,
    /// Shared with [`Connection`].
    joined: Arc<AtomicBool>,
    /// The next connection creates the cache again.
    cache_is_gone: bool,
}

/// Between two heartbeats to a node that has not joined its cluster yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Connection {
    /// With the future that runs it until it ends.
    pub(super) fn over(
        stream: impl AsyncRead + AsyncWrite + Send,
        on_events: OnEvents,
        label: &Arc<str>,
    ) -> (Self, impl Future<Output = ConnectionEnd> + Send) {
        let (inner, requests) = connection::Connection::new(Arc::clone(label));
        let joined = Arc::<AtomicBool>::default();
        let codec = NodeCodec { on_events, joined: Arc::clone(&joined), cache_is_gone: false };
        (Self { inner, joined }, drive(stream, requests, codec, label))
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
        // Not guarded: a node that answers nothing for keys of a hanging owner answers for others.
        self.inner.call(request).await?.pop().unwrap_or(Err(StoreError::Timeout))
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
        read(payload).map_err(|malformed| StoreError::Unreadable(format!("{}: {malformed}", self.inner.label())))
    }
}

impl Codec for NodeCodec {
    type Batch = Request;
    type Response = Result<Bytes, StoreError>;

    /// On a busy machine a pause of the node's garbage collector may last for more than a second.
    const MAX_LATE: u32 = 2;

    fn probe() -> Request {
        Request::heartbeat()
    }

    fn write(&mut self, serial: i64, request: Request, outgoing: &mut BytesMut) -> usize {
        outgoing.extend_from_slice(&request.with_id(serial));
        1
    }

    fn read(&mut self, incoming: &mut BytesMut) -> Result<Option<Message<Self::Response>>, Invalid> {
        if self.cache_is_gone {
            return Err(Invalid::new("the cache does not exist any more"));
        }
        let Some(frame) = frame::take(incoming)? else { return Ok(None) };
        match response::read(frame)? {
            response::Message::Response(response) => Ok(Some(self.respond(response))),
            response::Message::Notification(EVENTS, payload) if !payload.is_empty() => {
                (self.on_events)(payload);
                Ok(Some(Message::Event))
            }
            response::Message::Notification(..) => Err(Invalid::new("it ended the announcements")),
        }
    }
}

impl NodeCodec {
    fn respond(&mut self, Response { id, topology, outcome }: Response) -> Message<Result<Bytes, StoreError>> {
        // Version 0 means none.
        if topology.is_some_and(|topology| topology > 0) {
            self.joined.store(true, Relaxed);
        }
        // Ends the connection with the next call, when the caller has its response.
        self.cache_is_gone |= matches!(&outcome, Err(failure) if failure.status == Failure::NO_SUCH_CACHE);
        Message::Response { serial: id, index: 0, response: outcome.map_err(|failure| refusal(&failure)) }
    }
}

impl From<Malformed> for Invalid {
    fn from(malformed: Malformed) -> Self {
        Self::new(format!("it sent {malformed}"))
    }
}

/// A failure reported by the server, without the keys that its message may contain.
fn refusal(failure: &Failure) -> StoreError {
    /// How much of a server's error message is reported.
    const MAX_MESSAGE: usize = 200;
    let words = failure.reason.split('[').next().unwrap_or_default();
    let words: String = words.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    StoreError::Refused(format!("{} (status {})", words.trim_end_matches([' ', ':', '.']), failure.status))
}
