//! What an engine's protocol adds to a connection.

use bytes::BytesMut;

/// The protocol of a connection, with its state. It lives on the connection's task, so it must not block.
pub(in crate::store) trait Codec: Send {
    /// Requests that are written in one piece, each with one response.
    type Batch: Send;
    /// A response.
    type Response: Send;

    /// The connection ends when its probe was due again this many times and the last one is still unanswered.
    const MAX_LATE: u32;

    /// A request without effect.
    fn probe() -> Self::Batch;

    /// Appends a batch to `outgoing`, and returns the number of its requests. `serial` is the batch's number, which rises from 1.
    fn write(&mut self, serial: i64, batch: Self::Batch, outgoing: &mut BytesMut) -> usize;

    /// Takes the first message; `None` when it is incomplete. Allocates no memory for bytes that were only announced.
    ///
    /// # Errors
    /// When the connection cannot be used any more.
    fn read(&mut self, incoming: &mut BytesMut) -> Result<Option<Message<Self::Response>>, Invalid>;
}

/// A message of the server.
pub(in crate::store) enum Message<R> {
    /// A response.
    Response {
        /// The number of its batch.
        serial: i64,
        /// Its request's position in the batch.
        index: usize,
        /// What it says.
        response: R,
    },
    /// Sent without a request. The codec has handled it.
    Event,
}

/// What ends a connection, for logs.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(in crate::store) struct Invalid {
    /// Why.
    pub(in crate::store) reason: String,
    /// The batch whose response is unreadable. The others are only unanswered.
    pub(in crate::store) serial: Option<i64>,
}

impl Invalid {
    /// Of no particular batch.
    pub(in crate::store) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), serial: None }
    }
}
