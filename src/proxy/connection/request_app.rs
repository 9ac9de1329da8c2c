//! What serves the requests of a connection: Pingora's proxy, with what Pingora leaves out.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use h2::Reason;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use crate::proxy::EdgeProxy;
use crate::proxy::context::BodyProgress;
use crate::proxy::fast_path::FastPath;
use crate::telemetry::metrics::Rejection;

use super::deadlines::DeadlineStream;
use super::http2::{self, Http2Connection};
use super::http2_body;

/// Pingora's proxy with the hooks of [`EdgeProxy`]; resets the deadlines for each request of a connection.
pub struct RequestApp {
    /// Pingora's proxy.
    pub proxy: Arc<HttpProxy<EdgeProxy>>,
    /// h2c, and how long an idle HTTP/2 connection is kept.
    pub options: HttpServerOptions,
    /// The short way of plain exchanges of HTTP/1.1.
    pub fast_path: FastPath,
    /// True when connections of HTTP/1 that wait for a request are closed. Not when the listeners close: a request may be on
    /// its way then, and another process has taken the listeners over.
    pub closing_idle: ShutdownWatch,
}

impl RequestApp {
    /// Serves a request of HTTP/2. One that is too many for its connection is refused, so that its client may send it again.
    fn serve_http2<'future>(
        self: &'future Arc<Self>,
        mut session: ServerSession,
        shutdown: &'future ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'future>> {
        let Some(unfinished) = Http2Connection::of(session.digest()).and_then(Http2Connection::begin_request) else {
            self.fast_path.app.metrics.rejected.inc(Rejection::Streams as usize);
            session.shutdown_with_reason(Reason::REFUSED_STREAM);
            return Box::pin(ready(None));
        };
        let request = if session.is_body_done() {
            self.proxy.process_new_http(session, shutdown)
        } else {
            Box::pin(self.watch_body(session, shutdown))
        };
        Box::pin(async move {
            let _unfinished = unfinished;
            request.await
        })
    }

    /// Serves a request of HTTP/2 whose body is still to come.
    async fn watch_body(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let progress = BodyProgress::new(session.req_header().clone());
        session.req_header_mut().extensions_mut().insert(progress.clone());
        let request = self.proxy.process_new_http(session, shutdown);
        http2_body::watch(request, &progress).await
    }
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
        if session.is_http2() {
            return self.serve_http2(session, shutdown);
        }
        self.proxy.process_new_http(session, shutdown)
    }

    fn h2_options(&self) -> Option<H2Options> {
        let runtime = self.fast_path.app.current.load();
        let sizes = runtime.config.listeners.iter().map(|listener| listener.max_header_size);
        Some(http2::options(sizes.max().unwrap_or_default()))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
