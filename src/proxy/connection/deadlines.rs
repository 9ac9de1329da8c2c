//! Deadlines for the request heads of a connection.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_proxy::Session as Exchange;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::ListenerTimeouts;
use crate::pool::descriptors::RefusalPermit;
use crate::telemetry::metrics::{Metrics, OpenGuard, Rejection};

use super::authentication::ConnectionAuthentication;
use super::request_line::RequestLine;
use super::timer::Timer;

/// No byte of the next request has arrived.
const IDLE: u8 = 0;
/// The request head is arriving.
const HEAD: u8 = 1;
/// The request head was read; no deadline applies.
const BODY: u8 = 2;

/// A connection with one deadline for a whole request head, and one for the pause between requests.
pub(crate) struct DeadlineStream {
    inner: Stream,
    /// Set through a shared reference, when a request begins and when its head was read; read by the task that reads.
    phase: AtomicU8,
    timeouts: ListenerTimeouts,
    first: bool,
    /// What was read to tell HTTP/2 from HTTP/1.
    peeked: Vec<u8>,
    /// How much of it was read again.
    replayed: usize,
    line: RequestLine,
    /// Bytes that HTTP/2 needs before its own timeouts apply; 0 for HTTP/1, and once they have arrived.
    preface_left: usize,
    deadline: Option<Instant>,
    /// One timer a connection, reset from request to request.
    timer: Option<Timer>,
    /// The peer's address, written once for all requests of the connection.
    peer: OnceLock<Option<HeaderValue>>,
    /// A head was refused that could not be parsed.
    refused: bool,
    /// Whether its requests share server connections with those of others.
    authentication: ConnectionAuthentication,
    metrics: Arc<Metrics>,
    /// Its request is refused, since descriptors run out.
    refusal: Option<RefusalPermit>,
    /// Counts it among the open connections of its listener.
    _open: Option<OpenGuard>,
}

/// The response when a request head does not arrive in time. Nothing else was sent for this request.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The response to a request head that Pingora cannot parse.
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 47\r\n\
      Cache-Control: no-store\r\nConnection: close\r\n\r\n400 Bad Request\nThe request is not valid HTTP.\n";

impl DeadlineStream {
    pub(super) fn new(
        inner: Stream,
        timeouts: ListenerTimeouts,
        metrics: &Arc<Metrics>,
        refusal: Option<RefusalPermit>,
        open: Option<OpenGuard>,
    ) -> Self {
        let http2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        Self {
            preface_left: if http2 { PREFACE.len() } else { 0 },
            inner,
            phase: AtomicU8::new(IDLE),
            timeouts,
            first: true,
            peeked: Vec::new(),
            replayed: 0,
            line: RequestLine::default(),
            deadline: None,
            timer: None,
            peer: OnceLock::new(),
            refused: false,
            authentication: ConnectionAuthentication::default(),
            metrics: Arc::clone(metrics),
            refusal,
            _open: open,
        }
    }

    /// The connection of an HTTP/1 request.
    pub(crate) fn of(exchange: &Exchange) -> Option<&Self> {
        exchange.stream().and_then(|stream| stream.as_any().downcast_ref::<Self>())
    }

    /// What handshakes of the request's connection have authenticated. The requests of an HTTP/2 connection have no access
    /// to it but by its digest.
    pub(crate) fn authentication_of(exchange: &Exchange) -> Option<&ConnectionAuthentication> {
        if let Some(connection) = Self::of(exchange) {
            return Some(&connection.authentication);
        }
        exchange.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The request head was read. True when its first line is valid.
    pub(crate) fn headers_are_read(&self) -> bool {
        self.phase.store(BODY, Ordering::Relaxed);
        !self.line.invalid
    }

    /// Its request is refused, since descriptors run out.
    pub(crate) fn is_refused(&self) -> bool {
        self.refusal.is_some()
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
        if phase == IDLE && !self.first { self.timeouts.keepalive } else { self.timeouts.request_header }
    }

    /// Ready when the deadline of the phase has passed.
    fn poll_deadline(&mut self, phase: u8, context: &mut Context<'_>) -> Poll<()> {
        let timeout = self.timeout(phase);
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + timeout);
        let timer = self.timer.get_or_insert_with(|| Timer::at(deadline));
        // Every request has a later deadline. A timer that is set too early is left as it is, and set again only when it
        // fires: once a pause, instead of once a request.
        if timer.deadline() > deadline {
            *timer = Timer::at(deadline);
        }
        loop {
            ready!(timer.poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            *timer = Timer::at(deadline);
        }
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

    /// No request head was read, and HTTP/2 does not begin: what Pingora writes now is its own refusal of the head.
    fn is_before_request(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != BODY && self.preface_left == 0
    }

    /// Refuses a head in place of Pingora, whose refusal names the software.
    fn refuse(&mut self, context: &mut Context<'_>) {
        if !std::mem::replace(&mut self.refused, true) {
            self.metrics.rejected.inc(Rejection::Malformed as usize);
            // Best effort, as above.
            let _ = Pin::new(&mut self.inner).poll_write(context, BAD_REQUEST);
        }
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

    /// Reads from the connection, with the deadline of the phase.
    fn poll_fresh(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let phase = self.phase.load(Ordering::Relaxed);
        if phase == BODY {
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
                        self.phase.store(BODY, Ordering::Relaxed);
                    }
                    return Poll::Ready(result);
                }
                self.line.scan(fresh);
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.poll_deadline(phase, context));
                Poll::Ready(self.time_out(phase, context))
            }
        }
    }
}

impl AsyncRead for DeadlineStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.replayed < this.peeked.len() {
            let left = this.peeked.get(this.replayed..).unwrap_or_default();
            let now = left.get(..buffer.remaining().min(left.len())).unwrap_or_default();
            buffer.put_slice(now);
            this.replayed += now.len();
            return Poll::Ready(Ok(()));
        }
        this.poll_fresh(context, buffer)
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_before_request() {
            this.refuse(context);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.inner).poll_write(context, bytes)
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
        let this = self.get_mut();
        if this.is_before_request() {
            this.refuse(context);
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut this.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

// The rest is delegated.

impl std::fmt::Debug for DeadlineStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadlineStream").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for DeadlineStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for DeadlineStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for DeadlineStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for DeadlineStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for DeadlineStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        // HTTP/1 asks for it with every request, HTTP/2 once for the connection.
        let http2 = self.preface_left > 0 || self.peeked == PREFACE;
        if !http2 {
            return None;
        }
        let no_response = ResponseHeader::build(StatusCode::OK, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(no_response), Some(Box::new(ConnectionAuthentication::default())))))
    }
}

impl GetSocketDigest for DeadlineStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[async_trait]
impl Peek for DeadlineStream {
    /// Pingora asks for as many bytes as the preface has, and its own streams wait for all of them, even when a request is
    /// shorter. Here it is enough that the first ones differ from the preface.
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
            if self.is_refused() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            // HTTP/2 has its own timeouts.
            self.headers_are_read();
        }
        Ok(true)
    }
}
