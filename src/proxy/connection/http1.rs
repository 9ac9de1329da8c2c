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

use super::deadlines::DeadlineStream;
use super::request_app::RequestApp;

/// Serves the connection until it ends. One of HTTP/2 is left to Pingora.
pub(super) async fn serve(requests: &Arc<RequestApp>, mut connection: Box<DeadlineStream>, shutdown: ShutdownWatch) {
    if matches!(connection.selected_alpn_proto(), Some(ALPN::H2)) {
        ServerApp::process_new(requests, connection, &shutdown).await;
        return;
    }
    let mut watch = shutdown.clone();
    // Registered once, however many requests there are.
    let mut stop = pin!(async move { watch.wait_for(|stop| *stop).await.map(drop) });
    let mut settings: Option<HttpPersistentSettings> = None;
    loop {
        let begins = poll_fn(|context| poll_request(&mut connection, stop.as_mut(), context)).await;
        if !begins {
            return;
        }
        if settings.is_none() && connection.may_be_http2() {
            ServerApp::process_new(requests, connection, &shutdown).await;
            return;
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
        let Some(reused) = requests.proxy.process_new_http(session, &shutdown).await else { return };
        let (stream, next) = reused.consume();
        let Ok(reused) = stream.into_any().downcast() else { return };
        (connection, settings) = (reused, next);
        connection.await_next_request();
    }
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
