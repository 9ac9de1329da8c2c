//! The request's way through Pingora. The only place that sees Pingora's request.
//!
//! [`EdgeProxy`]'s `ProxyHttp` is the table of contents: one line a hook, in the order in which they run, each in a file
//! of its own. Pingora calls a request with its connection a *session*; here it is an [`Exchange`], since a session is
//! always the client's.

mod answer;
pub mod connection;
pub mod context;
mod early;
mod fail_to_proxy;
mod failure;
mod follow;
mod forwarded;
mod give;
mod handoff;
mod header_case;
mod hide;
mod identify;
mod learn;
mod links;
mod logging;
mod noticed;
mod redirect;
mod request_body_filter;
mod request_filter;
mod response_filter;
mod shared;
mod upgrade;
mod upstream_peer;
mod upstream_request_filter;
mod upstream_response_filter;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session as Exchange};

use crate::snapshot::Parts;

use self::context::RequestContext;

/// The application that Pingora runs.
pub struct EdgeProxy {
    /// What outlives every request.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl ProxyHttp for EdgeProxy {
    // In a box: Pingora moves it from future to future until the request is under way.
    type CTX = Box<RequestContext>;

    fn new_ctx(&self) -> Box<RequestContext> {
        Box::new(RequestContext::begin(&self.parts))
    }

    // No modules: Pingora's compression would cost allocations in every request even when off.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    // 1  Receive: limits, client address, route; 2  Who is it: source, token, table.
    async fn request_filter(&self, exchange: &mut Exchange, ctx: &mut Box<RequestContext>) -> Result<bool> {
        request_filter::run(exchange, ctx).await
    }

    // 3  Choose: the bound server, or what failover says, or a balanced one. Once for each try.
    async fn upstream_peer(&self, exchange: &mut Exchange, ctx: &mut Box<RequestContext>) -> Result<Box<HttpPeer>> {
        upstream_peer::run(exchange.req_header(), ctx).await
    }

    // 4  Forward: our cookie taken off, forwarded headers added. On a copy, for each try.
    async fn upstream_request_filter(
        &self,
        exchange: &mut Exchange,
        request: &mut RequestHeader,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        handoff::fetch(ctx).await;
        upstream_request_filter::run(exchange, request, ctx)
    }

    async fn request_body_filter(
        &self,
        _: &mut Exchange,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        request_body_filter::run(body.as_ref(), ctx)
    }

    // 5  If it fails: no connection came about …
    fn fail_to_connect(
        &self,
        _: &mut Exchange,
        _: &HttpPeer,
        ctx: &mut Box<RequestContext>,
        error: Box<Error>,
    ) -> Box<Error> {
        failure::to_connect(ctx, error)
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

    // 6  Answer: the server has spoken, so a move is made good …
    async fn upstream_response_filter(
        &self,
        exchange: &mut Exchange,
        answer: &mut ResponseHeader,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        upstream_response_filter::run(exchange, answer, ctx).await
    }

    // … and the client gets its token when it must; what the server hands over stays here.
    async fn response_filter(
        &self,
        exchange: &mut Exchange,
        answer: &mut ResponseHeader,
        ctx: &mut Box<RequestContext>,
    ) -> Result<()> {
        response_filter::run(exchange, answer, ctx).await
    }

    // The token goes into the links of a page while it passes.
    fn response_body_filter(
        &self,
        _: &mut Exchange,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<RequestContext>,
    ) -> Result<Option<Duration>> {
        links::pass(body, end, ctx)?;
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        exchange: &mut Exchange,
        error: &Error,
        ctx: &mut Box<RequestContext>,
    ) -> FailToProxy {
        fail_to_proxy::run(exchange, error, ctx).await
    }

    // 7  Afterwards: metrics, access log.
    async fn logging(&self, exchange: &mut Exchange, error: Option<&Error>, ctx: &mut Box<RequestContext>) {
        logging::run(exchange, error, ctx);
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
