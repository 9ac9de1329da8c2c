//! Forward: what a server gets to see. Works on the copy that Pingora makes for each try.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora_proxy::Session as Exchange;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::session::token::UnixMillis;

use super::context::RequestContext;
use super::forwarded::{self, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, X_FORWARDED, X_REAL_IP};
use super::header_case::{self, Additions, Name};
use super::request_filter::host_of;
use super::{handoff, hide, links};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SENT_FORWARDED_FOR: Name = Name::new("X-Forwarded-For", "x-forwarded-for");
static SENT_FORWARDED_PROTO: Name = Name::new("X-Forwarded-Proto", "x-forwarded-proto");
static SENT_FORWARDED_HOST: Name = Name::new("X-Forwarded-Host", "x-forwarded-host");
static SENT_REQUEST_ID: Name = Name::new("X-Request-Id", "x-request-id");
/// What a client must never send in, since servers believe it from us. What Forwarded says is in the X-Forwarded headers,
/// in the form of which servers have one truth, not two.
const NEVER_FROM_CLIENTS: [&str; 3] = ["homing-session-moved", "homing-session-data", "forwarded"];

/// The hook. Names are inserted as text where HTTP/1 servers should see them in the usual case.
pub(super) fn run(exchange: &Exchange, request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    let trusted = ctx.client.peer_trusted;
    if ctx.suspects.anybodys || (ctx.suspects.strangers && !trusted) {
        take_off(request, trusted);
    }
    let mut additions = Additions::new();
    forward_client(exchange, request, ctx, &mut additions);
    // All tries share the request's id.
    name(&request.headers, ctx);
    additions.extend(ctx.request_id.clone().map(|id| (&SENT_REQUEST_ID, id)));
    hide::run(request, ctx, &mut additions)?;
    header_case::add(request, additions)?;
    links::ask_readable(request, ctx)?;
    handoff::give(request, ctx)?;
    change_as_the_route_says(request, ctx)
}

fn take_off(request: &mut RequestHeader, trusted: bool) {
    let names = request.headers.keys().filter(|name| must_go(name.as_str(), trusted));
    let names: SmallVec<[HeaderName; 4]> = names.cloned().collect();
    for name in &names {
        request.remove_header(name);
    }
}

/// `trusted`: a proxy of ours sent it. But no proxy writes `X_Forwarded_For`, which would go beside the right one.
fn must_go(name: &str, trusted: bool) -> bool {
    let is = |other: &str| name.len() == other.len() && reads_as(name, other);
    let odd = name.contains('_');
    NEVER_FROM_CLIENTS.into_iter().any(is)
        || ((reads_as(name, X_FORWARDED) || is(X_REAL_IP)) && (odd || !trusted))
        || (is(REQUEST_ID.as_str()) && odd)
}

/// Whether a name (in lower case, as names of headers are) begins so for CGI, WSGI and Rack, to which `-` and `_` are one.
pub(super) fn reads_as(name: &str, beginning: &str) -> bool {
    let same = |(one, other): (u8, u8)| one == other || (one == b'_' && other == b'-');
    name.len() >= beginning.len() && name.bytes().zip(beginning.bytes()).all(same)
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

/// Who the client is, and how it came.
fn forward_client(exchange: &Exchange, request: &mut RequestHeader, ctx: &RequestContext, additions: &mut Additions) {
    let headers = &exchange.req_header().headers;
    match forwarded::forwarded_for(&ctx.client, headers) {
        Some(value) => additions.push((&SENT_FORWARDED_FOR, value)),
        None => {
            request.remove_header(&FORWARDED_FOR);
        }
    }
    if !(ctx.client.peer_trusted && headers.contains_key(FORWARDED_PROTO)) {
        let proto = if ctx.client.secure { "https" } else { "http" };
        additions.push((&SENT_FORWARDED_PROTO, HeaderValue::from_static(proto)));
    }
    if !(ctx.client.peer_trusted && headers.contains_key(FORWARDED_HOST)) {
        let told = ctx.client.told.as_ref().and_then(|told| told.host.as_ref());
        let host = match told.or_else(|| headers.get(header::HOST)) {
            Some(host) => Some(host.clone()),
            None => HeaderValue::from_str(host_of(exchange.req_header())).ok().filter(|host| !host.is_empty()),
        };
        match host {
            Some(host) => additions.push((&SENT_FORWARDED_HOST, host)),
            None => {
                request.remove_header(&FORWARDED_HOST);
            }
        }
    }
}

/// Keeps the id that a trusted proxy gave, else gives one: UUID v7, which sorts by time.
pub(super) fn name(headers: &HeaderMap, ctx: &mut RequestContext) {
    if ctx.request_id.is_some() {
        return;
    }
    let given = if ctx.client.peer_trusted { headers.get(REQUEST_ID) } else { None };
    let id = match given {
        Some(given) if (1..=128).contains(&given.len()) => given.clone(),
        _ => new_request_id(ctx.now),
    };
    ctx.request_id = Some(id);
}

/// From the thread's random numbers: `Uuid::now_v7` would ask the kernel for every request.
fn new_request_id(now: UnixMillis) -> HeaderValue {
    let id = uuid::Builder::from_unix_timestamp_millis(now.0, &rand::random()).into_uuid();
    let mut text = Uuid::encode_buffer();
    let text = id.as_hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are a header value.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
}
