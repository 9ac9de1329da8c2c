//! A response to a request whose body is not complete: an upload that is refused, or that its server has answered early.
//!
//! A client that still sends may not read the response when the connection is closed, or the stream reset, at once. So the rest
//! of the body is read and dropped for a moment; likewise what follows a request when its connection is closed, since the
//! system resets a connection that is closed with unread bytes.

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session as Exchange;

use crate::proxy::context::RequestContext;
use crate::proxy::hook::{self, HookFuture};
use crate::proxy::response::status;

/// At the end of the hook for what follows a request. How long it may take was set when the request began.
pub(crate) fn run<'hook>(
    exchange: &'hook mut Exchange,
    error: Option<&Error>,
    ctx: &RequestContext,
) -> HookFuture<'hook, ()> {
    if error.is_none() && exchange.as_downstream_mut().is_body_done() {
        return hook::nothing();
    }
    let malformed = error.is_some_and(status::is_body_malformed);
    let client_failed = error.is_some_and(|error| {
        *error.esource() == ErrorSource::Downstream && !matches!(error.etype(), ErrorType::HTTPStatus(_))
    });
    if ctx.upgrade || (client_failed && !malformed) || exchange.response_written().is_none() {
        return hook::nothing();
    }
    Box::pin(end(exchange, malformed, error.is_some()))
}

/// `closes`: Pingora drops the connection of a request that failed.
async fn end(exchange: &mut Exchange, malformed: bool, closes: bool) {
    // Where a malformed body ends is unknown.
    if !malformed && exchange.as_downstream_mut().drain_request_body().await.is_err() {
        exchange.set_keepalive(None);
    }
    if closes && exchange.as_downstream().as_http1().is_some() {
        exchange.as_downstream_mut().shutdown().await;
    }
}
