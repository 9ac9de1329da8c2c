//! A route may send clients elsewhere: answered here, no session is looked for and no server is asked.

use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session as Exchange;

use crate::routing::Target;
use crate::telemetry::metrics::Rejection;

use crate::proxy::context::RequestContext;
use crate::proxy::request::host_of;

/// Whether its route redirects.
pub(crate) fn concerns(ctx: &RequestContext) -> bool {
    ctx.runtime.router.plan(ctx.route).is_some_and(|plan| matches!(plan.target, Target::Redirect(_)))
}

/// Answers a request of a route that redirects. A host that must not be echoed is refused.
pub(crate) async fn run(exchange: &mut Exchange, ctx: &RequestContext) -> Result<std::result::Result<(), Rejection>> {
    let Some(Target::Redirect(to)) = ctx.runtime.router.plan(ctx.route).map(|plan| &plan.target) else {
        return Ok(Err(Rejection::NoRoute));
    };
    let request = exchange.req_header();
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let Some(location) = to.location(host_of(request), target, ctx.client.secure) else {
        return Ok(Err(Rejection::Malformed));
    };
    let mut head = ResponseHeader::build(to.status, Some(2))?;
    head.insert_header(header::LOCATION, location)?;
    head.insert_header(header::CONTENT_LENGTH, "0")?;
    exchange.write_response_header(Box::new(head), true).await?;
    Ok(Ok(()))
}
