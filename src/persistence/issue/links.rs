//! The token in redirects, and in the links, frames and forms of HTML pages, for clients that keep no cookies.

use http::{HeaderName, HeaderValue, Method, Version, header};

use crate::config::Issue;
use crate::message::{RequestEdits, ResponseEdits, ResponseView, WrittenName};
use crate::persistence::pool::PoolPersistence;
use crate::persistence::resolve::IdentifiedBy;
use crate::persistence::scope::{RequestSession, Scope};
use crate::session::html_rewrite::{Charset, Decoder, PageError, PageRewriter, is_known, rewritable};
use crate::session::link::Base;
use crate::session::source::Source;
use crate::session::source::query::QuerySource;

use super::cache_control::keep_from_shared_caches;
use super::due_token::{DueToken, current_token, seal};

static ACCEPT_ENCODING: WrittenName = WrittenName::new("Accept-Encoding", "accept-encoding");
static LOCATION: WrittenName = WrittenName::new("Location", "location");
static REFERRER_POLICY: WrittenName = WrittenName::new("Referrer-Policy", "referrer-policy");
static TRANSFER_ENCODING: WrittenName = WrittenName::new("Transfer-Encoding", "transfer-encoding");

/// A page on its way to the client, whose links are rewritten.
pub struct PageRewrite {
    decoder: Decoder,
    rewriter: PageRewriter,
}

