//! The protocol on a shared connection. Responses carry no id: they come in the order of the commands.
//!
//! A response that does not fit its command ends the connection. The probe is queued like any other batch, so it also detects a
//! surplus or missing response.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::request::{Batch, Expectations, ExpectedResponse, NOOP};
use super::response::{self, Response};
use crate::store::connection::{self, Codec, Invalid, Message};
use crate::store::engine::StoreError;

pub(super) type Connection = connection::Connection<MetaCodec>;

/// Meta commands over one connection.
#[derive(Default)]
pub(super) struct MetaCodec {
    /// Batches with missing responses.
    unanswered: VecDeque<Unanswered>,
}

struct Unanswered {
    serial: i64,
    expected: Expectations,
    /// How many responses have come.
    answered: usize,
}

impl Connection {
    /// The responses, one for each command, in order.
    ///
    /// # Errors
    /// When the connection ends before all of them have come.
    pub(super) async fn send(&self, batch: Batch<'_>) -> Result<Vec<Response>, StoreError> {
        let (bytes, expected) = batch.finish();
        if expected.is_empty() {
            return Ok(Vec::new());
        }
        self.guarded_call((bytes, expected)).await
    }
}

impl Codec for MetaCodec {
    type Batch = (Vec<u8>, Expectations);
    type Response = Response;

    const MAX_LATE: u32 = 1;

    fn probe() -> Self::Batch {
        (NOOP.to_vec(), Expectations::from_slice(&[ExpectedResponse::Noop]))
    }

    fn write(&mut self, serial: i64, (bytes, expected): Self::Batch, outgoing: &mut BytesMut) -> usize {
        outgoing.extend_from_slice(&bytes);
        let count = expected.len();
        self.unanswered.push_back(Unanswered { serial, expected, answered: 0 });
        count
    }

    fn read(&mut self, incoming: &mut BytesMut) -> Result<Option<Message<Response>>, Invalid> {
        let first = self.unanswered.front_mut();
        let serial = first.as_ref().map(|first| first.serial);
        let invalid = |reason| Invalid { reason, serial };
        let response =
            response::parse(incoming).map_err(|malformed| invalid(format!("invalid response: {malformed}")))?;
        let Some(response) = response else { return Ok(None) };
        let first = first.ok_or_else(|| invalid("response without a request".to_owned()))?;
        let index = first.answered;
        if !first.expected.get(index).is_some_and(|expected| expected.fits(&response)) {
            return Err(invalid(match response {
                Response::ClientError(words) => format!("it rejected a command: {words}"),
                _ => "unexpected response".to_owned(),
            }));
        }
        first.answered += 1;
        let Unanswered { serial, answered, ref expected } = *first;
        if answered == expected.len() {
            self.unanswered.pop_front();
        }
        Ok(Some(Message::Response { serial, index, response }))
    }
}
