//! Takes our token off a request, wherever its client carries it: the application need not know of it, and what it does
//! not see it cannot log.

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, header};
use pingora::Result;
use pingora::http::RequestHeader;

use crate::app::runtime::PoolPersistence;
use crate::config::CookieMode;
use crate::session::cookie::prefix;
use crate::session::cookie::read::{CookieRewrite, joined, without, without_matching};
use crate::session::source::Source;
use crate::session::token::looks_like_one;
use crate::session::url_params;

use crate::proxy::context::RequestContext;
use crate::proxy::header_case;

/// Works on the copy that a server gets.
pub(crate) fn run(request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    let persistence = ctx.persistence();
    let hidden = persistence.filter(|persistence| persistence.policy.cookie.hide_from_server);
    for source in hidden.iter().flat_map(|persistence| &persistence.sources) {
        match source {
            Source::Header(source) => {
                if let Some(name) = &source.name {
                    request.remove_header(name);
                }
            }
            Source::Query(source) => {
                from_target(request, &source.name)?;
                from_referer(request, &source.name)?;
            }
            Source::Cookie(_) | Source::Learn(_) | Source::Route(_) | Source::ClientIp(_) => {}
        }
    }
    from_cookies(request, persistence)
}

fn from_target(request: &mut RequestHeader, name: &str) -> Result<()> {
    let Some(clean) = std::str::from_utf8(request.raw_path()).ok().and_then(|raw| url_params::without(raw, name))
    else {
        return Ok(());
    };
    if request.uri.authority().is_none() {
        return request.set_raw_path(clean.as_bytes());
    }
    // HTTP/2 has the host in the target, and that stays.
    let mut app = request.uri.clone().into_parts();
    app.path_and_query = PathAndQuery::try_from(clean).ok();
    if let Ok(uri) = Uri::from_parts(app) {
        request.set_uri(uri);
    }
    Ok(())
}

/// The page before had the token in its URL.
fn from_referer(request: &mut RequestHeader, name: &str) -> Result<()> {
    let referer = request.headers.get(header::REFERER).and_then(|referer| referer.to_str().ok());
    match referer.and_then(|referer| url_params::without(referer, name)) {
        Some(clean) => request.insert_header(header::REFERER, clean),
        None => Ok(()),
    }
}

/// Takes our cookie off, and makes one Cookie field of several: HTTP/2 clients split theirs, and HTTP/1 servers read only
/// the first.
fn from_cookies(request: &mut RequestHeader, persistence: Option<&PoolPersistence>) -> Result<()> {
    let fields = request.headers.get_all(header::COOKIE).into_iter().map(HeaderValue::as_bytes);
    let carrier = persistence.filter(|persistence| persistence.reads_cookie());
    let rewritten = match carrier.map(|persistence| &persistence.policy.cookie) {
        Some(cookie) if cookie.mode == CookieMode::Prefix => prefix::strip_token(fields, cookie.name.as_bytes()),
        // A value that is no token is the application's own, from a time before ours.
        Some(cookie) if cookie.hide_from_server && cookie.mode == CookieMode::Rewrite => {
            without_matching(fields, cookie.name.as_bytes(), looks_like_one)
        }
        Some(cookie) if cookie.hide_from_server => without(fields, cookie.name.as_bytes()),
        _ => joined(fields),
    };
    // Made of what was a header's value before, so it is one.
    let cookies = match rewritten {
        CookieRewrite::Unchanged => return Ok(()),
        CookieRewrite::Remove => None,
        CookieRewrite::Slice(cookies) => HeaderValue::from_bytes(cookies).ok(),
        CookieRewrite::Replace(cookies) => HeaderValue::from_maybe_shared(bytes::Bytes::from(cookies)).ok(),
    };
    if let Some(cookies) = cookies {
        return header_case::set(request, [(&header_case::COOKIE, cookies)]);
    }
    request.remove_header(&header::COOKIE);
    Ok(())
}
