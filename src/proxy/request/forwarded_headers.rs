//! What every server is told of the client and of the request, whichever it comes to: who asks, how they came, and the
//! request's id. Works on the request itself, once, before Pingora copies it for each try: it was read with room for more,
//! a copy has none.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::RequestHeader;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::session::token::UnixMillis;

use crate::message::WrittenName;
use crate::proxy::context::RequestContext;
use crate::proxy::header_case;
use crate::proxy::request::client_addr::{
    self, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, X_FORWARDED, X_REAL_IP,
};
use crate::proxy::request::host_of;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SENT_FORWARDED_FOR: WrittenName = WrittenName::new("X-Forwarded-For", "x-forwarded-for");
static SENT_FORWARDED_PROTO: WrittenName = WrittenName::new("X-Forwarded-Proto", "x-forwarded-proto");
static SENT_FORWARDED_HOST: WrittenName = WrittenName::new("X-Forwarded-Host", "x-forwarded-host");
static SENT_REQUEST_ID: WrittenName = WrittenName::new("X-Request-Id", "x-request-id");
/// What a client must never send in, since servers believe it from us. What Forwarded says is in the X-Forwarded headers,
/// in the form of which servers have one truth, not two.
const NEVER_FROM_CLIENTS: [&str; 3] = ["homing-session-moved", "homing-session-data", "forwarded"];

/// Headers that servers are told, each in place of what is there under its name.
type Additions = SmallVec<[(&'static WrittenName, HeaderValue); 4]>;

/// Takes off what servers would believe of the wrong people, and says what is true.
pub(crate) fn run(request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    let trusted = ctx.client.peer_trusted;
    if ctx.suspects.anybodys || (ctx.suspects.strangers && !trusted) {
        take_off(request, trusted);
    }
    let mut additions = Additions::new();
    forward_client(request, ctx, &mut additions);
    // It has its name since it was received: answers of our own carry it too.
    additions.extend(ctx.request_id.clone().map(|id| (&SENT_REQUEST_ID, id)));
    if header_case::is_lowered(ctx) {
        header_case::lower_request(request, additions)
    } else {
        header_case::set(request, additions)
    }
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
pub(crate) fn reads_as(name: &str, beginning: &str) -> bool {
    let same = |(one, other): (u8, u8)| one == other || (one == b'_' && other == b'-');
    name.len() >= beginning.len() && name.bytes().zip(beginning.bytes()).all(same)
}

/// Who the client is, and how it came.
fn forward_client(request: &mut RequestHeader, ctx: &RequestContext, additions: &mut Additions) {
    match client_addr::forwarded_for(&ctx.client, &request.headers) {
        Some(value) => additions.push((&SENT_FORWARDED_FOR, value)),
        None => {
            request.remove_header(&FORWARDED_FOR);
        }
    }
    if !(ctx.client.peer_trusted && request.headers.contains_key(FORWARDED_PROTO)) {
        let proto = if ctx.client.secure { "https" } else { "http" };
        additions.push((&SENT_FORWARDED_PROTO, HeaderValue::from_static(proto)));
    }
    if !(ctx.client.peer_trusted && request.headers.contains_key(FORWARDED_HOST)) {
        let told = ctx.client.told.as_ref().and_then(|told| told.host.as_ref());
        let host = match told.or_else(|| request.headers.get(header::HOST)) {
            Some(host) => Some(host.clone()),
            None => HeaderValue::from_str(host_of(request)).ok().filter(|host| !host.is_empty()),
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
pub(crate) fn name(headers: &HeaderMap, ctx: &mut RequestContext) {
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
