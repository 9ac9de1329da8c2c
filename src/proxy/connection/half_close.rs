//! A client that has closed its side of the connection, and waits for the response (RFC 9112, section 9.6).
//!
//! One that is gone looks the same until it resets the connection, and a reset behind the end of the stream wakes no reader.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::time::{Instant, Sleep, sleep};

/// How often the socket's state is read.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// `TCP_CLOSE` of Linux's `tcp_states.h`: the connection was reset.
const TCP_CLOSE: u8 = 7;

/// Watches the connection of such a client.
pub(super) struct HalfClosed {
    timer: Pin<Box<Sleep>>,
}

impl Default for HalfClosed {
    fn default() -> Self {
        Self { timer: Box::pin(sleep(CHECK_INTERVAL)) }
    }
}

impl HalfClosed {
    /// Ready with an error when the client is gone.
    pub(super) fn poll_reset(&mut self, stream: &Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let info = stream.get_socket_digest().and_then(|digest| digest.tcp_info());
            if info.is_some_and(|info| info.tcpi_state == TCP_CLOSE) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.timer.as_mut().reset(Instant::now() + CHECK_INTERVAL);
        }
    }
}
