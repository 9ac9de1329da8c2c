//! The token that a client gets with its answer, and what carries it there.

use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use rand::RngCore;
use smallvec::SmallVec;

use crate::app::runtime::PoolPersistence;
use crate::config::{CookieMode, Issue};
use crate::persistence::Outcome;
use crate::persistence::resolve::Named;
use crate::session::binding::{Binding, Reissue};
use crate::session::cookie::prefix;
use crate::session::cookie::read::written_values;
use crate::session::cookie::upstream_set_cookie::UpstreamSetCookie;
use crate::session::key::{ServerId, SessionId, SessionKey};
use crate::session::source::Source;
use crate::session::source::header::HeaderSource;
use crate::session::token::{Token, TokenText};
use crate::telemetry::metrics::TokenReason;

use crate::proxy::context::RequestContext;
use crate::proxy::response::link_rewrite;

/// As HTTP/1 writes them. Given as text, Pingora need not look for the usual case of a name.
const SET_COOKIE: &str = "Set-Cookie";
const CACHE_CONTROL: &str = "Cache-Control";

/// What brings a token to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Cookie,
    Query,
    Header,
}

/// A token that the client must be given.
struct Due {
    token: Token,
    reason: TokenReason,
    carrier: Carrier,
}

/// Puts the token into the answer when it must be there.
pub(crate) fn run(request: &RequestHeader, answer: &mut ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    hide_theirs(answer, ctx);
    let due = due(ctx);
    let given = match due.as_ref().map(|due| due.carrier).or_else(|| carried(ctx)) {
        Some(Carrier::Cookie) => by_cookie(request, answer, due.as_ref(), ctx)?,
        Some(Carrier::Header) => by_header(answer, due.as_ref(), ctx)?,
        Some(Carrier::Query) => by_links(request, answer, due.as_ref(), ctx)?,
        None => false,
    };
    let Some(due) = due else { return Ok(()) };
    if given {
        if let Some(plan) = ctx.plan() {
            plan.metrics.tokens.inc(due.reason as usize);
        }
        if due.reason == TokenReason::New {
            ctx.begun = Some(SessionKey::from(due.token.session));
            ctx.renamed.issued = ctx.begun;
        }
    } else if ctx.outcome == Some(Outcome::New) && ctx.begun.is_none() {
        // The application set no cookie that could carry it: the client stays nobody.
        ctx.outcome = Some(Outcome::Balanced);
    }
    Ok(())
}

/// A header that carries our token is ours alone: clients keep whatever comes in it.
fn hide_theirs(answer: &mut ResponseHeader, ctx: &RequestContext) {
    for source in ctx.persistence().iter().flat_map(|persistence| &persistence.sources) {
        if let Source::Header(HeaderSource { name: Some(name) }) = source {
            answer.remove_header(name);
        }
    }
}

/// How the client's own token came.
fn carried(ctx: &RequestContext) -> Option<Carrier> {
    match (ctx.who.session.as_ref()?.named, ctx.source()?) {
        (Named::Token { .. }, Source::Cookie(_)) => Some(Carrier::Cookie),
        (Named::Token { .. }, Source::Query(_)) => Some(Carrier::Query),
        (Named::Token { .. }, Source::Header(_)) => Some(Carrier::Header),
        _ => None,
    }
}

fn due(ctx: &RequestContext) -> Option<Due> {
    let persistence = ctx.persistence()?;
    let answering = ctx.server()?.id;
    match (&ctx.who.session, ctx.outcome?) {
        (None, Outcome::New | Outcome::Moved) => begin(answering, persistence, ctx),
        // An address is shared: its client still gets a token of its own, for the server of the address.
        (Some(session), _) if session.named == Named::Address => begin(session.binding.server, persistence, ctx),
        (Some(session), _) => {
            let (token, why) = session.token_to_give(&persistence.limits, ctx.now)?;
            let reason = match why {
                Reissue::Moved => TokenReason::Moved,
                Reissue::KeyRotated => TokenReason::KeyRotated,
                Reissue::Refreshed => TokenReason::Refreshed,
            };
            Some(Due { token, reason, carrier: carried(ctx)? })
        }
        (None, _) => None,
    }
}

