//! Forward: what a server gets to see. Works on the copy that Pingora makes for each try.

use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora_proxy::Session as Exchange;
use uuid::Uuid;

use crate::session::token::UnixMillis;

use super::context::RequestContext;
use super::forwarded::{self, FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use super::request_filter::host_of;
use super::{handoff, hide, links};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What strangers must not say about themselves.
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The hook. Names are inserted as text where HTTP/1 servers should see them in the usual case.
pub(super) fn run(exchange: &Exchange, request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    // What it says is in the X-Forwarded headers, in the form of which servers have one truth, not two.
    request.remove_header(&FORWARDED);
    forward_client(exchange, request, ctx)?;
    name_request(request, ctx)?;
    hide::run(request, ctx)?;
    links::ask_readable(request, ctx)?;
    handoff::give(request, ctx)?;
    change_as_the_route_says(request, ctx)
}

/// Last of all, so that an operator can overrule what the proxy says.
fn change_as_the_route_says(request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    let Some(plan) = ctx.snapshot.router.plan(ctx.route) else { return Ok(()) };
    for name in &plan.request_headers.remove {
        request.remove_header(name);
    }
    for (name, value) in &plan.request_headers.set {
        request.insert_header(name, value.clone())?;
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
