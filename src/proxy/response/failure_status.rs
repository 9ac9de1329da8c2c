//! From what went wrong to the status that the client is told: the only place that does so.

use pingora::ErrorType::{
    ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused, ConnectTimedout, ConnectionClosed, HTTPStatus,
    ReadError, ReadTimedout, SocketError, WriteError, WriteTimedout,
};
use pingora::{Error, ErrorSource};
use pingora_proxy::{FailToProxy, Session as Exchange};

use crate::proxy::context::RequestContext;
use crate::proxy::response::error_response;

/// The hook.
pub(crate) async fn run(exchange: &mut Exchange, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
    let status = match ctx.refusal {
        Some(refusal) => refusal.status,
        None => status_of(error),
    };
    // Pingora closes the connection after a failure, so the client must be told.
    exchange.set_keepalive(None);
    if status > 0
        && let Err(error) = error_response::give(exchange, ctx, status).await
    {
        tracing::debug!(%error, "an error answer could not be sent");
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

fn status_of(error: &Error) -> u16 {
    match (error.etype(), error.esource()) {
        (HTTPStatus(status), _) => *status,
        (
            ConnectTimedout | ConnectRefused | ConnectNoRoute | ConnectError | ConnectProxyFailure | SocketError,
            ErrorSource::Upstream,
        ) => 503,
        (ReadTimedout | WriteTimedout, ErrorSource::Upstream) => 504,
        (_, ErrorSource::Upstream) => 502,
        (ReadTimedout, ErrorSource::Downstream) => 408,
        // The client is gone; there is nobody to tell.
        (ReadError | WriteError | WriteTimedout | ConnectionClosed, ErrorSource::Downstream) => 0,
        (_, ErrorSource::Downstream) => 400,
        (_, ErrorSource::Internal | ErrorSource::Unset) => 500,
    }
}
