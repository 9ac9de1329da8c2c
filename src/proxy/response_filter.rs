//! What the client gets: the server's answer, and a token when it must.

use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session as Exchange;
use rand::RngCore;

use crate::failover::Outcome;
use crate::session::binding::{Binding, Reissue};
use crate::session::key::{SessionId, SessionKey};
use crate::session::token::Token;
use crate::snapshot::PersistencePlan;
use crate::telemetry::metrics::TokenReason;

use super::context::RequestContext;
use super::upstream_response_filter::is_final;

/// Between servers and us: what a server says in them, session data above all, is not for clients.
const NEVER_TO_CLIENTS: [HeaderName; 2] =
    [HeaderName::from_static("homing-session-moved"), HeaderName::from_static("homing-session-data")];

/// The hook. Runs for every 1xx too.
pub(super) fn run(exchange: &mut Exchange, answer: &mut ResponseHeader, ctx: &mut RequestContext) -> Result<()> {
    for name in &NEVER_TO_CLIENTS {
        answer.remove_header(name);
    }
    if exchange.req_header().version == Version::HTTP_10 {
        // HTTP/1.0 knows no chunks: the answer ends with its connection.
        answer.remove_header(&header::TRANSFER_ENCODING);
    }
    // A 304 updates what a cache holds, and a token does not belong there; it comes with the next answer.
    if !is_final(answer.status) || answer.status == StatusCode::NOT_MODIFIED {
        return Ok(());
    }
    if ctx.parts().is_draining() && !ctx.upgrade {
        exchange.set_keepalive(None);
    }
    let Some((token, reason)) = token_to_give(ctx) else { return Ok(()) };
    let (Some(plan), Some(persistence)) = (ctx.plan(), ctx.persistence()) else { return Ok(()) };
    give(answer, persistence, &token, ctx)?;
    plan.metrics.tokens.inc(reason as usize);
    Ok(())
}

fn token_to_give(ctx: &mut RequestContext) -> Option<(Token, TokenReason)> {
    let persistence = ctx.persistence()?;
    let server = ctx.server()?.id;
    match (&ctx.session, ctx.outcome?) {
        (None, Outcome::New) => {
            let mut random = [0; 16];
            rand::thread_rng().fill_bytes(&mut random);
            let session = SessionId::from_random(random);
            ctx.begun = Some(SessionKey::from(session));
            Some((Binding::new(server, ctx.now).token(session, ctx.now), TokenReason::New))
        }
        (Some(session), _) => {
            let (token, why) = session.token_to_give(&persistence.limits, ctx.now)?;
            let reason = match why {
                Reissue::Moved => TokenReason::Moved,
                Reissue::KeyRotated => TokenReason::KeyRotated,
                Reissue::Refreshed => TokenReason::Refreshed,
            };
            Some((token, reason))
        }
        _ => None,
    }
}

fn give(answer: &mut ResponseHeader, persistence: &PersistencePlan, token: &Token, ctx: &RequestContext) -> Result<()> {
    let mut nonce = [0; 24];
    rand::thread_rng().fill_bytes(&mut nonce);
    let sealed = persistence.codec.seal(token, nonce);
    // Appended, never inserted: the application's own cookies stay, each on its line.
    answer.append_header(header::SET_COOKIE, persistence.set_cookie.value(&sealed, ctx.client.secure, ctx.now))?;
    if let Some(cache_control) = &persistence.cache_control {
        keep_from_shared_caches(answer, cache_control)?;
    }
    Ok(())
}

/// Adds `cache_control` unless a shared cache must not keep the answer anyway, and takes back what says the opposite.
fn keep_from_shared_caches(answer: &mut ResponseHeader, cache_control: &HeaderValue) -> Result<()> {
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
            answer.insert_header(header::CACHE_CONTROL, joined)?;
        }
    } else if !private {
        answer.append_header(header::CACHE_CONTROL, cache_control.clone())?;
    }
    Ok(())
}

/// `public` and `s-maxage` (RFC 9111, section 5.2.2) invite shared caches to keep an answer.
fn speaks_to_shared_caches(directive: &[u8]) -> bool {
    let starts = |word: &[u8]| directive.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    directive.eq_ignore_ascii_case(b"public") || starts(b"s-maxage=")
}
