//! What the fast path asks of a client connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::tls::SslDigest;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWrite;

use crate::config::Listener;
use crate::proxy::connection::authentication::ConnectionAuthentication;
use crate::proxy::connection::handed_over::HandedOver;
use crate::proxy::connection::listener::listener_of;
use crate::proxy::connection::request_head::RequestHead;

use super::{BODY, DeadlineStream, HEAD};

/// Most bytes and fields of a head that is waited for.
const USUAL_HEAD: usize = 16 << 10;
const USUAL_FIELDS: usize = 64;

impl DeadlineStream {
    /// The head of the next request, when all of it has arrived. In one with bare LFs, more may be behind the head.
    pub(crate) fn whole_head(&self) -> Option<&[u8]> {
        let bytes = self.input.bytes();
        RequestHead::length_of(bytes).and_then(|length| bytes.get(..length))
    }

    /// Waits for the rest of the head of the next request. An error: its time is over, and the client was told so. Not ready for
    /// what is not the beginning of a usual head: that is for Pingora.
    pub(crate) async fn rest_of_head(&mut self, shutdown: &ShutdownWatch) -> io::Result<bool> {
        let mut watch = shutdown.clone();
        let mut stop = pin!(async move { watch.wait_for(|stop| *stop).await.map(drop) });
        while self.whole_head().is_none() {
            if !self.may_be_head() {
                return Ok(false);
            }
            let more = poll_fn(|context| match self.poll_more(context) {
                Poll::Pending if stop.as_mut().poll(context).is_ready() => Poll::Ready(Ok(0)),
                other => other,
            });
            if more.await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the bytes of the next request are the beginning of a usual head.
    fn may_be_head(&self) -> bool {
        let mut fields = [httparse::EMPTY_HEADER; USUAL_FIELDS];
        let bytes = self.input.bytes();
        let parsed = httparse::Request::new(&mut fields).parse(bytes);
        bytes.len() <= USUAL_HEAD && parsed.is_ok_and(|parsed| parsed.is_partial())
    }

    /// What has arrived behind a head of that length: a body, or the next request.
    pub(crate) fn behind_head(&self, head: usize) -> &[u8] {
        self.input.bytes().get(head..).unwrap_or_default()
    }

    /// The request begins, which has so many bytes with its body.
    pub(crate) fn begin_exchange(&mut self, length: usize) {
        self.input.consume(length);
        *self.phase.get_mut() = BODY;
        self.deadline.clear();
    }

    /// The request goes to Pingora's proxy, which reads it from its first byte.
    pub(crate) fn put_back(&mut self, request: &[u8], handed_over: HandedOver) {
        self.input.put_before(request);
        *self.phase.get_mut() = HEAD;
        self.deadline.clear();
        *self.handed_over.get_mut() = Some(Box::new(handed_over));
    }

    /// What the fast path knows of the request.
    pub(crate) fn take_handed_over(&self) -> Option<Box<HandedOver>> {
        self.handed_over.lock().take()
    }

    /// The response was sent: the next request may begin.
    pub(crate) fn end_exchange(&mut self) {
        self.deadline.clear();
        self.await_next_request();
    }

    /// Index of the listener that it came by.
    pub(crate) fn listener(&self, listeners: &[Listener]) -> usize {
        if listeners.len() <= 1 {
            return 0;
        }
        let digest = self.inner.get_socket_digest();
        listener_of(listeners, digest.as_ref().and_then(|digest| digest.local_addr()))
    }

    /// The other end, and how it came by TLS, if it did.
    pub(crate) fn peer(&self) -> (Option<IpAddr>, Option<Arc<SslDigest>>) {
        let digest = self.inner.get_socket_digest();
        let peer = digest.as_ref().and_then(|digest| digest.peer_addr()).and_then(PeerAddr::as_inet);
        (peer.map(std::net::SocketAddr::ip), self.inner.get_ssl_digest())
    }

    /// Whether its requests share server connections with those of others.
    pub(crate) const fn authentication(&self) -> &ConnectionAuthentication {
        &self.authentication
    }

    /// The next wait has its own deadline.
    pub(crate) fn clear_deadline(&mut self) {
        self.deadline.clear();
    }

    /// Ready when the current wait has taken that long.
    pub(crate) fn poll_timeout(&mut self, timeout: Duration, context: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll(timeout, context)
    }

    /// Ready when the client is gone, while its response is under way.
    pub(crate) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        debug_assert_eq!(self.phase.load(Ordering::Relaxed), BODY);
        self.poll_client(context).map(|_| ())
    }

    /// Sends bytes, and then more; ready when the system has taken all of them. `sent`: how many it has.
    pub(crate) fn poll_send(
        &mut self,
        (first, second): (&[u8], &[u8]),
        sent: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.output.poll_drain(&mut self.inner, context))?;
        while *sent < first.len() + second.len() {
            let one = first.get(*sent..).unwrap_or_default();
            let other = second.get(sent.saturating_sub(first.len())..).unwrap_or_default();
            let inner = Pin::new(&mut self.inner);
            let written = match (one, other) {
                ([], bytes) | (bytes, []) => inner.poll_write(context, bytes),
                _ => inner.poll_write_vectored(context, &[IoSlice::new(one), IoSlice::new(other)]),
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *sent += count,
            }
            // Each write has its own deadline.
            self.deadline.clear();
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }
}
