//! The way of a request through Pingora.
//!
//! The implementation of `ProxyHttp` is the table of contents: one line a hook, in the order in which they run. Pingora
//! calls a request with its connection a *session*; here it is an [`Exchange`], since a session is always the client's.

mod access_log;
pub mod connection;
pub mod context;
pub mod fast_path;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod head;
mod header_case;
mod hook;
mod request;
mod response;
mod upstream;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session as Exchange};

use crate::app::state::AppState;

use self::context::RequestContext;
use self::hook::hook;
use self::request::limits;
use self::response::{early_response, link_rewrite, own_response};
use self::upstream::{dedicated, failure, peer, request_headers, response_head};

/// The application that Pingora runs.
pub struct EdgeProxy {
    /// The state of the process.
    pub app: Arc<AppState>,
}

#[async_trait]
impl ProxyHttp for EdgeProxy {
    // In a box: Pingora moves it from future to future until the request is being proxied.
    type CTX = Box<RequestContext>;

    fn new_ctx(&self) -> Box<RequestContext> {
        Box::new(RequestContext::begin(&self.app))
    }

    // No modules: Pingora's compression would cost allocations in every request even when it is off.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    // 1  The request head: limits, client address, route; the session is resolved; forwarded headers are set.
    hook!(request_filter(exchange, ctx) -> Result<bool> => request::run(exchange, ctx));

    // 2  For each attempt: the server is selected …
    hook!(upstream_peer(exchange, ctx) -> Result<Box<HttpPeer>> => peer::run(exchange, ctx));

    // … a connection to it is taken from the pool or established …
    hook!(connected_to_upstream<'p, 'd>(
        _, reused: bool, peer: &'p HttpPeer, socket: RawFd, _: Option<&'d Digest>; ctx
    ) -> Result<()> => {
        peer::connected(peer.options.alpn.get_max_http_version() == 1, reused, socket, ctx);
        hook::done(Ok(()))
    });

    // … and a copy of the request is edited for it: the token is removed, session data is injected.
    hook!(upstream_request_filter<'r>(_, request: &'r mut RequestHeader; ctx) -> Result<()> =>
        request_headers::run(request, ctx));

    hook!(request_body_filter<'b>(exchange, body: &'b mut Option<Bytes>, end: bool; ctx) -> Result<()> => {
        if !end {
            ctx.note_piece(head::view(exchange.req_header()));
        }
        hook::done(limits::check_body(body.as_ref(), end, ctx))
    });

    // 3  If the attempt fails: no connection was established …
    fn fail_to_connect(
        &self,
        _: &mut Exchange,
        _: &HttpPeer,
        ctx: &mut Box<RequestContext>,
        error: Box<Error>,
    ) -> Box<Error> {
        failure::on_connect(ctx, error)
    }

    // … or it broke later.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        exchange: &mut Exchange,
        error: Box<Error>,
        ctx: &mut Box<RequestContext>,
        reused: bool,
    ) -> Box<Error> {
        failure::while_proxying(exchange, ctx, error, reused)
    }

    // 4  The response head: a move is committed, ids that the server issues are learned …
    hook!(upstream_response_filter<'r>(exchange, response: &'r mut ResponseHeader; ctx) -> Result<()> =>
        response_head::run(exchange, response, ctx));

    // … and the client is issued a token when it needs one.
    hook!(response_filter<'r>(exchange, response: &'r mut ResponseHeader; ctx) -> Result<()> =>
        response::run(exchange, response, ctx));

    // The links of a page are rewritten while it passes, and its bytes are counted.
    fn response_body_filter(
        &self,
        exchange: &mut Exchange,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<RequestContext>,
    ) -> Result<Option<Duration>> {
        if end {
            failure::check_end(exchange, ctx)?;
        } else {
            ctx.note_piece(head::view(exchange.req_header()));
        }
        link_rewrite::pass(body, end, ctx)?;
        if end && let Some(progress) = &ctx.body_progress {
            progress.end_within(limits::DRAIN_TIMEOUT);
        }
        limits::count_response(body.as_ref(), ctx);
        Ok(if end && ctx.attempts.unshare { dedicated::end_connection(ctx) } else { None })
    }

    // No server responded: an error page.
    async fn fail_to_proxy(
        &self,
        exchange: &mut Exchange,
        error: &Error,
        ctx: &mut Box<RequestContext>,
    ) -> FailToProxy {
        own_response::on_failure(exchange, error, ctx).await
    }

    // 5  Afterwards: metrics, access log.
    hook!(logging<'e>(exchange, error: Option<&'e Error>; ctx) -> () => {
        access_log::run(exchange, error, ctx);
        early_response::run(exchange, error, ctx)
    });

    // Failures are counted, written to the access log, and logged when a server's condition changes, not with each request.
    fn suppress_error_log(&self, _: &Exchange, _: &Box<RequestContext>, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Exchange,
        _: &Box<RequestContext>,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
