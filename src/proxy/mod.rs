//! The request's way through Pingora. The only place that sees Pingora's request.
//!
//! [`EdgeProxy`]'s `ProxyHttp` is the table of contents: one line a hook, in the order in which they run, each in a file
//! of its own. Pingora calls a request with its connection a *session*; here it is an [`Exchange`], since a session is
//! always the client's.

mod access_log;
pub mod connection;
pub mod context;
mod head;
mod header_case;
mod hook;
mod request;
mod response;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session as Exchange};

use crate::app::state::AppState;

use self::context::RequestContext;
use self::hook::Hook;
use self::request::limits;
use self::response::{failure_status, link_rewrite};
use self::upstream::{peer, request_headers, response_head, retry};

/// The application that Pingora runs.
pub struct EdgeProxy {
    /// What outlives every request.
    pub app: Arc<AppState>,
}

// Most hooks are written as `async_trait` would write an `async fn`: `hook` says why.
#[async_trait]
impl ProxyHttp for EdgeProxy {
    // In a box: Pingora moves it from future to future until the request is under way.
    type CTX = Box<RequestContext>;

    fn new_ctx(&self) -> Box<RequestContext> {
        Box::new(RequestContext::begin(&self.app))
    }

    // No modules: Pingora's compression would cost allocations in every request even when off.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    // 1  Receive: limits, client address, route; 2  Who is it: source, token, table. What servers are told of it.
    fn request_filter<'proxy, 'exchange, 'ctx, 'hook>(
        &'proxy self,
        exchange: &'exchange mut Exchange,
        ctx: &'ctx mut Box<RequestContext>,
    ) -> Hook<'hook, Result<bool>>
    where
        'proxy: 'hook,
        'exchange: 'hook,
        'ctx: 'hook,
    {
        request::run(exchange, ctx)
    }

    // 3  Choose: the bound server, or what failover says, or a balanced one. Once for each try.
    fn upstream_peer<'proxy, 'exchange, 'ctx, 'hook>(
        &'proxy self,
        exchange: &'exchange mut Exchange,
        ctx: &'ctx mut Box<RequestContext>,
    ) -> Hook<'hook, Result<Box<HttpPeer>>>
    where
        'proxy: 'hook,
        'exchange: 'hook,
        'ctx: 'hook,
    {
        peer::run(exchange.req_header(), ctx)
    }

    // 4  Forward: our cookie taken off. On a copy, for each try.
    fn upstream_request_filter<'proxy, 'exchange, 'request, 'ctx, 'hook>(
        &'proxy self,
        _: &'exchange mut Exchange,
        request: &'request mut RequestHeader,
        ctx: &'ctx mut Box<RequestContext>,
    ) -> Hook<'hook, Result<()>>
    where
        'proxy: 'hook,
        'exchange: 'hook,
        'request: 'hook,
        'ctx: 'hook,
    {
        request_headers::run(request, ctx)
    }

    fn request_body_filter<'proxy, 'exchange, 'body, 'ctx, 'hook>(
        &'proxy self,
        _: &'exchange mut Exchange,
        body: &'body mut Option<Bytes>,
        _: bool,
        ctx: &'ctx mut Box<RequestContext>,
    ) -> Hook<'hook, Result<()>>
    where
        'proxy: 'hook,
        'exchange: 'hook,
        'body: 'hook,
        'ctx: 'hook,
    {
        hook::done(limits::run(body.as_ref(), ctx))
    }

    // 5  If it fails: no connection came about …
    fn fail_to_connect(
        &self,
        _: &mut Exchange,
        _: &HttpPeer,
        ctx: &mut Box<RequestContext>,
        error: Box<Error>,
    ) -> Box<Error> {
        retry::to_connect(ctx, error)
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
        retry::while_proxying(exchange, ctx, error, reused)
    }

    // 6  Answer: the server has spoken, so a move is made good …
    fn upstream_response_filter<'proxy, 'exchange, 'answer, 'ctx, 'hook>(
        &'proxy self,
        exchange: &'exchange mut Exchange,
        answer: &'answer mut ResponseHeader,
        ctx: &'ctx mut Box<RequestContext>,
    ) -> Hook<'hook, Result<()>>
    where
        'proxy: 'hook,
        'exchange: 'hook,
        'answer: 'hook,
        'ctx: 'hook,
    {
        response_head::run(exchange.req_header(), answer, ctx)
    }

    // … and the client gets its token when it must; what the server hands over stays here.
    fn response_filter<'proxy, 'exchange, 'answer, 'ctx, 'hook>(
        &'proxy self,
        exchange: &'exchange mut Exchange,
        answer: &'answer mut ResponseHeader,
        ctx: &'ctx mut Box<RequestContext>,
    ) -> Hook<'hook, Result<()>>
    where
        'proxy: 'hook,
        'exchange: 'hook,
        'answer: 'hook,
        'ctx: 'hook,
    {
        response::run(exchange, answer, ctx)
    }

    // The token goes into the links of a page while it passes.
    fn response_body_filter(
        &self,
        _: &mut Exchange,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<RequestContext>,
    ) -> Result<Option<Duration>> {
        link_rewrite::pass(body, end, ctx)?;
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        exchange: &mut Exchange,
        error: &Error,
        ctx: &mut Box<RequestContext>,
    ) -> FailToProxy {
        failure_status::run(exchange, error, ctx).await
    }

    // 7  Afterwards: metrics, access log.
    fn logging<'proxy, 'exchange, 'error, 'ctx, 'hook>(
        &'proxy self,
        exchange: &'exchange mut Exchange,
        error: Option<&'error Error>,
        ctx: &'ctx mut Box<RequestContext>,
    ) -> Hook<'hook, ()>
    where
        'proxy: 'hook,
        'exchange: 'hook,
        'error: 'hook,
        'ctx: 'hook,
    {
        access_log::run(exchange, error, ctx);
        hook::nothing()
    }

    // Failures are counted, written to the access log, and told once per change of a server, not once per request.
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
