//! The request head: read, validated, matched to a route; its session resolved; and the headers that describe it to servers.

pub(crate) mod acme_challenge;
mod certificate_headers;
pub(crate) mod client_addr;
pub(crate) mod forwarded_headers;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod header_scan;
pub(crate) mod limits;
pub(crate) mod request_id;
pub(crate) mod strip_token;
pub(crate) mod target;
pub(crate) mod trace_context;
pub(crate) mod validate;

use std::time::Duration;

use http::{HeaderValue, Version, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::server::HttpSession as Http1;
use pingora_proxy::Session as Exchange;

use crate::config::Listener;
use crate::limits::rate::LONGEST_WAIT_SECONDS;
use crate::message::{FieldValue, RequestEdits, RequestView};
use crate::proxy::access_log;
use crate::proxy::connection::client_certificate;
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::connection::handed_over::{HandedOver, Stage};
use crate::proxy::connection::listener::listener_of;
use crate::proxy::context::{BodyProgress, Client, Dedicated, Refusal, RequestContext};
use crate::proxy::hook::{self, HookFuture};
use crate::proxy::response::redirect::redirect_response;
use crate::proxy::response::{own_response, status};
use crate::proxy::{head, header_case};
use crate::routing::{RouteInput, RouteTarget};
use crate::telemetry::metrics::{FullPathReason, Rejection};
use crate::telemetry::trace::TraceContext;

use self::forwarded_headers::{RequestFacts, forwarded_headers};
use self::header_scan::{HeaderScan, SingleField};
use self::request_id::request_id;
use self::target::AbsoluteTarget;
use self::trace_context::trace_context;

/// The hook. True = the proxy has responded.
pub(crate) fn run<'hook>(
    exchange: &'hook mut Exchange,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<bool>> {
    if let Some(handed_over) = DeadlineStream::of(exchange).and_then(DeadlineStream::take_handed_over) {
        return resume(exchange, ctx, *handed_over);
    }
    let received = receive(exchange, ctx);
    // Before routes and redirects.
    if matches!(received, Ok(()) | Err(Rejection::NoRoute))
        && let Some(token) = acme_challenge::token(&ctx.runtime, ctx.listener, &head::view(exchange.req_header()))
    {
        let token = token.to_owned();
        return Box::pin(answer_challenge(exchange, ctx, token, received));
    }
    proceed(exchange, ctx, received)
}

/// The request may be of a certificate authority; one for an unknown token is as any other.
async fn answer_challenge(
    exchange: &mut Exchange,
    ctx: &mut RequestContext,
    token: String,
    received: std::result::Result<(), Rejection>,
) -> Result<bool> {
    let authorization = ctx.app().acme_response(&token).await;
    match authorization.and_then(acme_challenge::response) {
        Some(response) => own_response::send(exchange, response).await.map(|()| true),
        None => proceed(exchange, ctx, received).await,
    }
}

fn proceed<'hook>(
    exchange: &'hook mut Exchange,
    ctx: &'hook mut RequestContext,
    received: std::result::Result<(), Rejection>,
) -> HookFuture<'hook, Result<bool>> {
    if let Err(rejection) = received {
        return Box::pin(reject(exchange, ctx, rejection));
    }
    if matches!(target(ctx), Some(RouteTarget::Redirect(_))) {
        return Box::pin(redirect(exchange, ctx));
    }
    let (limits, began) = (ctx.session_limits(), ctx.started);
    let (sessions, scope, state) = ctx.sessions(head::view(exchange.req_header()));
    match sessions.try_resolve(&scope, state) {
        Some(Ok(())) => {
            if limits.is_some_and(|limits| !limits::admit_session(&limits, began, &scope, state)) {
                return Box::pin(reject(exchange, ctx, Rejection::NewSessionsPerSecond));
            }
            sessions.open(None, &scope, state);
            hook::proceed(set_forwarded_headers(exchange, ctx))
        }
        Some(Err(rejection)) => Box::pin(reject(exchange, ctx, rejection)),
        None => Box::pin(resolve(exchange, ctx)),
    }
}

