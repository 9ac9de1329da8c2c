//! The protocol on a shared connection. Responses have the correlation id of their request, and may come in any order. The id of a
//! listener is kept for its events.

use std::collections::HashMap;

use bytes::BytesMut;

use super::frame::{Decoder, Message, number};
use super::request;
use crate::store::connection::{self, Codec, Invalid, Message as Received};
use crate::store::engine::StoreError;

pub(super) type Connection = connection::Connection<MemberCodec>;

/// Called with each event of a listener, on the connection's task: must not block.
pub(super) type OnMessage = Box<dyn Fn(&Message) + Send + Sync>;

/// Messages over one connection.
#[derive(Default)]
pub(super) struct MemberCodec {
    decoder: Decoder,
    /// By correlation id.
    listeners: HashMap<i64, OnMessage>,
}

/// Requests, and the listener of the first where that is a subscription.
pub(super) struct Batch {
    requests: Vec<Vec<u8>>,
    listener: Option<OnMessage>,
}

/// Requests of one batch: a correlation id consists of the batch's number and the position in it.
const MAX_IN_BATCH: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 16;

impl Connection {
    /// One response for each request, in order; each may be an error of the member.
    ///
    /// # Errors
    /// When the connection ends before all of them have come.
    pub(super) async fn ask(&self, requests: Vec<Vec<u8>>) -> Result<Vec<Message>, StoreError> {
        match requests.len() {
            0 => Ok(Vec::new()),
            1..=MAX_IN_BATCH => self.guarded_call(Batch { requests, listener: None }).await,
            _ => Err(StoreError::Unsupported),
        }
    }

    /// The response to a subscription. Its events are delivered until the connection ends, and may begin before the response.
    ///
    /// # Errors
    /// When the connection ends before the response has come.
    pub(super) async fn listen(&self, request: Vec<u8>, listener: OnMessage) -> Result<Vec<Message>, StoreError> {
        self.call(Batch { requests: vec![request], listener: Some(listener) }).await
    }
}

impl Codec for MemberCodec {
    type Batch = Batch;
    type Response = Message;

    /// A garbage collection may stop a member for a second.
    const MAX_LATE: u32 = 2;

    fn probe() -> Batch {
        Batch { requests: vec![request::ping()], listener: None }
    }

    fn write(&mut self, serial: i64, batch: Batch, outgoing: &mut BytesMut) -> usize {
        let first = serial << INDEX_BITS;
        let count = batch.requests.len();
        for (mut request, correlation) in batch.requests.into_iter().zip(first..) {
            number(&mut request, correlation);
            outgoing.extend_from_slice(&request);
        }
        if let Some(listener) = batch.listener {
            self.listeners.insert(first, listener);
        }
        count
    }

    fn read(&mut self, incoming: &mut BytesMut) -> Result<Option<Received<Message>>, Invalid> {
        let message = self.decoder.take(incoming).map_err(|malformed| Invalid::new(format!("it sent {malformed}")))?;
        let Some(message) = message else { return Ok(None) };
        let correlation = message.correlation();
        if message.is_event() {
            if let Some(listener) = self.listeners.get(&correlation) {
                listener(&message);
            }
            return Ok(Some(Received::Event));
        }
        let index = usize::try_from(correlation & ((1 << INDEX_BITS) - 1)).unwrap_or(MAX_IN_BATCH);
        Ok(Some(Received::Response { serial: correlation >> INDEX_BITS, index, response: message }))
    }
}