/// Why a page cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum PageRewriteError {
    /// The server sent what is not compressed as it said.
    #[error("a compressed page that cannot be read")]
    Damaged(#[from] std::io::Error),
    /// The rewriter gave up.
    #[error("a page whose links cannot be rewritten")]
    Rewriter(#[from] PageError),
}

/// A response that carries the token where it leads to other pages.
pub(super) struct RewrittenResponse {
    /// Rewrites the links of a page while it streams through.
    pub(super) page: Option<Box<PageRewrite>>,
}

/// What a response has that leads to other pages.
struct Links {
    base: Base,
    /// `Location`, when it leads to this site.
    location: Option<String>,
    /// It is a page.
    page: Option<(Charset, Decoder)>,
}

/// Fields that describe the body as its server sent it.
const BODY_FIELDS: [HeaderName; 8] = [
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
const HIDES_QUERY: [&str; 5] =
    ["no-referrer", "origin", "same-origin", "strict-origin", "strict-origin-when-cross-origin"];

/// The pool's source that has links rewritten.
fn source(persistence: &PoolPersistence) -> Option<&QuerySource> {
    persistence.sources.iter().find_map(|source| match source {
        Source::Query(source) if source.rewrite_links => Some(source),
        _ => None,
    })
}

/// Whether the links of a response may have to be rewritten.
fn may_rewrite(persistence: &PoolPersistence, state: &RequestSession) -> bool {
    match state.session().map(|session| session.identified_by) {
        Some(IdentifiedBy::Token { .. }) => matches!(state.source(persistence), Some(Source::Query(_))),
        None | Some(IdentifiedBy::Address) => persistence.policy.issue == Issue::Query,
        Some(IdentifiedBy::Id | IdentifiedBy::RouteId) => false,
    }
}

/// Asks the server for a page that can be read here: only codings that can be undone are of use.
pub fn ask_readable(scope: &Scope<'_, '_>, state: &RequestSession, edits: &mut RequestEdits<'_>) {
    let Some(persistence) = state.persistence(scope) else { return };
    if source(persistence).is_none() || !may_rewrite(persistence, state) {
        return;
    }
    let fields = scope.request.fields.all(&header::ACCEPT_ENCODING).filter_map(|field| std::str::from_utf8(field).ok());
    let readable: Vec<&str> = fields
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .filter(|coding| is_known(coding.split(';').next().unwrap_or_default()))
        .collect();
    let readable = if readable.is_empty() { "identity".to_owned() } else { readable.join(", ") };
    if let Ok(readable) = HeaderValue::try_from(readable) {
        edits.set(&ACCEPT_ENCODING, readable);
    }
}

/// Puts the token into the response, if something in it leads to other pages: every page and redirect of such a client
/// needs the token, whether it must be a new one or not. `None` when the token is not in it.
pub(super) fn put(
    response: &ResponseView<'_>,
    due: Option<&DueToken>,
    persistence: &PoolPersistence,
    scope: &Scope<'_, '_>,
    state: &RequestSession,
    edits: &mut ResponseEdits<'_>,
) -> Option<RewrittenResponse> {
    let source = source(persistence)?;
    let links = links(response, scope)?;
    let token = seal(&current_token(due, scope, state)?, persistence, scope);
    let mut page = None;
    let location = links.location.and_then(|to| links.base.rewrite(&to, &source.name, token.as_str()));
    if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        edits.set.push((&LOCATION, location));
    }
    if let Some((charset, decoder)) = links.page {
        // Without a rewriter the page passes as it is.
        let rewriter = PageRewriter::new(links.base, charset, &source.name, token.as_str()).ok()?;
        edits.remove.extend(BODY_FIELDS);
        if scope.request.version == Version::HTTP_11 {
            edits.set.push((&TRANSFER_ENCODING, HeaderValue::from_static("chunked")));
        }
        page = (scope.request.method != Method::HEAD).then(|| Box::new(PageRewrite { decoder, rewriter }));
    }
    keep_from_shared_caches(response, &HeaderValue::from_static("private"), edits);
    hide_query_from_other_sites(response, edits);
    Some(RewrittenResponse { page })
}

fn links(response: &ResponseView<'_>, scope: &Scope<'_, '_>) -> Option<Links> {
    let location = response.fields.get_str(&header::LOCATION);
    let is_part = response.fields.contains(&header::CONTENT_RANGE);
    let page = rewritable(response.status, response.fields.get_str(&header::CONTENT_TYPE), is_part);
    // Most responses are neither, and need no address worked out.
    if location.is_none() && page.is_none() {
        return None;
    }
    let request = &scope.request;
    let target = match request.query() {
        Some(query) => format!("{}?{query}", request.path()),
        None => request.path().to_owned(),
    };
    let base = Base::new(scope.secure, request.host(), &target)?;
    let location = location.filter(|to| base.leads_here(to)).map(str::to_owned);
    let page = page.and_then(|charset| Some((charset, Decoder::new(&codings(response)?)?)));
    (location.is_some() || page.is_some()).then_some(Links { base, location, page })
}

/// The codings of a body, as one list. A coding that cannot be undone here leaves the page as it is.
fn codings(response: &ResponseView<'_>) -> Option<String> {
    let fields = response.fields.all(&header::CONTENT_ENCODING).map(|field| std::str::from_utf8(field).ok());
    Some(fields.collect::<Option<Vec<_>>>()?.join(", "))
}

/// Other sites must not read the token in `Referer`.
fn hide_query_from_other_sites(response: &ResponseView<'_>, edits: &mut ResponseEdits<'_>) {
    // The last policy that a browser knows counts.
    let fields = response.fields.all(&REFERRER_POLICY.name).filter_map(|field| std::str::from_utf8(field).ok());
    let last = fields.flat_map(|field| field.split(',')).map(str::trim).last();
    if last.is_some_and(|policy| HIDES_QUERY.iter().any(|hides| policy.eq_ignore_ascii_case(hides))) {
        return;
    }
    edits.set.push((&REFERRER_POLICY, HeaderValue::from_static("same-origin")));
}

impl PageRewrite {
    /// The next piece of the body.
    ///
    /// # Errors
    /// When the page cannot be read, or not rewritten.
    pub fn write(&mut self, piece: &[u8]) -> Result<Vec<u8>, PageRewriteError> {
        let plain = self.decoder.write(piece)?;
        Ok(self.rewriter.write(&plain)?)
    }

    /// What is left at the end of the body.
    ///
    /// # Errors
    /// When the page cannot be read, or not rewritten.
    pub fn end(mut self) -> Result<Vec<u8>, PageRewriteError> {
        let plain = self.decoder.end()?;
        let mut out = self.rewriter.write(&plain)?;
        out.extend(self.rewriter.end()?);
        Ok(out)
    }
}
