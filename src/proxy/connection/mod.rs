//! Before a request: the connection.
//!
//! Pingora reads request headers with one timeout per read, so a client that dribbles a byte now and then is never cut,
//! and after the first request of a connection it waits without end. And it knows no PROXY protocol. [`ConnectionApp`] stands between Pingora's listeners and its
//! proxy, and gives every HTTP/1 connection a [`DeadlineStream`] with one deadline for a whole header and one for the
//! pause between requests.

mod accept;
pub(crate) mod deadlines;
pub(crate) mod listener;
mod proxy_protocol;
mod request_line;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use crate::app::runtime::Runtime;
use crate::app::state::AppState;
use crate::config::ListenerTimeouts;

use crate::proxy::EdgeProxy;
use accept::Handshake;

use deadlines::DeadlineStream;
use listener::listener_of;

/// What Pingora's listeners hand their connections to: each gets its guard before a byte of it is read.
pub struct ConnectionApp {
    /// What reads requests from connections.
    pub requests: Arc<RequestApp>,
    /// For the settings of listeners.
    pub app: Arc<AppState>,
}

#[async_trait]
impl ServerApp for ConnectionApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let guarded: Stream = Box::new(self.receive(stream).await?);
        ServerApp::process_new(&self.requests, guarded, shutdown).await
    }

    async fn cleanup(&self) {
        ServerApp::cleanup(&*self.requests).await;
    }
}

impl ConnectionApp {
    async fn receive(&self, stream: Stream) -> Option<DeadlineStream> {
        let metrics = &self.app.metrics;
        match self.door(&stream)? {
            ListenerKind::Plain(timeouts) => Some(DeadlineStream::new(stream, timeouts, metrics)),
            ListenerKind::Other(snapshot, index) => {
                let listener = snapshot.config.listeners.get(index)?;
                let tls = snapshot.tls.get(index)?.as_ref();
                let stream = Handshake { listener, tls, metrics }.accept(stream).await?;
                Some(DeadlineStream::new(stream, listener.timeouts, metrics))
            }
        }
    }

    fn door(&self, stream: &Stream) -> Option<ListenerKind> {
        let snapshot = self.app.current.load();
        let listeners = &snapshot.config.listeners;
        let digest = if listeners.len() > 1 { stream.get_socket_digest() } else { None };
        let local = digest.as_ref().and_then(|digest| digest.local_addr());
        let index = listener_of(listeners, local);
        let listener = listeners.get(index)?;
        if listener.tls.is_none() && !listener.proxy_protocol {
            return Some(ListenerKind::Plain(listener.timeouts));
        }
        Some(ListenerKind::Other(Arc::clone(&snapshot), index))
    }
}

/// What a connection came by.
enum ListenerKind {
    /// It begins with HTTP.
    Plain(ListenerTimeouts),
    /// Something comes before; the version of the configuration, and the listener's index in it.
    Other(Arc<Runtime>, usize),
}

/// Pingora's proxy with our hooks, and the guard set anew for each request of a connection.
pub struct RequestApp {
    /// Pingora's proxy with our hooks.
    pub proxy: Arc<HttpProxy<EdgeProxy>>,
    /// h2c, and how long an idle HTTP/2 connection is kept.
    pub options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for RequestApp {
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
        let guarded = session.stream().and_then(|stream| stream.as_any().downcast_ref::<DeadlineStream>());
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
