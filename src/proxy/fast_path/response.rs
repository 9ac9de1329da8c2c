//! The head of a response: what it means, and what the client gets of it.

use std::mem::MaybeUninit;

use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use httparse::Header;
use pingora::ErrorType::InvalidHTTPHeader;
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, Result};

use crate::message::{Fields, ResponseEdits, ResponseView};
use crate::persistence::issue::Issued;
use crate::proxy::connection::authentication::ConnectionAuthentication;
use crate::proxy::context::RequestContext;
use crate::proxy::response::collect;
use crate::proxy::upstream::normalize::normalized;
use crate::proxy::upstream::{dedicated, response_head};

use super::body::Framing;
use super::fields::{self, FieldList, NameCase};
use super::request::{Request, name_case};

/// Most fields of a response, and most bytes of its head, as Pingora has it.
const MAX_FIELDS: usize = 256;
const MAX_HEAD: usize = (1 << 20) - 1;
/// Nearly all responses have no more.
const USUAL_FIELDS: usize = 32;

/// What a head means for what follows it.
#[derive(Debug)]
pub(super) struct Head {
    /// Its length in bytes.
    pub(super) length: usize,
    pub(super) status: StatusCode,
    /// It is no 1xx.
    pub(super) is_final: bool,
    pub(super) framing: Framing,
    /// The client gets Content-Length.
    pub(super) has_length: bool,
    /// The server keeps its connection.
    pub(super) server_keeps: bool,
}

/// What the bytes of a server are.
#[derive(Debug)]
pub(super) enum Step {
    /// The beginning of a head.
    Partial,
    /// A head, written for the client.
    Head(Head),
    /// A head; before the client gets it, the shared store must be written.
    Commit,
}

/// The exchange that a response belongs to.
pub(super) struct Exchange<'e, 'h> {
    pub(super) request: &'e Request<'h>,
    pub(super) authentication: &'e ConnectionAuthentication,
    /// The client's connection is kept.
    pub(super) keeps: bool,
}

/// Reads a head from the first bytes of a response and writes what the client gets.
pub(super) fn take_head(
    bytes: &[u8],
    exchange: &Exchange<'_, '_>,
    ctx: &mut RequestContext,
    out: &mut Vec<u8>,
) -> Result<Step> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    match parse(bytes, &mut usual) {
        Ok(Some(parsed)) => respond(&parsed, exchange, ctx, out),
        Ok(None) if bytes.len() <= MAX_HEAD => Ok(Step::Partial),
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![MaybeUninit::uninit(); MAX_FIELDS];
            match parse(bytes, &mut many) {
                Ok(Some(parsed)) => respond(&parsed, exchange, ctx, out),
                Ok(None) if bytes.len() <= MAX_HEAD => Ok(Step::Partial),
                _ => invalid(),
            }
        }
        _ => invalid(),
    }
}

fn invalid<T>() -> Result<T> {
    Error::e_explain(InvalidHTTPHeader, "the head of a response is not valid").map_err(Error::into_up)
}

/// The shared store is written.
pub(super) async fn commit(bytes: Vec<u8>, request: &Request<'_>, ctx: &mut RequestContext) {
    let mut fields = vec![MaybeUninit::uninit(); MAX_FIELDS];
    let (Ok(Some(parsed)), Some(server)) = (parse(&bytes, &mut fields), ctx.attempts.server) else { return };
    let response = ResponseView { status: parsed.status, fields: Fields::Parsed(parsed.fields) };
    let (sessions, scope, state) = ctx.sessions(request.view());
    sessions.commit(&response, server, &scope, state).await;
}

/// A head as it was parsed.
pub(super) struct Parsed<'b> {
    pub(super) head: &'b [u8],
    pub(super) version: Version,
    pub(super) status: StatusCode,
    reason: &'b str,
    pub(super) fields: &'b [Header<'b>],
}