/// A new session.
fn begin(server: ServerId, persistence: &PoolPersistence, ctx: &RequestContext) -> Option<Due> {
    let carrier = match persistence.policy.issue {
        Issue::Cookie => Carrier::Cookie,
        Issue::Query => Carrier::Query,
        Issue::Header => Carrier::Header,
        Issue::None => return None,
    };
    let mut random = [0; 16];
    rand::thread_rng().fill_bytes(&mut random);
    let session = SessionId::from_random(random);
    Some(Due { token: Binding::new(server, ctx.now).token(session, ctx.now), reason: TokenReason::New, carrier })
}

fn seal(token: &Token, persistence: &PoolPersistence) -> TokenText {
    let mut nonce = [0; 24];
    rand::thread_rng().fill_bytes(&mut nonce);
    persistence.codec.seal(token, nonce)
}

/// Every page and redirect of such a client needs the token, whether it must be a new one or not.
fn by_links(
    request: &RequestHeader,
    answer: &mut ResponseHeader,
    due: Option<&Due>,
    ctx: &mut RequestContext,
) -> Result<bool> {
    link_rewrite::put(request, answer, ctx, |ctx| {
        let current = || ctx.who.session.as_ref()?.token_now(ctx.now);
        Some(seal(&due.map(|due| due.token).or_else(current)?, ctx.persistence()?))
    })
}

fn by_header(answer: &mut ResponseHeader, due: Option<&Due>, ctx: &RequestContext) -> Result<bool> {
    let (Some(due), Some(persistence)) = (due, ctx.persistence()) else { return Ok(false) };
    let name = persistence.sources.iter().find_map(|source| match source {
        Source::Header(source) => source.name.clone(),
        _ => None,
    });
    let Some(name) = name else { return Ok(false) };
    let token = seal(&due.token, persistence);
    // The alphabet of tokens is that of header values.
    let Ok(value) = HeaderValue::from_bytes(token.as_bytes()) else { return Ok(false) };
    answer.insert_header(name, value)?;
    keep_private(answer, persistence)?;
    Ok(true)
}

fn by_cookie(
    request: &RequestHeader,
    answer: &mut ResponseHeader,
    due: Option<&Due>,
    ctx: &RequestContext,
) -> Result<bool> {
    let Some(persistence) = ctx.persistence() else { return Ok(false) };
    if !persistence.owns_cookie() {
        return by_their_cookie(request, answer, due, persistence, ctx);
    }
    let Some(due) = due else { return Ok(false) };
    let token = seal(&due.token, persistence);
    // Appended, never inserted: the application's own cookies stay, each on its line.
    answer.append_header(SET_COOKIE, persistence.set_cookie.value(&token, ctx.client.secure, ctx.now))?;
    keep_private(answer, persistence)?;
    Ok(true)
}

/// The application's cookie carries the token. When the application sets it, every time; when it does not, a session that
/// must have another token is given the cookie again as the application last set it. A new session has to wait for it.
fn by_their_cookie(
    request: &RequestHeader,
    answer: &mut ResponseHeader,
    due: Option<&Due>,
    persistence: &PoolPersistence,
    ctx: &RequestContext,
) -> Result<bool> {
    let current = || ctx.who.session.as_ref()?.token_now(ctx.now);
    let Some(token) = due.map(|due| due.token).or_else(current) else { return Ok(false) };
    let cookie = &persistence.policy.cookie;
    let (name, prefixed) = (cookie.name.as_bytes(), cookie.mode == CookieMode::Prefix);
    if sets_cookie(answer, name) {
        let token = seal(&token, persistence);
        let given = put_into(answer, name, &token, prefixed, ctx)?;
        if given {
            keep_private(answer, persistence)?;
        }
        return Ok(given);
    }
    if due.is_none_or(|due| due.reason == TokenReason::New) {
        return Ok(false);
    }
    let token = seal(&token, persistence);
    let value = if prefixed {
        let fields = request.headers.get_all(header::COOKIE).into_iter().map(HeaderValue::as_bytes);
        let again = written_values(fields, name).find_map(|value| prefix::with_token(value, &token));
        let Some(again) = again else { return Ok(false) };
        persistence.set_cookie.with(&again, ctx.client.secure, ctx.now)
    } else {
        persistence.set_cookie.value(&token, ctx.client.secure, ctx.now)
    };
    answer.append_header(SET_COOKIE, value)?;
    keep_private(answer, persistence)?;
    Ok(true)
}