/// The fast path has begun with the request: it goes on from there.
fn resume<'hook>(
    exchange: &'hook mut Exchange,
    ctx: &'hook mut RequestContext,
    handed_over: HandedOver,
) -> HookFuture<'hook, Result<bool>> {
    let HandedOver { context, stage } = handed_over;
    *ctx = *context;
    if let Some(connection) = DeadlineStream::of(exchange) {
        connection.headers_are_read();
        if let Some(framing) = HeaderScan::of(head::view(exchange.req_header()).fields).body_framing() {
            connection.body_follows(framing);
        }
    }
    let listeners = &ctx.runtime.config.listeners;
    let local = if listeners.len() > 1 { exchange.server_addr() } else { None };
    if let Some(listener) = listeners.get(listener_of(listeners, local)) {
        set_timeouts(exchange, listener, false);
    }
    if ctx.app().is_draining() {
        exchange.set_keepalive(None);
    }
    match stage {
        Stage::Resolving => Box::pin(resolve(exchange, ctx)),
        Stage::Rejected(rejection) => Box::pin(reject(exchange, ctx, rejection)),
        Stage::Resolved => hook::proceed(set_forwarded_headers(exchange, ctx)),
    }
}

fn target(ctx: &RequestContext) -> Option<&RouteTarget> {
    ctx.runtime.router.route(ctx.route).map(|route| &route.target)
}

/// The route redirects: no session is resolved and no server is selected.
async fn redirect(exchange: &mut Exchange, ctx: &mut RequestContext) -> Result<bool> {
    let Some(RouteTarget::Redirect(to)) = target(ctx) else {
        return reject(exchange, ctx, Rejection::NoRoute).await;
    };
    match redirect_response(to, &head::view(exchange.req_header()), ctx.client.secure) {
        Some(response) => own_response::send(exchange, response).await.map(|()| true),
        // The host is not one that may be echoed.
        None => reject(exchange, ctx, Rejection::Malformed).await,
    }
}

/// The session cannot be resolved without waiting.
async fn resolve(exchange: &mut Exchange, ctx: &mut RequestContext) -> Result<bool> {
    let (limits, began) = (ctx.session_limits(), ctx.started);
    let (sessions, scope, state) = ctx.sessions(head::view(exchange.req_header()));
    match sessions.resolve(&scope, state).await {
        Ok(()) => {
            if limits.is_some_and(|limits| !limits::admit_session(&limits, began, &scope, state)) {
                return reject(exchange, ctx, Rejection::NewSessionsPerSecond).await;
            }
            sessions.open(None, &scope, state);
            set_forwarded_headers(exchange, ctx).map(|()| false)
        }
        Err(rejection) => reject(exchange, ctx, rejection).await,
    }
}

fn set_forwarded_headers(exchange: &mut Exchange, ctx: &RequestContext) -> Result<()> {
    let request = exchange.req_header_mut();
    let mut edits = RequestEdits::default();
    let view = head::view(request);
    let host = || HeaderValue::from_bytes(client_addr::host(&view, &ctx.client)?).ok().map(FieldValue::Own);
    let RequestContext { client, reserved, request_id, traceparent, .. } = ctx;
    let (request_id, traceparent) = (request_id.as_ref(), traceparent.as_ref());
    forwarded_headers(&view, RequestFacts { client, reserved: *reserved, request_id, traceparent }, host, &mut edits);
    head::apply_to_request(&mut edits, request, header_case::is_lowered(ctx))
}

/// Responds to a request that is refused. A malformed request ends its connection: the bytes after it cannot be trusted.
async fn reject(exchange: &mut Exchange, ctx: &mut RequestContext, rejection: Rejection) -> Result<bool> {
    ctx.app().metrics.rejected.inc(rejection as usize);
    set_client(exchange, ctx);
    tracing::debug!(client = ctx.client.address.map(display), reason = rejection.label(), "request rejected");
    if ctx.request_id.is_none() {
        let request = head::view(exchange.req_header());
        set_ids(&request, HeaderScan::of(request.fields).traceparent, ctx);
    }
    if !keeps_connection(rejection) {
        exchange.set_keepalive(None);
    }
    if matches!(rejection, Rejection::Malformed | Rejection::HeaderTooLarge | Rejection::Protocol | Rejection::Method) {
        // Nor can be said where its body ends.
        exchange.set_total_drain_timeout(Some(Duration::ZERO));
    }
    let forged_cookie =
        || ctx.persistence().is_some_and(|persistence| ctx.session.lookup.cookie_is_forged(persistence));
    let clear_token = rejection == Rejection::ForgedToken && forged_cookie();
    let status = status::of_rejection(rejection);
    let retry_after = u16::from(status == 429) * LONGEST_WAIT_SECONDS;
    ctx.refusal = Some(Refusal { clear_token, retry_after, ..Refusal::new(status, rejection.label()) });
    own_response::send_error(exchange, ctx, status).await?;
    Ok(true)
}

