//! Deadlines for the request heads of a connection.

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
use pingora::protocols::{ALPN, Peek, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::config::ListenerTimeouts;
use crate::telemetry::metrics::{Metrics, Rejection};

use super::delegate::delegate;
use super::read_buffer::ReadBuffer;
use super::request_line::RequestLine;
use super::write_buffer::WriteBuffer;

/// No byte of the next request has arrived.
const IDLE: u8 = 0;
/// The request head is arriving.
const HEAD: u8 = 1;
/// The request head was read; no deadline applies.
const BODY: u8 = 2;

/// A connection with one deadline for a whole request head, and one for the pause between requests.
pub(crate) struct DeadlineStream {
    inner: Stream,
    /// What was read and not used yet: the beginning of a request.
    input: ReadBuffer,
    output: WriteBuffer,
    /// Set through a shared reference, when a request begins and when its head was read; read by the task that reads.
    phase: AtomicU8,
    timeouts: ListenerTimeouts,
    first: bool,
    line: RequestLine,
    /// Bytes that HTTP/2 needs before its own timeouts apply; 0 for HTTP/1, and once they have arrived.
    preface_left: usize,
    deadline: Option<Instant>,
    /// One timer a connection, reset from request to request.
    timer: Option<Pin<Box<Sleep>>>,
    /// The task that the timer wakes.
    timer_waker: Option<Waker>,
    /// The peer's address, written once for all requests of the connection.
    peer: OnceLock<Option<HeaderValue>>,
    metrics: Arc<Metrics>,
}

/// The response when a request head does not arrive in time. Nothing else was sent for this request.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl DeadlineStream {
    pub(super) fn new(inner: Stream, timeouts: ListenerTimeouts, metrics: &Arc<Metrics>) -> Self {
        let http2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        Self {
            preface_left: if http2 { PREFACE.len() } else { 0 },
            inner,
            input: ReadBuffer::default(),
            output: WriteBuffer::default(),
            phase: AtomicU8::new(IDLE),
            timeouts,
            first: true,
            line: RequestLine::default(),
            deadline: None,
            timer: None,
            timer_waker: None,
            peer: OnceLock::new(),
            metrics: Arc::clone(metrics),
        }
    }

    /// The request head was read. True when its first line is valid.
    pub(crate) fn headers_are_read(&self) -> bool {
        self.phase.store(BODY, Ordering::Relaxed);
        !self.line.invalid
    }

    /// The address of the peer as a header value: written once, since it is the same for the whole connection.
    pub(crate) fn peer_text(&self, peer: Option<IpAddr>) -> Option<&HeaderValue> {
        self.peer.get_or_init(|| HeaderValue::try_from(peer?.to_canonical().to_string()).ok()).as_ref()
    }

    /// The next request begins, unless its first bytes were already read to tell HTTP/2 from HTTP/1.
    pub(super) fn await_next_request(&self) {
        let _ = self.phase.compare_exchange(BODY, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn timeout(&self, phase: u8) -> Duration {
        if phase == IDLE && !self.first { self.timeouts.keepalive } else { self.timeouts.request_header }
    }

    /// Ready when the deadline of the phase has passed.
    fn poll_deadline(&mut self, phase: u8, context: &mut Context<'_>) -> Poll<()> {
        let timeout = self.timeout(phase);
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // Every request has a later deadline. A timer that is set too early is left as it is, and reset only when it fires:
        // once a pause, instead of once a request.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
            self.timer_waker = None;
        }
        // It is already set to wake the same task at the same time or earlier.
        let is_set = self.timer_waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if is_set && timer.deadline() <= deadline && !timer.is_elapsed() {
            return Poll::Pending;
        }
        self.timer_waker = Some(context.waker().clone());
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    fn time_out(&mut self, phase: u8, context: &mut Context<'_>) -> io::Result<()> {
        if phase == IDLE {
            // No request has begun: the connection closes as if the client had closed it.
            return Ok(());
        }
        self.metrics.rejected.inc(Rejection::HeaderTimeout as usize);
        if self.preface_left > 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Best effort: the response is small and the socket's buffer is empty.
        let _ = Pin::new(&mut self.inner).poll_write(context, REQUEST_TIMEOUT);
        let _ = Pin::new(&mut self.inner).poll_flush(context);
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The pause between requests is over: the request head gets its own deadline.
    fn advance(&mut self, phase: u8) {
        if phase == IDLE {
            self.first = false;
            self.phase.store(HEAD, Ordering::Relaxed);
            self.deadline = None;
            self.line = RequestLine::default();
        }
    }

    /// Reads a part of a request head, with the deadline of the phase. Returns how many bytes; 0 at the end of the stream.
    fn poll_head(&mut self, phase: u8, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.input.bytes().len();
        match self.input.poll_fill(&mut self.inner, context) {
            Poll::Ready(result) => {
                self.advance(phase);
                let fresh = self.input.bytes().get(before..).unwrap_or_default();
                if self.preface_left > 0 {
                    self.preface_left = self.preface_left.saturating_sub(fresh.len());
                    if self.preface_left == 0 {
                        self.phase.store(BODY, Ordering::Relaxed);
                    }
                } else {
                    self.line.scan(fresh);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.poll_deadline(phase, context));
                Poll::Ready(self.time_out(phase, context).map(|()| 0))
            }
        }
    }

    /// Ready with true when a request begins, with false when there will be none.
    pub(super) fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if !self.input.is_empty() {
            return Poll::Ready(true);
        }
        let phase = self.phase.load(Ordering::Relaxed);
        self.poll_head(phase, context).map(|read| read.is_ok_and(|count| count > 0))
    }

    /// Whether the connection may be one of HTTP/2 without TLS, by its first bytes.
    pub(super) fn may_be_http2(&self) -> bool {
        self.input.bytes().iter().zip(PREFACE).all(|(byte, expected)| byte == expected)
    }
}

impl AsyncRead for DeadlineStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.input.is_empty() {
            let phase = this.phase.load(Ordering::Relaxed);
            if phase == BODY {
                this.deadline = None;
                return Pin::new(&mut this.inner).poll_read(context, buffer);
            }
            ready!(this.poll_head(phase, context))?;
        }
        this.input.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.output.poll_write(&mut this.inner, context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.output.poll_drain(&mut this.inner, context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.output.poll_drain(&mut this.inner, context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.output.poll_write_vectored(&mut this.inner, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

delegate!(DeadlineStream, inner);

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[async_trait]
impl Peek for DeadlineStream {
    /// Pingora asks for as many bytes as the preface has, and its own streams wait for all of them, even when a request is
    /// shorter. Here it is enough that the first ones differ from the preface.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.input.bytes().len() < buffer.len() && self.may_be_http2() {
            let phase = self.phase.load(Ordering::Relaxed);
            if poll_fn(|context| self.poll_head(phase, context)).await? == 0 {
                break;
            }
        }
        for (to, from) in buffer.iter_mut().zip(self.input.bytes()) {
            *to = *from;
        }
        if self.input.bytes().starts_with(PREFACE) {
            // HTTP/2 has its own timeouts.
            self.headers_are_read();
        }
        Ok(true)
    }
}
