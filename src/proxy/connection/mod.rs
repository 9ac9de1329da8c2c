//! A connection, before its requests.
//!
//! Pingora reads request heads with one timeout a read, so a client that sends a byte now and then is never cut off, and it
//! waits without limit between the requests of a connection. It does not read the PROXY protocol either. So
//! [`ConnectionApp`] stands between Pingora's listeners and its proxy: it does the handshakes, and gives every connection a
//! [`DeadlineStream`].

mod accept;
pub(crate) mod authentication;
mod buffered_socket;
mod deadline;
pub(crate) mod deadlines;
mod delegate;
mod half_close;
pub(crate) mod handed_over;
mod http1;
mod http2_body;
pub(crate) mod listener;
pub mod memory;
mod proxy_protocol;
pub(crate) mod read_buffer;
mod request_app;
pub(crate) mod request_body;
mod request_head;
mod request_line;
mod settings;
mod timer;
mod write_buffer;

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;

use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::pool::descriptors::{self, Admission, RefusalPermit};
use crate::pool::exhaustion;
use crate::proxy::context::wall_clock;
use crate::telemetry::metrics::{LocalResource, OpenCount, OpenGuard};

pub use self::request_app::RequestApp;

use self::accept::Handshake;
use self::deadlines::DeadlineStream;
use self::listener::listener_of;
use self::settings::ConnectionSettings;

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
        let (open, connection) = self.open(stream).await?;
        let next = http1::serve_first(&self.requests, connection, shutdown).await?;
        // The task in which this is called has room for everything that Pingora could do with a connection, some kilobytes
        // for as long as it runs. One of our own has room for what an idle connection needs. It begins between requests: a
        // task that begins with a request wakes another thread, and Pingora's pool of server connections, asked by two at
        // once, now and then has none.
        let (requests, shutdown) = (Arc::clone(&self.requests), shutdown.clone());
        tokio::spawn(async move {
            next.serve(&requests, shutdown).await;
            drop(open);
        });
        None
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.requests).await;
    }
}

impl ConnectionApp {
    /// The connection from where HTTP begins, and what counts it.
    async fn open(&self, stream: Stream) -> Option<(OpenConnection, Box<DeadlineStream>)> {
        let refusal = self.admit(&stream).ok()?;
        let (index, kind) = self.listener_kind(&stream, refusal)?;
        let open = OpenConnection::begin(self.open.get(index));
        let connection = match kind {
            ListenerKind::Plain(settings) => DeadlineStream::new(stream, settings, &self.app.metrics),
            ListenerKind::WithHandshake(before) => self.accept(index, before, stream).await?,
        };
        Some((open, Box::new(connection)))
    }

    /// With a permit: its request is refused. An error: it is closed.
    fn admit(&self, stream: &Stream) -> Result<Option<RefusalPermit>, ()> {
        match descriptors::admit(stream.id()) {
            Admission::Served => Ok(None),
            Admission::Refused(permit) => {
                self.note_exhaustion();
                Ok(Some(permit))
            }
            Admission::Closed => {
                self.note_exhaustion();
                Err(())
            }
        }
    }

    async fn accept(&self, index: usize, before: BeforeHttp, stream: Stream) -> Option<DeadlineStream> {
        let BeforeHttp { runtime, settings } = before;
        let metrics = &self.app.metrics;
        let listener = runtime.config.listeners.get(index)?;
        let tls = runtime.tls.get(index)?.as_ref();
        let handshake = Handshake { listener, tls, timeout: settings.timeouts.request_header, metrics };
        let stream = handshake.accept(stream).await?;
        // HTTP/2 has no response before its requests; the connection closes.
        if settings.refusal.is_some() && matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return None;
        }
        Some(DeadlineStream::new(stream, settings, metrics))
    }

    fn note_exhaustion(&self) {
        self.app.metrics.exhausted_accepts.inc(LocalResource::Descriptors);
        exhaustion::warn(LocalResource::Descriptors, "a client was refused", wall_clock().0 / 1000);
    }

    /// The listener of a connection: its index, and what its connections begin with.
    fn listener_kind(&self, stream: &Stream, refusal: Option<RefusalPermit>) -> Option<(usize, ListenerKind)> {
        let runtime = self.app.current.load();
        let listeners = &runtime.config.listeners;
        let digest = if listeners.len() > 1 { stream.get_socket_digest() } else { None };
        let local = digest.as_ref().and_then(|digest| digest.local_addr());
        let index = listener_of(listeners, local);
        let listener = listeners.get(index)?;
        let settings = ConnectionSettings::new(listener, refusal);
        if listener.tls.is_none() && !listener.proxy_protocol {
            return Some((index, ListenerKind::Plain(settings)));
        }
        Some((index, ListenerKind::WithHandshake(BeforeHttp { runtime: Arc::clone(&runtime), settings })))
    }
}

/// Counts a connection while it is open.
struct OpenConnection {
    _listener: Option<OpenGuard>,
}

impl OpenConnection {
    fn begin(listener: Option<&OpenCount>) -> Self {
        memory::connection_opened();
        Self { _listener: listener.map(OpenCount::begin) }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        memory::connection_closed();
    }
}

/// What connections of a listener begin with.
enum ListenerKind {
    /// HTTP.
    Plain(ConnectionSettings),
    /// A PROXY header or a TLS handshake.
    WithHandshake(BeforeHttp),
}

struct BeforeHttp {
    /// The version of the configuration.
    runtime: Arc<Runtime>,
    settings: ConnectionSettings,
}
