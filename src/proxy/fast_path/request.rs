//! Which requests the fast path serves, and the head that a server gets.

use std::mem::MaybeUninit;

use http::{Method, Version};
use httparse::Header;

use crate::message::{FieldValue, Fields, RequestEdits, RequestView};
use crate::proxy::connection::client_certificate;
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::connection::handed_over::Stage;
use crate::proxy::connection::request_body::BodyFraming;
use crate::proxy::context::RequestContext;
use crate::proxy::request::forwarded_headers::{RequestFacts, forwarded_headers};
use crate::proxy::request::header_scan::HeaderScan;
use crate::proxy::request::{acme_challenge, client_addr, identify, limits, validate};
use crate::proxy::upstream::{peer, request_headers};
use crate::telemetry::metrics::FullPathReason;

use super::fields::{self, FieldList, NameCase};

/// Requests with more fields take the full path.
pub(super) const MAX_FIELDS: usize = 64;

/// Room for the fields of a request.
pub(super) type Room<'h> = [MaybeUninit<Header<'h>>; MAX_FIELDS];

/// A head that the fast path may serve.
pub(super) struct Request<'h> {
    head: &'h [u8],
    pub(super) method: Method,
    pub(super) target: &'h [u8],
    pub(super) fields: &'h [Header<'h>],
    /// The client wants its connection to be closed.
    pub(super) closes: bool,
}

