//! How far the body of an HTTP/2 request has come, how long the next piece of it may take, and how fast it must arrive.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::protocols::l4::ext::get_tcp_info;

use pingora::http::RequestHeader;
use tokio::time::Instant;

use crate::limits::body_rate::BodyRate;
use crate::pool::connections::Connections;

/// How far the body of a request has come: written by its hooks, read from outside of them.
#[derive(Debug, Clone)]
pub(crate) struct BodyProgress(Arc<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    /// The request's head, for the log: when the request is dropped, its own is gone.
    head: RequestHeader,
    dropped: AtomicBool,
    /// Milliseconds from `begun` until the request is dropped; `u64::MAX`: it is not.
    deadline: AtomicU64,
    /// Milliseconds that the next piece of the body may take.
    timeout: AtomicU64,
    /// Bytes a second at which the body must arrive; 0 = no limit.
    rate: AtomicU64,
    /// The client waits with its body for a 100.
    expects_continue: AtomicBool,
    /// Bytes that have arrived since they were last looked at.
    received: AtomicU64,
    /// The body arrived too slowly.
    slow: AtomicBool,
    /// The connection that the body goes to, while the proxy reads it and no response has begun.
    receiver: Mutex<Option<Receiver>>,
}

/// A connection to a server over TCP that carries nothing but this request.
#[derive(Debug)]
struct Receiver {
    socket: RawFd,
    connections: Arc<Connections>,
}

impl BodyProgress {
    /// Of a request with this head, whose body was not asked for yet.
    pub(crate) fn new(head: RequestHeader) -> Self {
        let never = || AtomicU64::new(u64::MAX);
        let (begun, dropped) = (Instant::now(), AtomicBool::new(false));
        Self(Arc::new(State {
            begun,
            head,
            dropped,
            deadline: never(),
            timeout: never(),
            rate: AtomicU64::new(0),
            expects_continue: AtomicBool::new(false),
            received: AtomicU64::new(0),
            slow: AtomicBool::new(false),
            receiver: Mutex::new(None),
        }))
    }

    /// The request is dropped, since the next piece of its body did not arrive in time.
    pub(crate) fn drop_request(&self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }

    /// Its head, when it was dropped.
    pub(crate) fn dropped(&self) -> Option<&RequestHeader> {
        self.0.dropped.load(Ordering::Relaxed).then_some(&self.0.head)
    }

    /// How long each piece of the body may take, from when it is asked for.
    pub(crate) fn limit(&self, timeout: Duration) {
        self.0.timeout.store(millis(timeout), Ordering::Relaxed);
    }

    /// The body must arrive at this rate, in bytes a second. `expects_continue`: its client waits with it for a 100, so its time
    /// counts from the first byte.
    pub(crate) fn limit_rate(&self, rate: u64, expects_continue: bool) {
        self.0.expects_continue.store(expects_continue, Ordering::Relaxed);
        self.0.rate.store(rate, Ordering::Relaxed);
    }

    /// Whether there is such a rate.
    pub(crate) fn has_rate(&self) -> bool {
        self.0.rate.load(Ordering::Relaxed) > 0
    }

    /// Bytes of the body have arrived.
    pub(crate) fn receive(&self, bytes: u64) {
        self.0.received.fetch_add(bytes, Ordering::Relaxed);
        self.0.expects_continue.store(false, Ordering::Relaxed);
    }

    /// The body goes to this connection, which speaks HTTP/1.
    pub(crate) fn send_to(&self, socket: RawFd, connections: &Arc<Connections>) {
        *self.0.receiver.lock() = Some(Receiver { socket, connections: Arc::clone(connections) });
    }

    /// The attempt is over.
    pub(crate) fn send_nowhere(&self) {
        *self.0.receiver.lock() = None;
    }

    /// The body arrived too slowly, and the request's attempt was ended for that.
    pub(crate) fn is_slow(&self) -> bool {
        self.0.slow.load(Ordering::Relaxed)
    }

    /// The request has waited for this long, for its client or for its server. A body that arrives too slowly ends the
    /// connection to the server, so that the request fails and gets its response.
    ///
    /// What of HTTP/2 the proxy has buffered is not known here. But when it does not read since the server is slow, then the
    /// server's connection has bytes that could not be sent.
    pub(crate) fn check_rate(&self, body: &mut BodyRate, waited: Duration) {
        let rate = self.0.rate.load(Ordering::Relaxed);
        if rate == 0 || self.0.expects_continue.load(Ordering::Relaxed) {
            return;
        }
        let mut receiver = self.0.receiver.lock();
        body.receive(self.0.received.swap(0, Ordering::Relaxed));
        if receiver.as_ref().is_some_and(Receiver::keeps_up) {
            body.wait(waited);
        }
        if body.left(rate).is_zero()
            && let Some(receiver) = receiver.take()
        {
            self.0.slow.store(true, Ordering::Relaxed);
            receiver.connections.end_socket(receiver.socket);
        }
    }

    /// The next piece of the body is asked for.
    pub(crate) fn await_piece(&self) {
        let timeout = self.0.timeout.load(Ordering::Relaxed);
        self.0.deadline.store(self.now().saturating_add(timeout), Ordering::Relaxed);
    }

    /// The body is complete, or its client may take its time: it gets a response meanwhile.
    pub(crate) fn await_nothing(&self) {
        self.0.deadline.store(u64::MAX, Ordering::Relaxed);
        self.send_nowhere();
    }

    /// The response was sent; the rest of the body is only read so that the client can read the response.
    pub(crate) fn end_within(&self, limit: Duration) {
        self.0.deadline.store(self.now().saturating_add(millis(limit)), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        millis(self.0.begun.elapsed())
    }

    /// How long until the request is dropped.
    pub(crate) fn left(&self) -> Duration {
        Duration::from_millis(self.0.deadline.load(Ordering::Relaxed).saturating_sub(self.now()))
    }
}

impl Receiver {
    /// The server takes what it is sent. Unknown where the connection is not one of TCP.
    fn keeps_up(&self) -> bool {
        get_tcp_info(self.socket).is_ok_and(|info| info.tcpi_notsent_bytes == 0)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_long_as_long_as_it_moves() {
        let head = RequestHeader::build("POST", b"/", None).unwrap();
        let progress = BodyProgress::new(head);
        progress.limit(Duration::from_secs(2));
        assert!(progress.left() > Duration::from_secs(1000), "before it is asked for");
        for _ in 0..5 {
            progress.await_piece();
            tokio::time::advance(Duration::from_millis(1900)).await;
            assert!(!progress.left().is_zero());
        }
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(progress.left().is_zero());
        progress.await_nothing();
        assert!(!progress.left().is_zero());
        progress.end_within(Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert!(progress.left().is_zero());
    }
}
