//! What the client gets: the server's response, and a token when it must.

pub(crate) mod early_response;
pub(crate) mod error_response;
pub(crate) mod link_rewrite;
pub(crate) mod own_response;
pub(crate) mod redirect;
pub(crate) mod status;

use http::{HeaderName, StatusCode, Version, header};
use parking_lot::Mutex;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session as Exchange;

use crate::message::ResponseView;
use crate::persistence::issue::{Issued, PageRewrite};
use crate::persistence::{RequestSession, Scope, Sessions};
use crate::pool::ServerIndex;
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::context::RequestContext;
use crate::proxy::head;
use crate::proxy::hook::{self, HookFuture};
use crate::proxy::request::limits;

/// Between servers and the proxy: what a server says in them, session data above all, is not for clients.
const NEVER_TO_CLIENTS: [HeaderName; 2] =
    [HeaderName::from_static("homing-session-moved"), HeaderName::from_static("homing-session-data")];

/// The hook. Runs for every 1xx too.
pub(crate) fn run<'hook>(
    exchange: &'hook mut Exchange,
    response: &mut ResponseHeader,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<()>> {
    if let Err(error) = change(exchange, response, ctx) {
        return hook::now(Err(error));
    }
    if Sessions::is_data_published(&ctx.session) {
        return hook::done(Ok(()));
    }
    Box::pin(publish(exchange.req_header(), ctx))
}

/// Session data changed that other proxies share.
async fn publish(request: &RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    sessions.publish_data(&scope, state).await;
    Ok(())
}

/// Pingora closes the connection when a head is sent before the body has been read: it may be a refusal of the body, which the
/// client then sends or not. That a 1xx is not, and above all not a 100.
fn pass_interim(exchange: &mut Exchange, is_final: bool, ctx: &mut RequestContext) {
    if !is_final {
        ctx.interim = true;
        exchange.set_close_on_response_before_downstream_finish(false);
    } else if ctx.interim {
        exchange.set_close_on_response_before_downstream_finish(true);
    }
}

fn change(exchange: &mut Exchange, response: &mut ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    if exchange.req_header().version == Version::HTTP_10 {
        // HTTP/1.0 knows no chunks: the response ends with its connection.
        response.remove_header(&header::TRANSFER_ENCODING);
        // Nor 1xx (RFC 9110, section 15.2).
        exchange.set_ignore_info_resp(true);
    }
    if ctx.upgrade
        && response.status == StatusCode::SWITCHING_PROTOCOLS
        && let Some(connection) = DeadlineStream::of(exchange)
    {
        connection.is_upgraded();
    }
    let is_final = head::response_view(response).is_final();
    pass_interim(exchange, is_final, ctx);
    if is_final {
        limits::lift_body_rate(exchange, ctx);
    }
    if is_final && ctx.app().is_draining() && !ctx.upgrade {
        exchange.set_keepalive(None);
    }
    // Without a server it is a response of the proxy itself.
    let Some(server) = ctx.attempts.server else { return Ok(()) };
    if let Some(page) = issue(exchange.req_header(), response, server, ctx)? {
        ctx.page = Some(Mutex::new(page));
    }
    limits::note_session(ctx);
    Ok(())
}

/// Collects what is changed in a response head of a server. `between_servers`: it has fields that are not for clients.
pub(crate) fn collect<'c>(
    response: &ResponseView<'_>,
    server: ServerIndex,
    between_servers: bool,
    (sessions, scope, state): (&Sessions, &Scope<'c, '_>, &mut RequestSession),
    issued: &mut Issued<'c>,
) {
    sessions.issue(response, server, scope, state, issued);
    if response.is_final() {
        sessions.reopen(server, response.status == StatusCode::SWITCHING_PROTOCOLS, scope, state);
    }
    if between_servers {
        issued.edits.remove.extend(NEVER_TO_CLIENTS);
    }
}

/// Puts the token into a response of a server. Returned is a page whose links are rewritten.
fn issue(
    request: &RequestHeader,
    response: &mut ResponseHeader,
    server: ServerIndex,
    ctx: &mut RequestContext,
) -> Result<Option<Box<PageRewrite>>> {
    let between_servers = ctx.attempts.between_servers;
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    let mut issued = Issued::default();
    collect(&head::response_view(response), server, between_servers, (sessions, &scope, state), &mut issued);
    if !issued.edits.is_empty() {
        head::apply_to_response(&mut issued.edits, response)?;
    }
    Ok(issued.page)
}
