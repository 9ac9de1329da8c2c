//! The requests of an HTTP/1 connection, one after the other.
//!
//! Pingora has such a loop too. It begins to read a request with everything allocated that the request will need, and an idle
//! connection keeps that. Here Pingora is called when the first byte of a request has arrived.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, Ssl};
use pingora::server::ShutdownWatch;

use crate::proxy::fast_path::ServeResult;

use super::deadlines::DeadlineStream;
use super::request_app::RequestApp;

/// How a connection goes on when its first request was served.
pub(super) enum Continuation {
    /// With more requests, and what Pingora keeps from one to the next.
    Http1(Box<DeadlineStream>, Option<HttpPersistentSettings>),
    /// As one of HTTP/2, which is left to Pingora.
    Http2(Box<DeadlineStream>),
}

/// Serves the first request of a connection. `None`: it has ended.
pub(super) async fn serve_first(
    requests: &Arc<RequestApp>,
    mut connection: Box<DeadlineStream>,
    shutdown: &ShutdownWatch,
) -> Option<Continuation> {
    if matches!(connection.selected_alpn_proto(), Some(ALPN::H2)) {
        return Some(Continuation::Http2(connection));
    }
    let mut watch = requests.closing_idle.clone();
    let mut stop = pin!(async move { watch.wait_for(|stop| *stop).await.map(drop) });
    if !poll_fn(|context| poll_request(&mut connection, stop.as_mut(), context)).await {
        return None;
    }
    if connection.may_be_http2() {
        return Some(Continuation::Http2(connection));
    }
    let (connection, settings) = serve_request(requests, connection, None, shutdown).await?;
    Some(Continuation::Http1(connection, settings))
}

impl Continuation {
    /// Serves the connection until it ends.
    pub(super) async fn serve(self, requests: &Arc<RequestApp>, shutdown: ShutdownWatch) {
        let (mut connection, mut settings) = match self {
            Self::Http1(connection, settings) => (connection, settings),
            Self::Http2(mut connection) => {
                let shared = connection.begin_http2();
                ServerApp::process_new(requests, connection, &shutdown).await;
                shared.finish().await;
                return;
            }
        };
        let mut watch = requests.closing_idle.clone();
        // Registered once, however many requests there are.
        let mut stop = pin!(async move { watch.wait_for(|stop| *stop).await.map(drop) });
        while poll_fn(|context| poll_request(&mut connection, stop.as_mut(), context)).await {
            let Some(reused) = serve_request(requests, connection, settings, &shutdown).await else { return };
            (connection, settings) = reused;
        }
    }
}

/// Serves a request. `None`: it was the last one of its connection.
async fn serve_request(
    requests: &Arc<RequestApp>,
    mut connection: Box<DeadlineStream>,
    settings: Option<HttpPersistentSettings>,
    shutdown: &ShutdownWatch,
) -> Option<(Box<DeadlineStream>, Option<HttpPersistentSettings>)> {
    match requests.fast_path.serve(&mut connection, shutdown).await {
        ServeResult::Next => return Some((connection, settings)),
        ServeResult::Closed => return None,
        ServeResult::FullPath => {}
    }
    let mut session = ServerSession::new_http1(connection);
    // The deadlines replace Pingora's timeout per read, unless the connection must close. Whether the service stops, the
    // proxy looks at with every request.
    let mut keepalive = Some(0);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
        keepalive = session.get_keepalive().map(|_| 0);
    }
    session.set_keepalive(keepalive);
    let (stream, settings) = requests.proxy.process_new_http(session, shutdown).await?.consume();
    let connection = stream.into_any().downcast::<DeadlineStream>().ok()?;
    connection.await_next_request();
    Some((connection, settings))
}

/// Ready with true when a request begins, with false when the client or the service has ended the connection.
fn poll_request<S>(connection: &mut DeadlineStream, stop: Pin<&mut S>, context: &mut Context<'_>) -> Poll<bool>
where
    S: Future,
{
    match connection.poll_request(context) {
        Poll::Pending if stop.poll(context).is_ready() => Poll::Ready(false),
        other => other,
    }
}
