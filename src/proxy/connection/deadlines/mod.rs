//! Deadlines for the request heads of a connection.

mod body;
mod fast_path;
mod linger;
mod preface;
mod refusal;

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::{ALPN, Stream};
use pingora_proxy::Session as Exchange;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::telemetry::metrics::{Metrics, Rejection};

use super::authentication::ConnectionAuthentication;
use super::deadline::Deadline;
use super::delegate::delegate;
use super::half_close::HalfClosed;
use super::handed_over::HandedOver;
use super::http2::Http2Connection;
use super::read_buffer::ReadBuffer;
use super::request_body::{BodyFraming, RequestBody};
use super::request_head::RequestHead;
use super::request_line::RequestLine;
use super::settings::ConnectionSettings;
use super::slow_body::SlowBody;
use super::write_buffer::WriteBuffer;

/// No byte of the next request has arrived.
const IDLE: u8 = 0;
/// The request head is arriving.
const HEAD: u8 = 1;
/// The request head was read; its body follows, then the response.
const BODY: u8 = 2;
/// Another protocol than HTTP/1: HTTP/2, or the one of an upgraded connection.
const TUNNEL: u8 = 3;
/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A chunked body, in place of its length.
const CHUNKED: u64 = u64::MAX;

/// A connection with one deadline for a whole request head, and one for the pause between requests. While a request is served,
/// it shows no more of the connection than that request.
pub(crate) struct DeadlineStream {
    inner: Stream,
    /// What was read and not used yet: the beginning of a request, maybe while another one is served.
    input: ReadBuffer,
    output: WriteBuffer,
    /// Set through a shared reference, when a request begins and when its head was read; read by the task that reads.
    phase: AtomicU8,
    settings: ConnectionSettings,
    first: bool,
    head: RequestHead,
    /// The body of the request; `None` until it is read.
    body: Option<RequestBody>,
    /// Its length, or [`CHUNKED`]. Set through a shared reference when the request head was read.
    framing: AtomicU64,
    half_closed: Option<HalfClosed>,
    line: RequestLine,
    /// Lines of the head so far. Not counted in a small head that arrives whole.
    lines: usize,
    slow_body: SlowBody,
    /// Bytes that HTTP/2 needs before its own timeouts apply; 0 for HTTP/1, and once they have arrived.
    preface_left: usize,
    deadline: Deadline,
    /// The peer's address, written once for all requests of the connection.
    peer: OnceLock<Option<HeaderValue>>,
    /// A head was refused that could not be parsed.
    refused: bool,
    /// Whether its requests share server connections with those of others.
    authentication: ConnectionAuthentication,
    /// What the requests of HTTP/2 share.
    http2: Option<Arc<Http2Connection>>,
    /// What the fast path knows of the request that Pingora's proxy is to go on with. Taken through a shared reference.
    handed_over: Mutex<Option<Box<HandedOver>>>,
    metrics: Arc<Metrics>,
}

/// The response when a request head does not arrive in time. Nothing else was sent for this request.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A head of so many bytes has fewer fields than Pingora accepts.
const SMALL_HEAD: usize = 1024;

impl DeadlineStream {
    pub(super) fn new(inner: Stream, settings: ConnectionSettings, metrics: &Arc<Metrics>) -> Self {
        let http2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        Self {
            preface_left: if http2 { PREFACE.len() } else { 0 },
            inner,
            input: ReadBuffer::default(),
            output: WriteBuffer::default(),
            phase: AtomicU8::new(IDLE),
            settings,
            first: true,
            head: RequestHead::default(),
            body: None,
            framing: AtomicU64::new(0),
            half_closed: None,
            line: RequestLine::default(),
            lines: 0,
            slow_body: SlowBody::default(),
            deadline: Deadline::default(),
            peer: OnceLock::new(),
            refused: false,
            authentication: ConnectionAuthentication::default(),
            http2: None,
            handed_over: Mutex::default(),
            metrics: Arc::clone(metrics),
        }
    }

    /// The connection of an HTTP/1 request.
    pub(crate) fn of(exchange: &Exchange) -> Option<&Self> {
        exchange.stream().and_then(|stream| stream.as_any().downcast_ref::<Self>())
    }

    /// A client that closes its side of the connection has cancelled its request.
    pub(crate) fn cancels_at_half_close(&self) -> bool {
        self.settings.cancels_at_half_close
    }

    /// What handshakes of the request's connection have authenticated. The requests of an HTTP/2 connection have no access
    /// to it but by its digest.
    pub(crate) fn authentication_of(exchange: &Exchange) -> Option<&ConnectionAuthentication> {
        if let Some(connection) = Self::of(exchange) {
            return Some(&connection.authentication);
        }
        Http2Connection::of(exchange.digest()).map(|connection| &connection.authentication)
    }

    /// The request head was read. True when its first line is valid.
    pub(crate) fn headers_are_read(&self) -> bool {
        self.phase.store(BODY, Ordering::Relaxed);
        !self.line.invalid
    }

    /// The request has a body.
    pub(crate) fn body_follows(&self, framing: BodyFraming) {
        let framing = match framing {
            BodyFraming::Length(length) => length,
            BodyFraming::Chunked => CHUNKED,
        };
        self.framing.store(framing, Ordering::Relaxed);
    }

    /// Its body must arrive at this rate, in bytes a second.
    pub(crate) fn limit_body_rate(&self, rate: u64, expects_continue: bool) {
        self.slow_body.limit(rate, expects_continue);
    }

    /// The response begins: the client may take its time with the rest of its body.
    pub(crate) fn lift_body_rate(&self) {
        self.slow_body.lift();
    }

    /// The connection no longer speaks HTTP.
    pub(crate) fn is_upgraded(&self) {
        self.phase.store(TUNNEL, Ordering::Relaxed);
    }