/// The request is well-formed, and so may be the next one.
const fn keeps_connection(rejection: Rejection) -> bool {
    use Rejection::{ForgedToken, NewSessionsPerSecond, NoRoute, RequestsPerSecond, StoreUnavailable};
    matches!(rejection, NoRoute | ForgedToken | StoreUnavailable | RequestsPerSecond | NewSessionsPerSecond)
}

/// The client of a request that was refused before it was known, for the logs.
fn set_client(exchange: &Exchange, ctx: &mut RequestContext) {
    if ctx.client.address.is_some() {
        return;
    }
    let listeners = &ctx.runtime.config.listeners;
    let Some(listener) = listeners.get(listener_of(listeners, exchange.server_addr())) else { return };
    let peer = exchange.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
    let secure = exchange.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let fields = head::view(exchange.req_header()).fields;
    ctx.client = client_addr::client(peer, secure, fields, &listener.trusted_proxies);
}

/// Validates the request and finds its client and route.
fn receive(exchange: &mut Exchange, ctx: &mut RequestContext) -> std::result::Result<(), Rejection> {
    let connection = DeadlineStream::of(exchange);
    let line_is_valid = connection.is_none_or(DeadlineStream::headers_are_read);
    let peer = exchange.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
    let peer_text = connection.and_then(|connection| connection.peer_text(peer)).cloned();
    let is_refused = connection.is_some_and(DeadlineStream::is_refused);
    let listeners = &ctx.runtime.config.listeners;
    let local = if listeners.len() > 1 { exchange.server_addr() } else { None };
    ctx.listener = listener_of(listeners, local);
    let Some(listener) = listeners.get(ctx.listener) else { return Err(Rejection::NoRoute) };
    let http2 = exchange.is_http2();
    if http2 {
        ctx.app().metrics.full_requests.inc(FullPathReason::Http2);
    }
    let upgrade = exchange.is_upgrade_req();
    set_timeouts(exchange, listener, upgrade);
    if (http2 && !listener.http2) || (!http2 && !listener.http1) {
        return Err(Rejection::Protocol);
    }
    if is_refused {
        return Err(Rejection::Descriptors);
    }
    if ctx.app().is_draining() {
        exchange.set_keepalive(None);
    }
    let raw = exchange.as_downstream().as_http1().map(Http1::get_headers_raw_bytes);
    if !line_is_valid {
        return Err(Rejection::Malformed);
    }
    let request = head::view(exchange.req_header());
    if let Some(limits) = ctx.runtime.limits.get(ctx.listener) {
        limits::check_head(&request, limits)?;
    }
    let scan = HeaderScan::of(request.fields);
    validate::check(raw.as_deref(), &request, &scan, listener.max_header_size)?;
    if announce_body(exchange, &scan, listener)?
        && let Some(limits) = ctx.runtime.limits.get(ctx.listener)
    {
        limits::begin_body(exchange, limits, request.fields, &mut ctx.body_rate_limited);
    }
    let (request, scan) = match origin_form(&request, &scan) {
        None => (request, scan),
        Some((target, host)) => {
            set_target(exchange.req_header_mut(), &target, host).map_err(|_unfit| Rejection::Malformed)?;
            let request = head::view(exchange.req_header());
            (request, HeaderScan::of(request.fields))
        }
    };

    let tls = exchange.digest().and_then(|digest| digest.ssl_digest.as_deref());
    let mut client = client_addr::client(peer, tls.is_some(), request.fields, &listener.trusted_proxies);
    client.peer_text = peer_text;
    client.certificate = tls.and_then(client_certificate::presented).cloned();
    if http2 && let Some(progress) = http2_body(exchange, listener) {
        ctx.body_progress = Some(progress);
        ctx.log_dropped = Some(access_log::run_dropped);
    }
    (ctx.max_body, ctx.upgrade) = (listener.max_body_size, upgrade);
    ctx.dedicated = dedicated(exchange, &scan);
    identify(&request, &scan, client, ctx)
}

/// A valid request gets its client, its id and its route.
pub(crate) fn identify(
    request: &RequestView<'_>,
    scan: &HeaderScan<'_>,
    client: Client,
    ctx: &mut RequestContext,
) -> std::result::Result<(), Rejection> {
    ctx.client = client;
    ctx.reserved = scan.reserved;
    ctx.host_missing = scan.host.value.is_none() && request.version == Version::HTTP_10;
    set_ids(request, scan.traceparent, ctx);
    if ctx.limits().is_some_and(|limits| !limits.admit_request(ctx.client.address, ctx.started)) {
        return Err(Rejection::RequestsPerSecond);
    }
    find_route(request, scan.host.value, ctx)
}

