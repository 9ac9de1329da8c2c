//! Before a request: the connection.
//!
//! Pingora reads request headers with one timeout per read, so a client that dribbles a byte now and then is never cut,
//! and after the first request of a connection it waits without end. And it knows no PROXY protocol. [`Front`] stands between Pingora's listeners and its
//! proxy, and gives every HTTP/1 connection a [`Guarded`] stream with one deadline for a whole header and one for the
//! pause between requests.

mod accept;
mod deadlines;
mod proxy_header;
mod request_line;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::{ListenAddress, Listener, ListenerTimeouts};

use crate::proxy::EdgeProxy;
use accept::Arrival;

pub use deadlines::Guarded;

/// What Pingora's listeners hand their connections to: each gets its guard before a byte of it is read.
pub struct Front {
    /// What reads requests from connections.
    pub requests: Arc<Requests>,
    /// For the settings of listeners.
    pub app: Arc<AppState>,
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let guarded: Stream = Box::new(self.receive(stream).await?);
        ServerApp::process_new(&self.requests, guarded, shutdown).await
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.requests).await;
    }
}

impl Front {
    async fn receive(&self, stream: Stream) -> Option<Guarded> {
        let metrics = &self.app.metrics;
        match self.door(&stream)? {
            Door::Plain(timeouts) => Some(Guarded::new(stream, timeouts, metrics)),
            Door::Other(snapshot, index) => {
                let listener = snapshot.config.listeners.get(index)?;
                let tls = snapshot.tls.get(index)?.as_ref();
                let stream = Arrival { listener, tls, metrics }.welcome(stream).await?;
                Some(Guarded::new(stream, listener.timeouts, metrics))
            }
        }
    }

    fn door(&self, stream: &Stream) -> Option<Door> {
        let snapshot = self.app.current.load();
        let listeners = &snapshot.config.listeners;
        let digest = if listeners.len() > 1 { stream.get_socket_digest() } else { None };
        let local = digest.as_ref().and_then(|digest| digest.local_addr());
        let index = listener_of(listeners, local);
        let listener = listeners.get(index)?;
        if listener.tls.is_none() && !listener.proxy_protocol {
            return Some(Door::Plain(listener.timeouts));
        }
        Some(Door::Other(Arc::clone(&snapshot), index))
    }
}

/// What a connection came by.
enum Door {
    /// It begins with HTTP.
    Plain(ListenerTimeouts),
    /// Something comes before; the version of the configuration, and the listener's index in it.
    Other(Arc<Runtime>, usize),
}

/// Pingora's proxy with our hooks, and the guard set anew for each request of a connection.
pub struct Requests {
    /// Pingora's proxy with our hooks.
    pub proxy: Arc<HttpProxy<EdgeProxy>>,
    /// h2c, and how long an idle HTTP/2 connection is kept.
    pub options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for Requests {
    // What `async_trait` makes of an `async fn`, written out: Pingora's own future is handed on as it is, instead of being
    // moved into one of ours, kilobytes with every request.
    fn process_new_http<'this, 'shutdown, 'future>(
        self: &'this Arc<Self>,
        mut session: ServerSession,
        shutdown: &'shutdown ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'future>>
    where
        'this: 'future,
        'shutdown: 'future,
    {
        let guarded = session.stream().and_then(|stream| stream.as_any().downcast_ref::<Guarded>());
        if let Some(guarded) = guarded {
            guarded.await_next_request();
            // The guard keeps the time; Pingora's timeout per read is switched off, unless the connection must close.
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

/// Index of the listener that a connection came by.
pub fn listener_of(listeners: &[Listener], local: Option<&PeerAddr>) -> usize {
    if listeners.len() <= 1 {
        return 0;
    }
    let matches = |exact: bool| {
        listeners.iter().position(|listener| match (&listener.address, local) {
            (ListenAddress::Tcp(address), Some(PeerAddr::Inet(local))) if exact => address == local,
            (ListenAddress::Tcp(address), Some(PeerAddr::Inet(local))) => {
                address.ip().is_unspecified() && address.port() == local.port()
            }
            (ListenAddress::Unix(path), Some(PeerAddr::Unix(local))) => local.as_pathname() == Some(path),
            _ => false,
        })
    };
    matches(true).or_else(|| matches(false)).unwrap_or(0)
}