/// `None`: it has not arrived to its end. As lenient as Pingora.
pub(super) fn parse<'b>(
    bytes: &'b [u8],
    fields: &'b mut [MaybeUninit<Header<'b>>],
) -> std::result::Result<Option<Parsed<'b>>, httparse::Error> {
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    config.allow_obsolete_multiline_headers_in_responses(true);
    let mut parsed = httparse::Response::new(&mut []);
    let complete = config.parse_response_with_uninit_headers(&mut parsed, bytes, fields)?;
    let httparse::Status::Complete(length) = complete else { return Ok(None) };
    let head = bytes.get(..length).unwrap_or_default();
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(httparse::Error::Status)?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = parsed.reason.unwrap_or_default();
    Ok(Some(Parsed { head, version, status, reason, fields: parsed.headers }))
}

fn respond(
    parsed: &Parsed<'_>,
    exchange: &Exchange<'_, '_>,
    ctx: &mut RequestContext,
    out: &mut Vec<u8>,
) -> Result<Step> {
    let unfolded = if may_be_folded(parsed.head) { unfolded(parsed.fields) } else { Vec::new() };
    let mut normal = ResponseEdits::default();
    let mut list = field_list(parsed.fields, &unfolded);
    let server_keeps = server_keeps(parsed.version, &list);
    let status = parsed.status;
    let method = &exchange.request.method;
    if has(&list, &header::TRANSFER_ENCODING) {
        // It overrides the length (RFC 9112, section 6.3).
        fields::remove(&mut list, &header::CONTENT_LENGTH);
    }
    ctx.attempts.between_servers =
        normalized(&ResponseView { status, fields: Fields::Parsed(&list) }, false, &mut normal)?;
    fields::apply_to_response(&normal, &mut list);
    let response = ResponseView { status, fields: Fields::Parsed(&list) };
    let is_final = response.is_final();
    if is_final && ctx.attempts.responded.is_none() && !note(&response, parsed.version, exchange, ctx) {
        return Ok(Step::Commit);
    }
    let framing = framing(method, &response);
    let mut version = parsed.version;
    if is_final && framing == Framing::Close {
        version = Version::HTTP_11;
        list.push(Header { name: "Transfer-Encoding", value: b"chunked" });
    }
    let has_length = has(&list, &header::CONTENT_LENGTH);
    let head = Head { length: parsed.head.len(), status, is_final, framing, has_length, server_keeps };
    let case = name_case(ctx);
    issue(status, &list, exchange, ctx, |list| {
        write_head(version, parsed, exchange, is_final, (list, case), out);
    });
    Ok(Step::Head(head))
}

/// The first final head. False: it has to be committed to the shared store.
fn note(response: &ResponseView<'_>, version: Version, exchange: &Exchange<'_, '_>, ctx: &mut RequestContext) -> bool {
    response_head::note_response(response, ctx);
    dedicated::note_response(Some(exchange.authentication), &exchange.request.method, response, version, ctx);
    let Some(server) = ctx.attempts.server else { return true };
    if ctx.session.has_nothing_to_commit(ctx.persistence()) {
        return true;
    }
    let (sessions, scope, state) = ctx.sessions(exchange.request.view());
    sessions.try_commit(response, server, &scope, state)
}

