//! A connection, before its requests.
//!
//! Pingora reads request heads with one timeout a read, so a client that sends a byte now and then is never cut off, and it
//! waits without limit between the requests of a connection. It does not read the PROXY protocol either. So
//! [`ConnectionApp`] stands between Pingora's listeners and its proxy: it does the handshakes, and gives every connection a
//! [`DeadlineStream`].

mod accept;
mod acme_challenge;
pub(crate) mod authentication;
mod buffered_socket;
pub(crate) mod client_certificate;
mod deadline;
pub(crate) mod deadlines;
mod delegate;
mod distinguished_name;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod half_close;
pub(crate) mod handed_over;
mod http1;
mod http2;
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
mod slow_body;
mod timer;
mod write_buffer;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;

use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::Listener;
use crate::limits::client::ClientId;
use crate::limits::connections::OpenConnections;
use crate::limits::{self, ListenerLimits};
use crate::pool::descriptors::{self, Admission, RefusalPermit};
use crate::pool::exhaustion;
use crate::proxy::context::wall_clock;
use crate::proxy::request::client_addr::is_trusted_peer;
use crate::telemetry::metrics::{Limit, LocalResource, OpenCount, OpenGuard};

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
    pub open: Vec<ListenerConnections>,
}

/// The open connections of a listener.
pub struct ListenerConnections {
    gauge: OpenCount,
    counted: Arc<OpenConnections>,
}

impl ListenerConnections {
    /// Of the listener with this gauge.
    pub fn new(gauge: OpenCount) -> Self {
        Self { gauge, counted: Arc::default() }
    }
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
        let NewConnection { index, settings, client, before_http } = self.new_connection(&stream, refusal)?;
        let limits = Arc::clone(&settings.limits);
        let mut open = OpenConnection::begin(self.open.get(index)?, &limits)?;
        open.assign(client, &limits)?;
        let connection = match before_http {
            None => DeadlineStream::new(stream, settings, &self.app.metrics),
            Some(runtime) => self.accept(index, &runtime, settings, stream, &mut open).await?,
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

    async fn accept(
        &self,
        index: usize,
        runtime: &Runtime,
        settings: ConnectionSettings,
        stream: Stream,
        open: &mut OpenConnection,
    ) -> Option<DeadlineStream> {
        let metrics = &self.app.metrics;
        let listener = runtime.config.listeners.get(index)?;
        let tls = runtime.tls.get(index)?.as_ref();
        let handshake = Handshake { listener, tls, timeout: settings.timeouts.request_header, app: &self.app };
        let stream = handshake.accept(stream, |peer| open.assign(client_of(peer, listener), &settings.limits)).await?;
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

    /// The listener of a connection, and what its connections begin with.
    fn new_connection(&self, stream: &Stream, refusal: Option<RefusalPermit>) -> Option<NewConnection> {
        let runtime = self.app.current.load();
        let listeners = &runtime.config.listeners;
        let digest = stream.get_socket_digest();
        let local = if listeners.len() > 1 { digest.as_ref().and_then(|digest| digest.local_addr()) } else { None };
        let index = listener_of(listeners, local);
        let listener = listeners.get(index)?;
        let settings = ConnectionSettings::new(listener, runtime.limits.get(index)?, refusal);
        let peer = || digest.as_ref()?.peer_addr()?.as_inet().map(std::net::SocketAddr::ip);
        // With the PROXY protocol the client is known when its header was read.
        let client = if listener.proxy_protocol { None } else { client_of(peer(), listener) };
        let plain = listener.tls.is_none() && !listener.proxy_protocol;
        let before_http = if plain { None } else { Some(Arc::clone(&runtime)) };
        Some(NewConnection { index, settings, client, before_http })
    }
}

/// The client that a connection belongs to. One of a trusted proxy belongs to none: it carries the requests of many.
fn client_of(peer: Option<IpAddr>, listener: &Listener) -> Option<ClientId> {
    peer.filter(|peer| !is_trusted_peer(Some(*peer), &listener.trusted_proxies)).map(ClientId::of)
}

/// Counts a connection while it is open.
struct OpenConnection {
    _gauge: OpenGuard,
    counted: limits::connections::OpenConnection,
}

impl OpenConnection {
    /// `None`: it is one too many, and is closed.
    fn begin(listener: &ListenerConnections, limits: &ListenerLimits) -> Option<Self> {
        let counted = allow(listener.counted.begin(limits.config.connections), limits)?;
        memory::connection_opened();
        Some(Self { _gauge: listener.gauge.begin(), counted })
    }

    /// It is the connection of this client. `None`: it is one too many, and is closed.
    fn assign(&mut self, client: Option<ClientId>, limits: &ListenerLimits) -> Option<()> {
        let Some(client) = client else { return Some(()) };
        allow(self.counted.assign(client, limits.config.connections_per_client), limits)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        memory::connection_closed();
    }
}

fn allow<T>(counted: Result<T, Limit>, limits: &ListenerLimits) -> Option<T> {
    counted
        .inspect_err(|limit| {
            limits.limited.inc(*limit);
            tracing::debug!(limit = limit.label(), "connection refused");
        })
        .ok()
}

/// A connection and the listener that it came by.
struct NewConnection {
    /// The index of the listener.
    index: usize,
    settings: ConnectionSettings,
    client: Option<ClientId>,
    /// The version of the configuration, when a PROXY header or a TLS handshake comes first.
    before_http: Option<Arc<Runtime>>,
}
