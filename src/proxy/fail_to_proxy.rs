//! From what went wrong to what the client is told: the only place that does so.

use bytes::Bytes;
use http::{StatusCode, header};
use pingora::ErrorType::{
    ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused, ConnectTimedout, ConnectionClosed, HTTPStatus,
    ReadError, ReadTimedout, SocketError, WriteError, WriteTimedout,
};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorSource, Result};
use pingora_proxy::{FailToProxy, Session as Exchange};

use super::context::RequestContext;
use super::request_filter::is_head;

/// The hook.
pub(super) async fn run(exchange: &mut Exchange, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
    let status = match ctx.refusal {
        Some(refusal) => refusal.status,
        None => status_of(error),
    };
    // Pingora closes the connection after a failure, so the client must be told.
    exchange.set_keepalive(None);
    if status > 0
        && let Err(error) = answer(exchange, ctx, status).await
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

/// Answers in the proxy's own words, unless an answer has begun. Never with a token.
pub(super) async fn answer(exchange: &mut Exchange, ctx: &RequestContext, status: u16) -> Result<()> {
    if exchange.response_written().is_some_and(|written| !written.status.is_informational()) {
        return Ok(());
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = Bytes::from(format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or("Error")));
    let mut head = ResponseHeader::build(status, Some(6))?;
    head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        head.insert_header(header::RETRY_AFTER, "1")?;
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        head.insert_header(header::ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")?;
    }
    if let (Some(refusal), Some(persistence)) = (ctx.refusal, ctx.persistence())
        && refusal.clear_token
    {
        head.append_header(header::SET_COOKIE, persistence.set_cookie.clear(ctx.client.secure))?;
    }
    let bodyless = is_head(exchange);
    exchange.write_response_header(Box::new(head), bodyless).await?;
    if !bodyless {
        exchange.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