/// Whether the application sets the cookie that carries the pool's tokens.
pub(crate) fn sets_cookie_of_token(answer: &ResponseHeader, ctx: &RequestContext) -> bool {
    ctx.persistence().is_some_and(|persistence| {
        let theirs = persistence.reads_cookie() && !persistence.owns_cookie();
        theirs && sets_cookie(answer, persistence.policy.cookie.name.as_bytes())
    })
}

fn sets_cookie(answer: &ResponseHeader, name: &[u8]) -> bool {
    let fields = answer.headers.get_all(header::SET_COOKIE);
    fields.iter().any(|field| UpstreamSetCookie::named(field.as_bytes(), name).is_some())
}

/// Puts the token before, or in place of, every value that the application gives the cookie. A cookie that it takes away
/// goes as it is. True when one was given.
fn put_into(
    answer: &mut ResponseHeader,
    name: &[u8],
    token: &TokenText,
    prefixed: bool,
    ctx: &RequestContext,
) -> Result<bool> {
    let fields: SmallVec<[HeaderValue; 4]> = answer.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    let mut given = false;
    answer.remove_header(&header::SET_COOKIE);
    for field in fields {
        let set = UpstreamSetCookie::named(field.as_bytes(), name).filter(|set| !set.forgets(ctx.now));
        let with_token = set.map(|set| {
            if prefixed {
                set.with_prefix(&[token.as_bytes(), prefix::SEPARATOR])
            } else {
                set.with_value(token.as_bytes())
            }
        });
        // Made of a header's value and a token, so it is one.
        let with_token = with_token.and_then(|field| HeaderValue::try_from(field).ok());
        given |= with_token.is_some();
        answer.append_header(SET_COOKIE, with_token.unwrap_or(field))?;
    }
    Ok(given)
}

fn keep_private(answer: &mut ResponseHeader, persistence: &PoolPersistence) -> Result<()> {
    match &persistence.cache_control {
        Some(cache_control) => keep_from_shared_caches(answer, cache_control),
        None => Ok(()),
    }
}

/// Adds `cache_control` unless a shared cache must not keep the answer anyway, and takes back what says the opposite.
pub(crate) fn keep_from_shared_caches(answer: &mut ResponseHeader, cache_control: &HeaderValue) -> Result<()> {
    if answer.headers.keys().any(is_for_some) {
        let targeted: SmallVec<[HeaderName; 2]> =
            answer.headers.keys().filter(|name| is_for_some(name)).cloned().collect();
        for name in &targeted {
            answer.remove_header(name);
        }
    }
    let mut directives = Vec::new();
    let (mut private, mut opposed) = (false, false);
    for value in answer.headers.get_all(header::CACHE_CONTROL) {
        for directive in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            private |= directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store");
            if speaks_to_shared_caches(directive) {
                opposed = true;
            } else if !directive.is_empty() {
                directives.push(directive);
            }
        }
    }
    if opposed {
        directives.push(cache_control.as_bytes());
        // Made of what were headers' values before, so it is one.
        if let Ok(joined) = HeaderValue::from_bytes(&directives.join(&b", "[..])) {
            answer.insert_header(CACHE_CONTROL, joined)?;
        }
    } else if !private {
        answer.append_header(CACHE_CONTROL, cache_control.clone())?;
    }
    Ok(())
}

/// Shared caches that know such a field go by it and leave Cache-Control aside (RFC 9213, section 2.2; before that, the
/// "Edge Architecture Specification").
fn is_for_some(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Few names are that long.
    name.len() >= "surrogate-control".len() && (name.ends_with("cdn-cache-control") || name == "surrogate-control")
}

/// `public` and `s-maxage` (RFC 9111, section 5.2.2) invite shared caches to keep an answer.
fn speaks_to_shared_caches(directive: &[u8]) -> bool {
    let starts = |word: &[u8]| directive.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    directive.eq_ignore_ascii_case(b"public") || starts(b"s-maxage=")
}
