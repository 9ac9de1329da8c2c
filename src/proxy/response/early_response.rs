//! A response to a request whose body is not complete: an upload that is refused, or that its server has answered early.
//!
//! A client that still sends may not read the response when the connection is closed, or the stream reset, at once. So the rest
//! of the body is read and dropped for a moment.

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session as Exchange;

use crate::proxy::context::RequestContext;
use crate::proxy::hook::{self, HookFuture};

/// At the end of the hook for what follows a request. How long it may take was set when the request began.
pub(crate) fn run<'hook>(
    exchange: &'hook mut Exchange,
    error: Option<&Error>,
    ctx: &RequestContext,
) -> HookFuture<'hook, ()> {
    if ctx.upgrade || exchange.as_downstream_mut().is_body_done() {
        return hook::nothing();
    }
    let client_failed = error.is_some_and(|error| {
        *error.esource() == ErrorSource::Downstream && !matches!(error.etype(), ErrorType::HTTPStatus(_))
    });
    if client_failed || exchange.response_written().is_none() {
        return hook::nothing();
    }
    Box::pin(drain(exchange))
}

async fn drain(exchange: &mut Exchange) {
    if exchange.as_downstream_mut().drain_request_body().await.is_err() {
        exchange.set_keepalive(None);
    }
}
