//! The token in redirects, and in the links, frames and forms of HTML pages, for clients that keep no cookies.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Version, header};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};

use crate::config::Issue;
use crate::persistence::resolve::Named;
use crate::session::html_rewrite::{Charset, Decoder, PageError, PageRewriter, is_known, rewritable};
use crate::session::link::Base;
use crate::session::source::Source;
use crate::session::source::query::QuerySource;
use crate::session::token::TokenText;

use crate::proxy::context::RequestContext;
use crate::proxy::give::keep_from_shared_caches;
use crate::proxy::request::host_of;

/// A page on its way to the client.
pub struct Page {
    decoder: Decoder,
    rewriter: PageRewriter,
}

/// What an answer holds that leads on.
struct Leads {
    base: Base,
    /// `Location`, with the token in it once that is known.
    location: Option<String>,
    /// It is a page.
    page: Option<(Charset, Decoder)>,
}

/// What describes a body as its server sent it.
const OF_THE_BODY: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Policies that do not show other sites the query of a page (Referrer Policy, section 3).
const DISCREET: [&str; 5] =
    ["no-referrer", "origin", "same-origin", "strict-origin", "strict-origin-when-cross-origin"];

/// The pool's source that has links rewritten.
fn source(ctx: &RequestContext) -> Option<&QuerySource> {
    ctx.persistence()?.sources.iter().find_map(|source| match source {
        Source::Query(source) if source.rewrite_links => Some(source),
        _ => None,
    })
}

/// Whether the answer's links may have to be rewritten.
fn concerns(ctx: &RequestContext) -> bool {
    let gives = ctx.persistence().is_some_and(|persistence| persistence.policy.issue == Issue::Query);
    match ctx.who.session.as_ref().map(|session| session.named) {
        Some(Named::Token { .. }) => matches!(ctx.source(), Some(Source::Query(_))),
        None | Some(Named::Address) => gives,
        Some(Named::Id | Named::Mark) => false,
    }
}

/// What the server must know: only codings that can be undone here are of use.
pub(crate) fn ask_readable(request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    if source(ctx).is_none() || !concerns(ctx) {
        return Ok(());
    }
    let fields = request.headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|field| field.to_str().ok());
    let readable: Vec<&str> = fields
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .filter(|coding| is_known(coding.split(';').next().unwrap_or_default()))
        .collect();
    let readable = if readable.is_empty() { "identity".to_owned() } else { readable.join(", ") };
    request.insert_header(header::ACCEPT_ENCODING, readable)
}

/// Puts the token into the answer, if something in it leads on; `seal` makes it. True when it is in it.
pub(crate) fn put(
    request: &RequestHeader,
    answer: &mut ResponseHeader,
    ctx: &mut RequestContext,
    seal: impl FnOnce(&RequestContext) -> Option<TokenText>,
) -> Result<bool> {
    let Some(leads) = leads(request, answer, ctx) else { return Ok(false) };
    let Some((token, name)) = seal(ctx).zip(source(ctx).map(|source| source.name.clone())) else { return Ok(false) };
    if let Some(location) = leads.location.and_then(|to| leads.base.rewrite(&to, &name, token.as_str())) {
        answer.insert_header(header::LOCATION, location)?;
    }
    if let Some((charset, decoder)) = leads.page {
        for name in &OF_THE_BODY {
            answer.remove_header(name);
        }
        if request.version == Version::HTTP_11 {
            answer.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        if request.method != Method::HEAD {
            let rewriter = PageRewriter::new(leads.base, charset, &name, token.as_str()).map_err(broken)?;
            ctx.page = Some(Box::new(Mutex::new(Page { decoder, rewriter })));
        }
    }
    keep_from_shared_caches(answer, &HeaderValue::from_static("private"))?;
    be_discreet(answer)?;
    Ok(true)
}

fn leads(request: &RequestHeader, answer: &ResponseHeader, ctx: &RequestContext) -> Option<Leads> {
    source(ctx)?;
    let text = |name| answer.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let location = text(header::LOCATION);
    let is_part = answer.headers.contains_key(header::CONTENT_RANGE);
    let page = rewritable(answer.status, text(header::CONTENT_TYPE), is_part);
    // Most answers are neither, and need no address worked out.
    if location.is_none() && page.is_none() {
        return None;
    }
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let base = Base::new(ctx.client.secure, host_of(request), target)?;
    let location = location.filter(|to| base.leads_here(to)).map(str::to_owned);
    let page = page.and_then(|charset| Some((charset, Decoder::new(&codings(answer)?)?)));
    (location.is_some() || page.is_some()).then_some(Leads { base, location, page })
}

/// The codings of a body, as one list. What cannot be undone here stays as it is.
fn codings(answer: &ResponseHeader) -> Option<String> {
    let fields = answer.headers.get_all(header::CONTENT_ENCODING).iter().map(|field| field.to_str().ok());
    Some(fields.collect::<Option<Vec<_>>>()?.join(", "))
}

/// Other sites must not read the token in `Referer`.
fn be_discreet(answer: &mut ResponseHeader) -> Result<()> {
    // The last policy that a browser knows counts.
    let fields = answer.headers.get_all("referrer-policy").iter().filter_map(|field| field.to_str().ok());
    let last = fields.flat_map(|field| field.split(',')).map(str::trim).next_back();
    if last.is_some_and(|policy| DISCREET.iter().any(|discreet| policy.eq_ignore_ascii_case(discreet))) {
        return Ok(());
    }
    answer.insert_header("Referrer-Policy", HeaderValue::from_static("same-origin"))
}

/// The next piece of a body on its way to the client.
pub(crate) fn pass(body: &mut Option<Bytes>, end: bool, ctx: &mut RequestContext) -> Result<()> {
    let Some(page) = ctx.page.as_mut().map(|page| page.get_mut()) else { return Ok(()) };
    let mut out = match body.take() {
        Some(bytes) => page.write(&bytes)?,
        None => Vec::new(),
    };
    if end && let Some(page) = ctx.page.take() {
        out.extend(page.into_inner().end()?);
    }
    if !out.is_empty() || end {
        *body = Some(Bytes::from(out));
    }
    Ok(())
}

impl Page {
    fn write(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        let plain = self.decoder.write(bytes).map_err(damaged)?;
        self.rewriter.write(&plain).map_err(broken)
    }

    fn end(mut self) -> Result<Vec<u8>> {
        let plain = self.decoder.end().map_err(damaged)?;
        let mut out = self.rewriter.write(&plain).map_err(broken)?;
        out.extend(self.rewriter.end().map_err(broken)?);
        Ok(out)
    }
}

/// The server sent what is not compressed as it said.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's errors")]
fn damaged(error: std::io::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, "a compressed page that cannot be read", error).into_up()
}

/// A page that cannot be rewritten.
#[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's errors")]
fn broken(error: PageError) -> Box<Error> {
    Error::because(ErrorType::InternalError, "a page whose links cannot be rewritten", error).into_in()
}
