//! Writes the proxy's own responses through Pingora.

use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::{Error, Result};
use pingora_proxy::{FailToProxy, Session as Exchange};

use crate::message::OwnResponse;
use crate::proxy::context::{RequestContext, RequestId};
use crate::proxy::head;
use crate::proxy::response::error_response::{ErrorPage, error_response};
use crate::proxy::response::status;

/// The hook for a request that failed.
pub(crate) async fn on_failure(exchange: &mut Exchange, error: &Error, ctx: &RequestContext) -> FailToProxy {
    let status = ctx.refusal.map_or_else(|| status::of_error(error), |refusal| refusal.status);
    // Pingora closes the connection after a failure, and the response has to say so.
    exchange.set_keepalive(None);
    if status > 0
        && let Err(error) = send_error(exchange, ctx, status).await
    {
        tracing::debug!(%error, "error response could not be sent");
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

/// Sends an error page, unless a response has begun. It never carries a token.
pub(crate) async fn send_error(exchange: &mut Exchange, ctx: &RequestContext, status: u16) -> Result<()> {
    // After a 101 the connection speaks another protocol, in which a page would be garbage.
    if exchange.response_written().is_some_and(|written| head::response_view(written).is_final()) {
        return Ok(());
    }
    let clear_token = ctx.refusal.is_some_and(|refusal| refusal.clear_token);
    let page = ErrorPage {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        outcome: ctx.session.outcome,
        reason: ctx.refusal.map(|refusal| refusal.why),
        request_id: ctx.request_id.as_ref().and_then(RequestId::as_str),
        retry_after: ctx.refusal.map_or(0, |refusal| refusal.retry_after),
        clear_cookies: ctx
            .persistence()
            .filter(|_| clear_token)
            .map(|persistence| persistence.clear_cookies(ctx.client.secure))
            .unwrap_or_default(),
    };
    let response = error_response(head::view(exchange.req_header()).fields, page);
    send(exchange, response).await
}

/// Sends a response.
pub(crate) async fn send(exchange: &mut Exchange, response: OwnResponse) -> Result<()> {
    let OwnResponse { status, fields, body } = response;
    let mut head = ResponseHeader::build(status, Some(fields.len()))?;
    for (name, value) in fields {
        head.append_header(name, value)?;
    }
    let bodyless = body.is_empty() || exchange.req_header().method == Method::HEAD;
    exchange.write_response_header(Box::new(head), bodyless).await?;
    if !bodyless {
        exchange.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