impl<'h> Request<'h> {
    /// Parses a head. An error: why it takes the full path.
    pub(super) fn parse(head: &'h [u8], fields: &'h mut Room<'h>) -> Result<Self, FullPathReason> {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, fields) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            _ => return Err(FullPathReason::Head),
        }
        if parsed.version != Some(1) {
            return Err(FullPathReason::Version);
        }
        let method = match parsed.method {
            Some("GET") => Method::GET,
            Some("HEAD") => Method::HEAD,
            Some("OPTIONS") => Method::OPTIONS,
            Some("DELETE") => Method::DELETE,
            Some("POST") => Method::POST,
            Some("PUT") => Method::PUT,
            Some("PATCH") => Method::PATCH,
            _ => return Err(FullPathReason::Method),
        };
        let target = parsed.path.unwrap_or_default().as_bytes();
        if !is_plain(target) || !is_line_plain(head, method.as_str(), target) {
            return Err(FullPathReason::Target);
        }
        let fields: &'h [Header<'h>] = parsed.headers;
        Ok(Self { head, closes: closes(fields)?, method, target, fields })
    }

    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView::http1(&self.method, self.target, Version::HTTP_11, Fields::Parsed(self.fields))
    }

    /// Validates the request and finds its client and route. Nothing is counted yet. Returns the length of its body. An error: why
    /// it takes the full path.
    pub(super) fn identify(
        &self,
        connection: &DeadlineStream,
        ctx: &mut RequestContext,
    ) -> Result<usize, FullPathReason> {
        let (head, view) = (self.head, self.view());
        let scan = HeaderScan::of(view.fields);
        let listeners = &ctx.runtime.config.listeners;
        let index = connection.listener(listeners);
        let listener = listeners.get(index).filter(|_| ctx.runtime.fast_path.has_listener(index));
        let Some(listener) = listener else { return Err(FullPathReason::Configuration) };
        if acme_challenge::token(&ctx.runtime, index, &view).is_some() {
            return Err(FullPathReason::Configuration);
        }
        let is_valid = validate::check(Some(head), &view, &scan, listener.max_header_size).is_ok();
        ctx.listener = index;
        let exceeds = ctx.limits().is_some_and(|limits| limits::exceeded(&view, limits).is_some());
        if !is_valid || exceeds || connection.is_refused() {
            return Err(FullPathReason::Refused);
        }
        let body = body_length(&scan, connection.behind_head(head.len()), listener.max_body_size)?;
        if scan.authenticates_connection || connection.authentication().dedicated().is_some() {
            return Err(FullPathReason::Authentication);
        }
        let (peer, tls) = connection.peer();
        let mut client = client_addr::client(peer, tls.is_some(), view.fields, &listener.trusted_proxies);
        client.certificate = tls.as_deref().and_then(client_certificate::presented).cloned();
        client.peer_text = connection.peer_text(peer).cloned();
        ctx.max_body = listener.max_body_size;
        identify(&view, &scan, client, ctx).map_err(|_refused| FullPathReason::Refused)?;
        if ctx.runtime.fast_path.has_route(ctx.route) { Ok(body) } else { Err(FullPathReason::Configuration) }
    }

    /// Finds the session and begins an attempt at a server. An error: how far it came, and why it takes the full path.
    pub(super) fn start(&self, ctx: &mut RequestContext) -> Result<(), (Stage, FullPathReason)> {
        let (sessions, scope, state) = ctx.sessions(self.view());
        match sessions.try_resolve(&scope, state) {
            Some(Ok(())) => sessions.open(None, &scope, state),
            Some(Err(rejection)) => return Err((Stage::Rejected(rejection), FullPathReason::Refused)),
            None => return Err((Stage::Resolving, FullPathReason::Store)),
        }
        peer::try_begin(self.view(), ctx).map_err(|none| {
            ctx.attempts.none = Some(none);
            (Stage::Resolved, FullPathReason::NoServer)
        })
    }

    /// Writes the head that the server gets.
    pub(super) fn write_head(&self, ctx: &mut RequestContext, out: &mut Vec<u8>) {
        let case = name_case(ctx);
        let view = self.view();
        // Small, and the other edits borrow from the context.
        let (client, request_id, traceparent) = (ctx.client.clone(), ctx.request_id.clone(), ctx.traceparent);
        let facts = RequestFacts {
            client: &client,
            reserved: ctx.reserved,
            request_id: request_id.as_ref(),
            traceparent: traceparent.as_ref(),
        };
        let host = || client_addr::host(&view, &client).map(FieldValue::Kept);
        let mut own = RequestEdits::default();
        forwarded_headers(&view, facts, host, &mut own);
        let mut edits = RequestEdits::default();
        // Pools with session data from other servers take the full path, so there is none to be fetched.
        request_headers::collect(view, ctx, true, &mut edits);
        let mut list = FieldList::new();
        fields::edited_request(self.fields, &own, &edits, &mut list);
        let target = edits.target.as_ref().map_or(self.target, |target| target.as_bytes());
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        fields::write(&list, self.head, case, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Longer bodies take the full path.
const MAX_BODY: usize = 16 << 10;

/// The length of a body that has arrived with its head: a shorter piece of it might be all that its client sends for now.
fn body_length(scan: &HeaderScan<'_>, arrived: &[u8], limit: Option<u64>) -> Result<usize, FullPathReason> {
    let Some(framing) = scan.body_framing() else { return Ok(0) };
    validate::check_length(framing, limit).map_err(|_refused| FullPathReason::Refused)?;
    let BodyFraming::Length(length) = framing else { return Err(FullPathReason::Body) };
    let length = usize::try_from(length).map_err(|_too_long| FullPathReason::Body)?;
    if length <= MAX_BODY && length <= arrived.len() { Ok(length) } else { Err(FullPathReason::Body) }
}

/// How the names of the request, and of its response, are written.
pub(super) fn name_case(ctx: &RequestContext) -> NameCase {
    let preserved = ctx.pool_runtime().is_some_and(|pool| pool.preserve_header_case);
    if preserved { NameCase::Preserved } else { NameCase::Lower }
}

/// Whether the first line is nothing but method, target and version, with one blank between them.
fn is_line_plain(head: &[u8], method: &str, target: &[u8]) -> bool {
    let behind_method = head.strip_prefix(method.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
    let behind_target = behind_method.and_then(|rest| rest.get(target.len()..));
    behind_target.is_some_and(|rest| rest.starts_with(b" HTTP/1.1\r\n"))
}

/// A path and query of characters that every parser reads alike: those of RFC 3986 for them.
fn is_plain(target: &[u8]) -> bool {
    // The range from `$` has `%&'()*+,-./`, the digits, `:` and `;`; that from `?` has `@` and the capitals.
    let belongs = |byte: u8| matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~');
    // Read to the end without a branch, so that it becomes vectors.
    let all_plain = target.iter().fold(true, |all, byte| all & belongs(*byte));
    all_plain && target.first() == Some(&b'/') && target.get(1) != Some(&b'/')
}

/// Whether the client wants its connection to be closed. An error: fields about the connection that Pingora's proxy acts on.
fn closes(fields: &[Header<'_>]) -> Result<bool, FullPathReason> {
    let (mut closes, mut connections) = (false, 0);
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let unusual = match field.name.len() {
            2 => is("te"),
            6 => is("expect"),
            7 => is("upgrade") || is("trailer"),
            10 if is("connection") => {
                connections += 1;
                closes = field.value.eq_ignore_ascii_case(b"close");
                connections > 1 || !(closes || field.value.eq_ignore_ascii_case(b"keep-alive"))
            }
            10 => is("keep-alive"),
            14 => is("http2-settings"),
            16 => is("proxy-connection"),
            17 => is("transfer-encoding"),
            18 => is("proxy-authenticate"),
            19 => is("proxy-authorization"),
            _ => false,
        };
        if unusual {
            return Err(FullPathReason::Connection);
        }
    }
    Ok(closes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, more: &str) -> Result<bool, FullPathReason> {
        let head = format!("{line}\r\nHost: a.example\r\n{more}\r\n");
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        Request::parse(head.as_bytes(), &mut fields).map(|request| request.closes)
    }

    #[test]
    fn plain_requests_are_served() {
        for line in ["GET / HTTP/1.1", "HEAD /a?b=c HTTP/1.1", "DELETE /a;b=1/%20 HTTP/1.1", "POST /x HTTP/1.1"] {
            assert_eq!(parse(line, ""), Ok(false), "{line}");
        }
        assert_eq!(parse("GET / HTTP/1.1", "Connection: Keep-Alive\r\n"), Ok(false));
        assert_eq!(parse("GET / HTTP/1.1", "connection: close\r\n"), Ok(true));
    }

    #[test]
    fn unusual_requests_take_the_full_path() {
        for (line, why) in [
            ("PROPFIND / HTTP/1.1", FullPathReason::Method),
            ("TRACE / HTTP/1.1", FullPathReason::Method),
            ("get / HTTP/1.1", FullPathReason::Method),
            ("GET / HTTP/1.0", FullPathReason::Version),
            ("GET http://a.example/ HTTP/1.1", FullPathReason::Target),
            ("OPTIONS * HTTP/1.1", FullPathReason::Target),
            ("GET //b.example/ HTTP/1.1", FullPathReason::Target),
            ("GET /a{b} HTTP/1.1", FullPathReason::Target),
            ("GET /a#b HTTP/1.1", FullPathReason::Target),
        ] {
            assert_eq!(parse(line, ""), Err(why), "{line}");
        }
        for field in [
            "Connection: keep-alive, x-a",
            "Connection: close\r\nConnection: close",
            "Connection: upgrade",
            "Connection:",
            "Upgrade: websocket",
            "HTTP2-Settings: a",
            "Expect: 100-continue",
            "TE: trailers",
            "Trailer: x",
            "Transfer-Encoding: chunked",
            "Keep-Alive: 300",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic eA==",
        ] {
            assert_eq!(parse("GET / HTTP/1.1", &format!("{field}\r\n")), Err(FullPathReason::Connection), "{field}");
        }
        assert_eq!(parse("GET / HTTP/1.1", &"A: b\r\n".repeat(MAX_FIELDS)), Err(FullPathReason::Head));
    }
}
