//! An answer in the proxy's own words, in the form that the client asks for. What applications answer is never touched.

use http::{HeaderValue, StatusCode, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session as Exchange;

use self::accept::form;
use self::body::Words;
use crate::proxy::context::RequestContext;
use crate::proxy::request::is_head;

mod accept;
mod body;
mod words;

/// Answers, unless an answer has begun. Never with a token.
pub(crate) async fn give(exchange: &mut Exchange, ctx: &RequestContext, status: u16) -> Result<()> {
    if exchange.response_written().is_some_and(|written| !written.status.is_informational()) {
        return Ok(());
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let form = form(&exchange.req_header().headers);
    let body = form.write(&Words {
        status,
        sentence: words::sentence(ctx, status),
        request_id: ctx.request_id.as_ref().and_then(|id| id.to_str().ok()),
    });
    let mut head = ResponseHeader::build(status, Some(7))?;
    head.insert_header(header::CONTENT_TYPE, form.content_type())?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    // Text stays text, whatever a trusted proxy's request id looks like.
    head.insert_header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        head.insert_header(header::RETRY_AFTER, HeaderValue::from_static("1"))?;
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        head.insert_header(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))?;
    }
    if let (Some(refusal), Some(persistence)) = (ctx.refusal, ctx.persistence())
        && refusal.clear_token
    {
        let overflow = persistence.overflow.iter().map(|overflow| &overflow.set_cookie);
        for set_cookie in [&persistence.set_cookie].into_iter().chain(overflow) {
            head.append_header(header::SET_COOKIE, set_cookie.clear(ctx.client.secure))?;
        }
    }
    let bodyless = is_head(exchange);
    exchange.write_response_header(Box::new(head), bodyless).await?;
    if !bodyless {
        exchange.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
