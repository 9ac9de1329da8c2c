//! A connection whose requests have deadlines.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::config::ListenerTimeouts;
use crate::telemetry::metrics::{Metrics, Rejection};

use super::request_line::RequestLine;

/// No byte of a request has come yet.
const WAITING: u8 = 0;
/// Its headers are coming.
const HEADER: u8 = 1;
/// Its headers were read; the guard looks away.
const FREE: u8 = 2;

/// A connection with deadlines for what comes before a request's body.
pub struct Guarded {
    inner: Stream,
    /// Set from outside through a shared reference, at the edges of a request; read by the one task that reads.
    phase: AtomicU8,
    timeouts: ListenerTimeouts,
    first: bool,
    /// What was read to tell HTTP/2 from HTTP/1, and how much of it was read again.
    peeked: Vec<u8>,
    given: usize,
    line: RequestLine,
    /// Bytes that must still come before HTTP/2 can be left to its own timeouts; 0 for HTTP/1, and once they have come.
    preface_left: usize,
    deadline: Option<Instant>,
    /// One timer a connection, moved on from request to request.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes.
    sleeper: Option<Waker>,
    /// The peer's address, written once for all requests of the connection.
    peer: OnceLock<Option<HeaderValue>>,
    metrics: Arc<Metrics>,
}

/// Sent to a client that does not get done with its headers. Nothing else was sent for this request yet.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Guarded {
    pub(super) fn new(inner: Stream, timeouts: ListenerTimeouts, metrics: &Arc<Metrics>) -> Self {
        let http2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        Self {
            preface_left: if http2 { PREFACE.len() } else { 0 },
            inner,
            phase: AtomicU8::new(WAITING),
            timeouts,
            first: true,
            peeked: Vec::new(),
            given: 0,
            line: RequestLine::default(),
            deadline: None,
            timer: None,
            sleeper: None,
            peer: OnceLock::new(),
            metrics: Arc::clone(metrics),
        }
    }

    /// The headers were read. True when their first line was sound.
    pub fn headers_are_read(&self) -> bool {
        self.phase.store(FREE, Ordering::Relaxed);
        !self.line.broken
    }

    /// The address of the peer, which is the same for the whole connection, as a header's value.
    pub fn peer_text(&self, peer: Option<IpAddr>) -> Option<&HeaderValue> {
        self.peer.get_or_init(|| HeaderValue::try_from(peer?.to_canonical().to_string()).ok()).as_ref()
    }

    /// The next request begins, unless its first bytes were read already, to tell HTTP/2 from HTTP/1.
    pub(super) fn await_next_request(&self) {
        let _ = self.phase.compare_exchange(FREE, WAITING, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn patience(&self, phase: u8) -> Duration {
        if phase == WAITING && !self.first { self.timeouts.keepalive } else { self.timeouts.request_header }
    }

    /// Waits for the deadline of the phase; ready when it has passed.
    fn poll_deadline(&mut self, phase: u8, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience(phase);
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + patience);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // Deadlines of a busy connection move on with every request. A timer that is set too early is left as it is, and
        // moved on only when it rings: once a pause, instead of once a request.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
            self.sleeper = None;
        }
        // It need not be told again to wake the same task at the same time, or earlier.
        let told = self.sleeper.as_ref().is_some_and(|sleeper| sleeper.will_wake(context.waker()));
        if told && timer.deadline() <= deadline && !timer.is_elapsed() {
            return Poll::Pending;
        }
        self.sleeper = Some(context.waker().clone());
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    fn time_out(&mut self, phase: u8, context: &mut Context<'_>) -> io::Result<()> {
        if phase == WAITING {
            // Nobody asked anything: the connection closes as if the client had closed it.
            return Ok(());
        }
        self.metrics.rejected.inc(Rejection::HeaderTimeout as usize);
        if self.preface_left > 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Best effort: the answer is small and nothing else is in the socket's buffer.
        let _ = Pin::new(&mut self.inner).poll_write(context, REQUEST_TIMEOUT);
        let _ = Pin::new(&mut self.inner).poll_flush(context);
        Err(io::ErrorKind::TimedOut.into())
    }

    /// A header or a pause is over: the next one gets a deadline of its own.
    fn advance(&mut self, phase: u8) {
        if phase == WAITING {
            self.first = false;
            self.phase.store(HEADER, Ordering::Relaxed);
            self.deadline = None;
            self.line = RequestLine::default();
        }
    }

    /// Reads from the connection, with the deadline of the phase.
    fn poll_fresh(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let phase = self.phase.load(Ordering::Relaxed);
        if phase == FREE {
            self.deadline = None;
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(context, buffer) {
            Poll::Ready(result) => {
                self.advance(phase);
                let fresh = buffer.filled().get(before..).unwrap_or_default();
                if self.preface_left > 0 {
                    self.preface_left = self.preface_left.saturating_sub(fresh.len());
                    if self.preface_left == 0 {
                        self.phase.store(FREE, Ordering::Relaxed);
                    }
                    return Poll::Ready(result);
                }
                self.line.read(fresh);
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.poll_deadline(phase, context));
                Poll::Ready(self.time_out(phase, context))
            }
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given < this.peeked.len() {
            let left = this.peeked.get(this.given..).unwrap_or_default();
            let now = left.get(..buffer.remaining().min(left.len())).unwrap_or_default();
            buffer.put_slice(now);
            this.given += now.len();
            return Poll::Ready(Ok(()));
        }
        this.poll_fresh(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

// The rest is the connection itself.

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Guarded {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Guarded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[async_trait]
impl Peek for Guarded {
    /// Pingora asks for as many bytes as the preface has, and its own streams wait for all of them, however short a
    /// request is. Here it is enough that the first ones are not the preface's.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.peeked.len() < buffer.len() && PREFACE.starts_with(&self.peeked) {
            let mut room = [0; PREFACE.len()];
            let wanted = buffer.len() - self.peeked.len();
            let mut fresh = ReadBuf::new(room.get_mut(..wanted).unwrap_or_default());
            poll_fn(|context| self.poll_fresh(context, &mut fresh)).await?;
            if fresh.filled().is_empty() {
                break;
            }
            self.peeked.extend_from_slice(fresh.filled());
        }
        for (to, from) in buffer.iter_mut().zip(&self.peeked) {
            *to = *from;
        }
        if self.peeked == PREFACE {
            // HTTP/2 has frames and timeouts of its own.
            self.headers_are_read();
        }
        Ok(true)
    }
}
