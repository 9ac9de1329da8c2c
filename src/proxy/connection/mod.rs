//! A connection, before its requests.
//!
//! Pingora reads request heads with one timeout a read, so a client that sends a byte now and then is never cut off, and it
//! waits without limit between the requests of a connection. It does not read the PROXY protocol either. So
//! [`ConnectionApp`] stands between Pingora's listeners and its proxy: it does the handshakes, and gives every connection a
//! [`DeadlineStream`].

mod accept;
pub(crate) mod authentication;
pub(crate) mod deadlines;
pub(crate) mod listener;
mod proxy_protocol;
mod request_line;
mod timer;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::ListenerTimeouts;
use crate::pool::descriptors::{self, Admission, RefusalPermit};
use crate::pool::exhaustion;
use crate::proxy::EdgeProxy;
use crate::proxy::context::wall_clock;
use crate::telemetry::metrics::{LocalResource, OpenCount};

use self::accept::Handshake;
use self::deadlines::DeadlineStream;
use self::listener::listener_of;

/// Gets the connections of Pingora's listeners, and wraps each before a byte of it is read.
pub struct ConnectionApp {
    /// Reads the requests of connections.
    pub requests: Arc<RequestApp>,
    /// For the settings of listeners.
    pub app: Arc<AppState>,
    /// The open connections of each listener, in the configuration's order.
    pub open: Vec<OpenCount>,
}

#[async_trait]
impl ServerApp for ConnectionApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let stream: Stream = Box::new(self.accept(stream).await?);
        ServerApp::process_new(&self.requests, stream, shutdown).await
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.requests).await;
    }
}

impl ConnectionApp {
    async fn accept(&self, stream: Stream) -> Option<DeadlineStream> {
        let refusal = match descriptors::admit(stream.id()) {
            Admission::Served => None,
            Admission::Refused(permit) => {
                self.note_exhaustion();
                Some(permit)
            }
            Admission::Closed => {
                self.note_exhaustion();
                return None;
            }
        };
        let metrics = &self.app.metrics;
        let (index, kind) = self.listener_kind(&stream)?;
        let open = self.open.get(index).map(OpenCount::begin);
        match kind {
            ListenerKind::Plain(timeouts) => {
                let timeouts = limited(timeouts, refusal.as_ref());
                Some(DeadlineStream::new(stream, timeouts, metrics, refusal, open))
            }
            ListenerKind::WithHandshake(runtime) => {
                let listener = runtime.config.listeners.get(index)?;
                let timeouts = limited(listener.timeouts, refusal.as_ref());
                let tls = runtime.tls.get(index)?.as_ref();
                let handshake = Handshake { listener, tls, timeout: timeouts.request_header, metrics };
                let stream = handshake.accept(stream).await?;
                // HTTP/2 has no response before its requests; the connection closes.
                if refusal.is_some() && matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
                    return None;
                }
                Some(DeadlineStream::new(stream, timeouts, metrics, refusal, open))
            }
        }
    }

    fn note_exhaustion(&self) {
        self.app.metrics.exhausted_accepts.inc(LocalResource::Descriptors);
        exhaustion::warn(LocalResource::Descriptors, "a client was refused", wall_clock().0 / 1000);
    }

    /// The listener of a connection: its index, and what its connections begin with.
    fn listener_kind(&self, stream: &Stream) -> Option<(usize, ListenerKind)> {
        let runtime = self.app.current.load();
        let listeners = &runtime.config.listeners;
        let digest = if listeners.len() > 1 { stream.get_socket_digest() } else { None };
        let local = digest.as_ref().and_then(|digest| digest.local_addr());
        let index = listener_of(listeners, local);
        let listener = listeners.get(index)?;
        if listener.tls.is_none() && !listener.proxy_protocol {
            return Some((index, ListenerKind::Plain(listener.timeouts)));
        }
        Some((index, ListenerKind::WithHandshake(Arc::clone(&runtime))))
    }
}

/// How long a connection that is refused may hold its descriptor before its request has arrived.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

fn limited(mut timeouts: ListenerTimeouts, refusal: Option<&RefusalPermit>) -> ListenerTimeouts {
    if refusal.is_some() {
        timeouts.request_header = timeouts.request_header.min(REFUSAL_TIMEOUT);
    }
    timeouts
}

/// What connections of a listener begin with.
enum ListenerKind {
    /// HTTP.
    Plain(ListenerTimeouts),
    /// A PROXY header or a TLS handshake, by this version of the configuration.
    WithHandshake(Arc<Runtime>),
}

/// Pingora's proxy with the hooks of [`EdgeProxy`]; resets the deadlines for each request of a connection.
pub struct RequestApp {
    /// Pingora's proxy.
    pub proxy: Arc<HttpProxy<EdgeProxy>>,
    /// h2c, and how long an idle HTTP/2 connection is kept.
    pub options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for RequestApp {
    // What `async_trait` makes of an `async fn`, written out: Pingora's future is returned as it is, instead of being moved
    // into another one, some kilobytes with every request.
    fn process_new_http<'this, 'shutdown, 'future>(
        self: &'this Arc<Self>,
        mut session: ServerSession,
        shutdown: &'shutdown ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'future>>
    where
        'this: 'future,
        'shutdown: 'future,
    {
        let connection = session.stream().and_then(|stream| stream.as_any().downcast_ref::<DeadlineStream>());
        if let Some(connection) = connection {
            connection.await_next_request();
            // The deadlines replace Pingora's timeout per read, unless the connection must close.
            let keepalive = session.get_keepalive();
            session.set_keepalive(keepalive.map(|_| 0));
        }
        self.proxy.process_new_http(session, shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
