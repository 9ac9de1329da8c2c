//! Forward: what a server gets to see. Works on the copy that Pingora makes for each try.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora_proxy::Session as Exchange;
use uuid::Uuid;

use crate::failover::Outcome;
use crate::failover::returning::Returning;
use crate::session::cookie::read::{Rewritten, without};
use crate::session::token::UnixMillis;

use super::context::RequestContext;
use super::forwarded::{self, FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use super::request_filter::host_of;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Tells a server that a session came to it from another.
const SESSION_MOVED: HeaderName = HeaderName::from_static("homing-session-moved");
/// What a client must never send in, since servers believe it from us. What Forwarded says is in the X-Forwarded headers,
/// in the form of which servers have one truth, not two.
const NEVER_FROM_CLIENTS: [HeaderName; 3] = [SESSION_MOVED, HeaderName::from_static("homing-session-data"), FORWARDED];
/// What strangers must not say about themselves.
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// No cookie has this name, so that nothing is taken off.
const NO_COOKIE: &[u8] = b"\0";

/// The hook. Names are inserted as text where HTTP/1 servers should see them in the usual case.
pub(super) fn run(exchange: &Exchange, request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    for name in &NEVER_FROM_CLIENTS {
        request.remove_header(name);
    }
    forward_client(exchange, request, ctx)?;
    name_request(request, ctx)?;
    rewrite_cookies(request, ctx)?;
    if ctx.outcome == Some(Outcome::Moved) {
        tell_of_move(request, ctx)?;
    }
    Ok(())
}

fn forward_client(exchange: &Exchange, request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    let headers = &exchange.req_header().headers;
    match forwarded::forwarded_for(&ctx.client, headers) {
        Some(value) => request.insert_header("X-Forwarded-For", value)?,
        None => {
            request.remove_header(&FORWARDED_FOR);
        }
    }
    if !ctx.client.peer_trusted {
        request.remove_header(&X_REAL_IP);
    }
    if !(ctx.client.peer_trusted && headers.contains_key(FORWARDED_PROTO)) {
        let proto = if ctx.client.secure { "https" } else { "http" };
        request.insert_header("X-Forwarded-Proto", HeaderValue::from_static(proto))?;
    }
    if !(ctx.client.peer_trusted && headers.contains_key(FORWARDED_HOST)) {
        let told = ctx.client.told.as_ref().and_then(|told| told.host.as_ref());
        let host = match told.or_else(|| headers.get(header::HOST)) {
            Some(host) => Some(host.clone()),
            None => HeaderValue::from_str(host_of(exchange.req_header())).ok().filter(|host| !host.is_empty()),
        };
        match host {
            Some(host) => request.insert_header("X-Forwarded-Host", host)?,
            None => {
                request.remove_header(&FORWARDED_HOST);
            }
        }
    }
    Ok(())
}

/// Keeps the id that a trusted proxy gave, else gives one: UUID v7, which sorts by time. All tries share it.
fn name_request(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    if ctx.request_id.is_none() {
        let given = request.headers.get(REQUEST_ID).filter(|_| ctx.client.peer_trusted);
        let id = match given {
            Some(given) if (1..=128).contains(&given.len()) => given.clone(),
            _ => new_request_id(ctx.now),
        };
        ctx.request_id = Some(id);
    }
    if let Some(id) = &ctx.request_id {
        request.insert_header("X-Request-Id", id.clone())?;
    }
    Ok(())
}

/// From the thread's random numbers: `Uuid::now_v7` would ask the kernel for every request.
fn new_request_id(now: UnixMillis) -> HeaderValue {
    let id = uuid::Builder::from_unix_timestamp_millis(now.0, &rand::random()).into_uuid();
    let mut text = Uuid::encode_buffer();
    let text = id.as_hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are a header value.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
}

/// Takes our cookie off, and makes one Cookie field of several: HTTP/2 clients split theirs, and HTTP/1 servers read only
/// the first.
fn rewrite_cookies(request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    let hidden = ctx
        .persistence()
        .filter(|persistence| persistence.policy.cookie.hide_from_server)
        .map_or(NO_COOKIE, |persistence| persistence.policy.cookie.name.as_bytes());
    let fields = request.headers.get_all(header::COOKIE).into_iter().map(HeaderValue::as_bytes);
    match without(fields, hidden) {
        Rewritten::Unchanged => {}
        Rewritten::Removed => {
            request.remove_header(&header::COOKIE);
        }
        Rewritten::Replaced(cookies) => {
            // Made of what was a header's value before, so it is one.
            if let Ok(cookies) = HeaderValue::from_maybe_shared(bytes::Bytes::from(cookies)) {
                request.insert_header("Cookie", cookies)?;
            }
        }
    }
    Ok(())
}

fn tell_of_move(request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    let (Some(session), Some(reason), Some(plan)) = (&ctx.session, ctx.reason, ctx.plan()) else { return Ok(()) };
    let from = match session.home.and_then(|home| plan.pool.servers.get(home)) {
        Some(server) => Arc::clone(&server.name),
        None => name_of_former(ctx, session),
    };
    let epoch = session.binding.epoch.saturating_add(1);
    request.insert_header("Homing-Session-Moved", format!("from={from}; reason={}; epoch={epoch}", reason.label()))
}

/// The configuration no longer has the server; the table may remember its name.
fn name_of_former(ctx: &RequestContext, session: &Returning) -> Arc<str> {
    let pool = ctx.plan().map(|plan| &*plan.pool.name);
    let places = ctx.parts().table.places();
    let former = places.iter().find(|place| Some(place.pool()) == pool && place.id() == session.binding.server);
    former.map_or_else(|| Arc::from("unknown"), |place| Arc::from(place.server()))
}
