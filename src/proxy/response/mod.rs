//! What the client gets: the server's answer, and a token when it must.

pub(crate) mod error_response;
pub(crate) mod failure_status;
pub(crate) mod link_rewrite;
pub(crate) mod redirect;

use http::{HeaderName, StatusCode, Version, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session as Exchange;

use crate::proxy::context::RequestContext;
use crate::proxy::hook::{self, Hook};
use crate::proxy::upstream::response_head::is_final;
use crate::proxy::{give, handoff};

/// Between servers and us: what a server says in them, session data above all, is not for clients.
const NEVER_TO_CLIENTS: [HeaderName; 2] =
    [HeaderName::from_static("homing-session-moved"), HeaderName::from_static("homing-session-data")];

/// The hook. Runs for every 1xx too.
pub(crate) fn run<'hook>(
    exchange: &mut Exchange,
    answer: &mut ResponseHeader,
    ctx: &'hook mut RequestContext,
) -> Hook<'hook, Result<()>> {
    let taken = handoff::take_off(answer, ctx);
    let changed = change(exchange, answer, ctx);
    // Of most answers nothing was taken, and their servers were given nothing.
    if changed.is_ok() && is_final(answer.status) && (taken.is_some() || ctx.handed.is_some()) {
        return Box::pin(settle(answer.status, taken, ctx));
    }
    hook::done(changed)
}

async fn settle(status: StatusCode, taken: Option<handoff::Taken>, ctx: &mut RequestContext) -> Result<()> {
    handoff::settle(status, taken, ctx).await;
    Ok(())
}

fn change(exchange: &mut Exchange, answer: &mut ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    // One look at each name instead of a search for both.
    if answer.headers.keys().any(|name| name.as_str().starts_with("homing-")) {
        for name in &NEVER_TO_CLIENTS {
            answer.remove_header(name);
        }
    }
    if exchange.req_header().version == Version::HTTP_10 {
        // HTTP/1.0 knows no chunks: the answer ends with its connection.
        answer.remove_header(&header::TRANSFER_ENCODING);
    }
    if !is_final(answer.status) {
        return Ok(());
    }
    // A 304 updates what a cache holds, and a token does not belong there; it comes with the next answer. But a cookie that
    // the application sets in it would replace the one that has the token.
    if answer.status == StatusCode::NOT_MODIFIED && !give::sets_cookie_of_token(answer, ctx) {
        return Ok(());
    }
    if ctx.app().is_draining() && !ctx.upgrade {
        exchange.set_keepalive(None);
    }
    give::run(exchange.req_header(), answer, ctx)
}
