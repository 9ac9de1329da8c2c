//! Reading the body of a request, and what follows it while the request is served.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::proxy::connection::half_close::HalfClosed;
use crate::proxy::connection::request_body::{BodyFraming, RequestBody};

use super::{CHUNKED, DeadlineStream};

/// How much is read of the next request while this one is served.
const BEGINNING: usize = 512;

impl DeadlineStream {
    pub(super) fn body(&mut self) -> &mut RequestBody {
        let framing = match *self.framing.get_mut() {
            CHUNKED => BodyFraming::Chunked,
            length => BodyFraming::Length(length),
        };
        self.body.get_or_insert_with(|| RequestBody::new(framing))
    }

    /// Moves bytes of the request's body, and none behind it.
    pub(super) fn poll_read_body(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.deadline.clear();
        if self.body().is_complete() {
            return self.poll_client(context);
        }
        let before = buffer.filled().len();
        if self.input.is_empty() {
            match Pin::new(&mut self.inner).poll_read(context, buffer) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    ready!(self.slow_body.poll_waiting(context));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        } else {
            self.input.peek(buffer);
        }
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        let count = self.body().advance(fresh)?;
        self.slow_body.receive(count);
        if !self.input.is_empty() {
            self.input.consume(count);
        } else if count < fresh.len() {
            self.input.put(fresh.get(count..).unwrap_or_default());
        }
        buffer.set_filled(before + count);
        Poll::Ready(Ok(()))
    }

    /// The request is complete, and its response is under way. Ready when the client is gone.
    pub(super) fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(half_closed) = &mut self.half_closed {
            return half_closed.poll_reset(&self.inner, context);
        }
        if !self.input.is_empty() {
            // The next request waits; what is behind it waits in the socket.
            return Poll::Pending;
        }
        // Asked with every step of the response, and mostly in vain: without a buffer of the thread, which would be taken and
        // returned each time.
        let mut room = [MaybeUninit::uninit(); BEGINNING];
        let mut beginning = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut beginning))?;
        if !beginning.filled().is_empty() {
            self.input.put(beginning.filled());
            return Poll::Pending;
        }
        if self.cancels_at_half_close() {
            return Poll::Ready(Ok(()));
        }
        self.half_closed.insert(HalfClosed::default()).poll_reset(&self.inner, context)
    }
}
