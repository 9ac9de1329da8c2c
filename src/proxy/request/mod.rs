//! Receive a request (limits, client, route) and ask who it is (source, token, table).

pub(crate) mod client_addr;
pub(crate) mod forwarded_headers;
pub(crate) mod header_scan;
pub(crate) mod limits;
pub(crate) mod strip_token;
pub(crate) mod validate;

use std::time::Duration;

use http::{HeaderValue, Method, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::server::HttpSession as Http1;
use pingora_proxy::Session as Exchange;

use crate::config::Listener;
use crate::routing::{Target, host_name};
use crate::telemetry::metrics::Rejection;

use crate::proxy::connection::{Guarded, listener_of};
use crate::proxy::context::{Refusal, RequestContext};
use crate::proxy::head;
use crate::proxy::hook::{self, Hook};
use crate::proxy::request::header_scan::Noticed;
use crate::proxy::response::{error_response, redirect};

/// The hook. True = responded here.
pub(crate) fn run<'hook>(exchange: &'hook mut Exchange, ctx: &'hook mut RequestContext) -> Hook<'hook, Result<bool>> {
    if let Err(rejection) = receive(exchange, ctx) {
        return Box::pin(reject(exchange, ctx, rejection));
    }
    if redirect::concerns(ctx) {
        return Box::pin(redirect(exchange, ctx));
    }
    let (sessions, scope, state) = ctx.sessions(head::view(exchange.req_header()));
    match sessions.try_resolve(&scope, state) {
        Some(Ok(())) => hook::not_answered(forwarded_headers::run(exchange.req_header_mut(), ctx)),
        Some(Err(rejection)) => Box::pin(reject(exchange, ctx, rejection)),
        None => Box::pin(resolve(exchange, ctx)),
    }
}

async fn redirect(exchange: &mut Exchange, ctx: &mut RequestContext) -> Result<bool> {
    match redirect::run(exchange, ctx).await? {
        Ok(()) => Ok(true),
        Err(rejection) => reject(exchange, ctx, rejection).await,
    }
}

/// The session cannot be resolved without waiting.
async fn resolve(exchange: &mut Exchange, ctx: &mut RequestContext) -> Result<bool> {
    let (sessions, scope, state) = ctx.sessions(head::view(exchange.req_header()));
    match sessions.resolve(&scope, state).await {
        Ok(()) => forwarded_headers::run(exchange.req_header_mut(), ctx).map(|()| false),
        Err(rejection) => reject(exchange, ctx, rejection).await,
    }
}

/// Answers what cannot be served. A malformed request ends its connection: what follows on it cannot be trusted.
async fn reject(exchange: &mut Exchange, ctx: &mut RequestContext, rejection: Rejection) -> Result<bool> {
    ctx.app().metrics.rejected.inc(rejection as usize);
    forwarded_headers::name(&exchange.req_header().headers, ctx);
    let status = match rejection {
        // Those of connections never come here.
        Rejection::Malformed | Rejection::ForgedToken | Rejection::ProxyHeader | Rejection::TlsHandshake => 400,
        Rejection::HeaderTooLarge => 431,
        Rejection::BodyTooLarge => 413,
        Rejection::HeaderTimeout => 408,
        Rejection::NoRoute => 404,
        Rejection::Method => 405,
        Rejection::Protocol => 505,
        Rejection::StoreUnavailable => 503,
    };
    if !matches!(rejection, Rejection::NoRoute | Rejection::ForgedToken | Rejection::StoreUnavailable) {
        exchange.set_keepalive(None);
    }
    let forged_cookie =
        || ctx.persistence().is_some_and(|persistence| ctx.session.lookup.cookie_is_forged(persistence));
    let clear_token = rejection == Rejection::ForgedToken && forged_cookie();
    ctx.refusal = Some(Refusal { clear_token, ..Refusal::new(status, rejection.label()) });
    error_response::give(exchange, ctx, status).await?;
    Ok(true)
}

/// Its connection, when that speaks HTTP/1.
fn guarded_of(exchange: &Exchange) -> Option<&Guarded> {
    exchange.stream().and_then(|stream| stream.as_any().downcast_ref::<Guarded>())
}

fn receive(exchange: &mut Exchange, ctx: &mut RequestContext) -> std::result::Result<(), Rejection> {
    let guarded = guarded_of(exchange);
    let line_is_sound = guarded.is_none_or(Guarded::headers_are_read);
    let peer = exchange.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
    let peer_text = guarded.and_then(|guarded| guarded.peer_text(peer)).cloned();
    let listeners = &ctx.runtime.config.listeners;
    let local = if listeners.len() > 1 { exchange.server_addr() } else { None };
    let Some(listener) = listeners.get(listener_of(listeners, local)) else { return Err(Rejection::NoRoute) };
    let http2 = exchange.is_http2();
    let upgrade = exchange.is_upgrade_req();
    set_timeouts(exchange, listener, upgrade);
    if (http2 && !listener.http2) || (!http2 && !listener.http1) {
        return Err(Rejection::Protocol);
    }
    if ctx.app().is_draining() {
        exchange.set_keepalive(None);
    }
    let raw = exchange.as_downstream().as_http1().map(Http1::get_headers_raw_bytes);
    if !line_is_sound {
        return Err(Rejection::Malformed);
    }
    let request = exchange.req_header();
    let noticed = Noticed::of(&request.headers);
    validate::check(raw.as_deref(), request, &noticed, listener.max_header_size)?;
    validate::check_length(noticed.length.value, listener.max_body_size)?;

    let secure = exchange.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let mut client = client_addr::client(peer, secure, &request.headers, &listener.trusted_proxies);
    client.peer_text = peer_text;
    (ctx.max_body, ctx.upgrade, ctx.suspects) = (listener.max_body_size, upgrade, noticed.suspects);
    ctx.client = client;
    forwarded_headers::name(&request.headers, ctx);
    let host = host_in(request, noticed.host.value);
    let Some(found) = ctx.runtime.router.find(host, request.uri.path(), &request.headers, ctx.client.secure) else {
        return Err(Rejection::NoRoute);
    };
    ctx.route = found.index;
    if let Target::Pool(pool) = found.target {
        ctx.session.pool = Some(pool);
    }
    Ok(())
}

fn set_timeouts(exchange: &mut Exchange, listener: &Listener, upgrade: bool) {
    let timeouts = &listener.timeouts;
    // A WebSocket's client may be silent for hours; how long the server may be is `connection.read_timeout`.
    let between_reads = if upgrade { None } else { Some(timeouts.request_body) };
    exchange.set_read_timeout(between_reads);
    exchange.set_write_timeout(Some(timeouts.write));
    // What is left of a body that nobody reads is read away for this long at most, so that the connection can be kept.
    exchange.set_total_drain_timeout(Some(Duration::from_secs(5).min(timeouts.request_body)));
}

/// The host as the request names it: HTTP/2 has it in the target.
pub(crate) fn host_of(request: &RequestHeader) -> &str {
    host_in(request, request.headers.get(header::HOST))
}

fn host_in<'a>(request: &'a RequestHeader, header: Option<&'a HeaderValue>) -> &'a str {
    match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => header.and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

/// The same without port, for the access log.
pub(crate) fn host_name_of(request: &RequestHeader) -> &str {
    host_name(host_of(request))
}

/// True for requests whose answer has no body.
pub(crate) fn is_head(exchange: &Exchange) -> bool {
    exchange.req_header().method == Method::HEAD
}