/// The route of the request, and its pool when that is certain.
fn find_route(
    request: &RequestView<'_>,
    host: Option<&[u8]>,
    ctx: &mut RequestContext,
) -> std::result::Result<(), Rejection> {
    let host = request.authority().map(str::as_bytes).or(host).unwrap_or_default();
    let input = RouteInput { host, path: request.path(), fields: request.fields, secure: ctx.client.secure };
    let Some(route) = ctx.runtime.router.find(input) else { return Err(Rejection::NoRoute) };
    ctx.route = route.index;
    if let RouteTarget::Pool(pool) = route.target {
        ctx.session.pool = Some(pool);
    }
    Ok(())
}

/// How far the body of a request over HTTP/2 has come, when it was not complete with the head; its time is limited from now on.
fn http2_body(exchange: &Exchange, listener: &Listener) -> Option<BodyProgress> {
    let request = exchange.req_header();
    let progress = request.extensions.get::<BodyProgress>()?;
    progress.limit(listener.timeouts.request_body);
    progress.limit_rate(listener.limits.min_body_rate.unwrap_or(0), request.headers.contains_key(header::EXPECT));
    Some(progress.clone())
}

/// The connection must know where the request ends. True when it has a body.
fn announce_body(
    exchange: &Exchange,
    scan: &HeaderScan<'_>,
    listener: &Listener,
) -> std::result::Result<bool, Rejection> {
    let Some(framing) = scan.body_framing() else { return Ok(false) };
    if let Some(connection) = DeadlineStream::of(exchange) {
        connection.body_follows(framing);
    }
    validate::check_length(framing, listener.max_body_size).map(|()| true)
}

/// What servers get in place of a target that is a URL, and Host where the request has none.
fn origin_form(request: &RequestView<'_>, scan: &HeaderScan<'_>) -> Option<(Vec<u8>, Option<HeaderValue>)> {
    let target = request.target();
    if target.first() == Some(&b'/') {
        return None;
    }
    let target = AbsoluteTarget::of(target)?;
    let host = if scan.host.value.is_none() { target.host() } else { None };
    Some((target.origin_form(request.method).into_owned(), host))
}

fn set_target(request: &mut RequestHeader, target: &[u8], host: Option<HeaderValue>) -> Result<()> {
    request.set_raw_path(target)?;
    match host {
        Some(host) => request.insert_header("Host", host),
        None => Ok(()),
    }
}

/// The client connection has server connections of its own, from the first request on that authenticates a connection.
fn dedicated(exchange: &Exchange, scan: &HeaderScan<'_>) -> Option<Box<Dedicated>> {
    let authentication = DeadlineStream::authentication_of(exchange)?;
    if scan.authenticates_connection {
        return Some(Box::new(authentication.dedicate(rand::random())));
    }
    authentication.dedicated().map(Box::new)
}

/// Before anything can be refused because of its route or session: error pages show the id.
fn set_ids(request: &RequestView<'_>, traceparent: SingleField<'_>, ctx: &mut RequestContext) {
    let sent = request_id::sent(request.fields, ctx.client.peer_trusted);
    ctx.trace = ctx.runtime.tracing.map(|sampling| trace_context(traceparent, sampling, rand::random));
    ctx.traceparent = ctx.trace.as_ref().map(TraceContext::traceparent);
    ctx.request_id = Some(request_id(sent, ctx.now, rand::random));
    // What stays belongs to the trace that goes on.
    ctx.reserved.tracestate &= ctx.trace.is_some_and(|trace| trace.parent.is_none());
}

fn set_timeouts(exchange: &mut Exchange, listener: &Listener, upgrade: bool) {
    let timeouts = &listener.timeouts;
    // The client of a WebSocket may be silent for hours; the limit for its server is `connection.read_timeout`.
    let between_reads = if upgrade { None } else { Some(timeouts.request_body) };
    exchange.set_read_timeout(between_reads);
    exchange.set_write_timeout(Some(timeouts.write));
    // The rest of a body that is not used is read for this long at most, so that the connection can be kept.
    exchange.set_total_drain_timeout(Some(limits::DRAIN_TIMEOUT.min(timeouts.request_body)));
}