    /// Its request is refused, since descriptors run out.
    pub(crate) fn is_refused(&self) -> bool {
        self.settings.refusal.is_some()
    }

    /// The address of the peer as a header value: written once, since it is the same for the whole connection.
    pub(crate) fn peer_text(&self, peer: Option<IpAddr>) -> Option<&HeaderValue> {
        self.peer.get_or_init(|| HeaderValue::try_from(peer?.to_canonical().to_string()).ok()).as_ref()
    }

    fn client(&self) -> Option<IpAddr> {
        let digest = self.inner.get_socket_digest()?;
        digest.peer_addr().and_then(PeerAddr::as_inet).map(std::net::SocketAddr::ip)
    }

    /// The next request begins, unless its first bytes were already read to tell HTTP/2 from HTTP/1.
    pub(super) fn await_next_request(&self) {
        let _ = self.phase.compare_exchange(BODY, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn timeout(&self, phase: u8) -> Duration {
        if phase == IDLE && !self.first {
            self.settings.timeouts.keepalive
        } else {
            self.settings.timeouts.request_header
        }
    }

    fn poll_deadline(&mut self, phase: u8, context: &mut Context<'_>) -> Poll<()> {
        let timeout = self.timeout(phase);
        self.deadline.poll(timeout, context)
    }

    fn time_out(&mut self, phase: u8, context: &mut Context<'_>) -> io::Result<()> {
        if phase == IDLE {
            // No request has begun: the connection closes as if the client had closed it.
            return Ok(());
        }
        self.metrics.rejected.inc(Rejection::HeaderTimeout as usize);
        tracing::debug!(
            client = self.client().map(display),
            reason = Rejection::HeaderTimeout.label(),
            "request rejected"
        );
        if self.preface_left > 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Best effort: the response is small and the socket's buffer is empty.
        let _ = Pin::new(&mut self.inner).poll_write(context, REQUEST_TIMEOUT);
        let _ = Pin::new(&mut self.inner).poll_flush(context);
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The pause between requests is over: the request head gets its own deadline.
    fn begin_request(&mut self) {
        self.first = false;
        self.phase.store(HEAD, Ordering::Relaxed);
        self.deadline.clear();
        self.line = RequestLine::default();
        self.lines = 0;
        self.slow_body.reset();
        self.head = RequestHead::default();
        self.body = None;
        *self.framing.get_mut() = 0;
    }

    /// Reads a part of a request head, with the deadline of the phase. Returns how many bytes; 0 at the end of the stream.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.input.poll_fill(&mut self.inner, context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                let phase = *self.phase.get_mut();
                ready!(self.poll_deadline(phase, context));
                Poll::Ready(self.time_out(phase, context).map(|()| 0))
            }
        }
    }

    /// Ready with true when there are bytes of a request head, with false at the end of the stream.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if *self.phase.get_mut() == IDLE && self.preface_left == 0 {
                if !self.body().is_complete() {
                    // Where the next request begins is unknown.
                    return Poll::Ready(Ok(false));
                }
                self.skip_empty_lines();
            }
            if !self.input.is_empty() && self.input.bytes() != b"\r" {
                break;
            }
            if ready!(self.poll_more(context))? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        if *self.phase.get_mut() == IDLE {
            self.begin_request();
        }
        Poll::Ready(Ok(true))
    }

    /// Empty lines before a request are ignored (RFC 9112, section 2.2): old clients send one behind a body.
    fn skip_empty_lines(&mut self) {
        loop {
            match self.input.bytes() {
                [b'\r', b'\n', ..] => self.input.consume(2),
                [b'\n', ..] => self.input.consume(1),
                _ => return,
            }
        }
    }

    /// Ready with true when a request begins, with false when there will be none.
    pub(super) fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.poll_head(context).map(|begins| begins.unwrap_or(false))
    }

    /// Moves bytes of the request head, and none behind it.
    fn poll_read_head(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_complete() {
            // The parser does not agree.
            ready!(self.poll_deadline(HEAD, context));
            return Poll::Ready(self.time_out(HEAD, context));
        }
        if !ready!(self.poll_head(context))? {
            return Poll::Ready(Ok(()));
        }
        if self.preface_left > 0 {
            let before = buffer.filled().len();
            self.input.give(buffer);
            self.preface_left = self.preface_left.saturating_sub(buffer.filled().len() - before);
            if self.preface_left == 0 {
                *self.phase.get_mut() = TUNNEL;
            }
            return Poll::Ready(Ok(()));
        }
        let bytes = self.input.bytes();
        let bytes = bytes.get(..buffer.remaining()).unwrap_or(bytes);
        let count = self.head.advance(bytes);
        if self.head.is_complete() {
            self.deadline.clear();
        }
        let bytes = bytes.get(..count).unwrap_or_default();
        if self.lines > 0 || !self.head.is_complete() || count > SMALL_HEAD {
            self.lines += memchr::memchr_iter(b'\n', bytes).count();
        }
        self.line.scan(bytes);
        buffer.put_slice(bytes);
        self.input.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for DeadlineStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match *this.phase.get_mut() {
            BODY => this.poll_read_body(context, buffer),
            TUNNEL if this.input.is_empty() => Pin::new(&mut this.inner).poll_read(context, buffer),
            TUNNEL => {
                this.input.give(buffer);
                Poll::Ready(Ok(()))
            }
            _ => this.poll_read_head(context, buffer),
        }
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_before_request() {
            this.refuse(context);
            return Poll::Ready(Ok(bytes.len()));
        }
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
        if this.is_before_request() {
            this.refuse(context);
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        this.output.poll_write_vectored(&mut this.inner, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

delegate!(DeadlineStream, inner);