/// Puts the token into the response when it must be there.
fn issue(
    status: StatusCode,
    list: &FieldList<'_>,
    exchange: &Exchange<'_, '_>,
    ctx: &mut RequestContext,
    write: impl FnOnce(&FieldList<'_>),
) {
    let Some(server) = ctx.attempts.server else { return write(list) };
    let between_servers = ctx.attempts.between_servers;
    let (sessions, scope, state) = ctx.sessions(exchange.request.view());
    let mut issued = Issued::default();
    let response = ResponseView { status, fields: Fields::Parsed(list) };
    collect(&response, server, between_servers, (sessions, &scope, state), &mut issued);
    if issued.edits.is_empty() {
        return write(list);
    }
    let mut list: FieldList<'_> = list.iter().copied().collect();
    fields::apply_to_response(&issued.edits, &mut list);
    write(&list);
}

fn write_head(
    version: Version,
    parsed: &Parsed<'_>,
    exchange: &Exchange<'_, '_>,
    is_final: bool,
    (list, case): (&FieldList<'_>, NameCase),
    out: &mut Vec<u8>,
) {
    let version: &[u8] = if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(parsed.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parsed.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    if is_final {
        let own = |field: &Header<'_>| is(field, &header::DATE) || is(field, &header::CONNECTION);
        let mut rest: &[Header<'_>] = list;
        while let Some(at) = rest.iter().position(own) {
            let (before, after) = rest.split_at_checked(at).unwrap_or_default();
            fields::write(before, parsed.head, case, out);
            rest = after.get(1..).unwrap_or_default();
        }
        fields::write(rest, parsed.head, case, out);
        fields::write_line("Date", get_cached_date().as_bytes(), out);
        fields::write_line("Connection", if exchange.keeps { b"keep-alive" } else { b"close" }, out);
    } else {
        fields::write(list, parsed.head, case, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// How a response that was normalized frames its body.
pub(super) fn framing(method: &Method, response: &ResponseView<'_>) -> Framing {
    let status = response.status;
    let without_body = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if without_body || method == Method::HEAD {
        return Framing::None;
    }
    if response.fields.contains(&header::TRANSFER_ENCODING) {
        return Framing::Chunked;
    }
    // Digits only.
    let length = response.fields.get(&header::CONTENT_LENGTH).and_then(|length| std::str::from_utf8(length).ok());
    length.and_then(|length| length.parse().ok()).map_or(Framing::Close, Framing::Length)
}

/// Whether the server keeps its connection, as far as its head says.
pub(super) fn server_keeps(version: Version, list: &[Header<'_>]) -> bool {
    let connection = || list.iter().filter(|field| is(field, &header::CONNECTION)).map(|field| field.value);
    let mut options = connection().flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    if options.any(|option| option.eq_ignore_ascii_case(b"close")) {
        return false;
    }
    // As Pingora has it: of HTTP/1.0 the first field says nothing else.
    let keeps = version == Version::HTTP_11
        || connection().next().is_some_and(|value| value.eq_ignore_ascii_case(b"keep-alive"));
    keeps && !(version == Version::HTTP_10 && has(list, &header::TRANSFER_ENCODING))
}

fn has(list: &[Header<'_>], name: &HeaderName) -> bool {
    list.iter().any(|field| is(field, name))
}

fn is(field: &Header<'_>, name: &HeaderName) -> bool {
    field.name.eq_ignore_ascii_case(name.as_str())
}

/// Whether a line begins with a blank, or has a NUL. A pass that becomes vectors.
#[expect(clippy::needless_bitwise_bool, reason = "a branch would keep the compiler from using vectors")]
pub(super) fn may_be_folded(head: &[u8]) -> bool {
    let next = head.get(1..).unwrap_or_default();
    let folds = |byte: u8, next: u8| (byte == b'\n') & ((next == b' ') | (next == b'\t')) | (byte == 0);
    head.iter().zip(next).fold(false, |any, (byte, next)| any | folds(*byte, *next))
}

fn is_folded(field: &Header<'_>) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, field.value).is_some()
}

/// The values of fields that are folded over several lines, each as one line.
pub(super) fn unfolded(fields: &[Header<'_>]) -> Vec<HeaderValue> {
    let folded = fields.iter().filter(|field| is_folded(field));
    folded.map(|field| pingora::http::header_value_from_slice(field.value)).collect()
}

/// The fields, with the values of folded ones.
pub(super) fn field_list<'f>(fields: &'f [Header<'f>], unfolded: &'f [HeaderValue]) -> FieldList<'f> {
    let named = fields.iter().filter(|field| !field.name.is_empty());
    if unfolded.is_empty() {
        return named.copied().collect();
    }
    let mut unfolded = unfolded.iter();
    named
        .map(|field| {
            let value = if is_folded(field) { unfolded.next() } else { None };
            Header { value: value.map_or(field.value, HeaderValue::as_bytes), ..*field }
        })
        .collect()
}
