//! Forward: what this server gets to see. Works on the copy that Pingora makes for each try.

use pingora::Result;
use pingora::http::RequestHeader;

use crate::proxy::context::RequestContext;
use crate::proxy::handoff;
use crate::proxy::hook::{self, Hook};
use crate::proxy::request::strip_token;
use crate::proxy::response::link_rewrite;

/// The hook.
pub(crate) fn run<'hook>(request: &'hook mut RequestHeader, ctx: &'hook mut RequestContext) -> Hook<'hook, Result<()>> {
    if ctx.app().shared.is_some() {
        return Box::pin(fetch_and_change(request, ctx));
    }
    hook::done(change(request, ctx))
}

/// Where several proxies share a store.
async fn fetch_and_change(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    handoff::fetch(ctx).await;
    change(request, ctx)
}

fn change(request: &mut RequestHeader, ctx: &mut RequestContext) -> Result<()> {
    strip_token::run(request, ctx)?;
    link_rewrite::ask_readable(request, ctx)?;
    handoff::give(request, ctx)?;
    change_as_the_route_says(request, ctx)
}

/// Last of all, so that an operator can overrule what the proxy says.
fn change_as_the_route_says(request: &mut RequestHeader, ctx: &RequestContext) -> Result<()> {
    let Some(plan) = ctx.runtime.router.plan(ctx.route) else { return Ok(()) };
    for name in &plan.request_headers.remove {
        request.remove_header(name);
    }
    for (name, value) in &plan.request_headers.set {
        request.insert_header(name, value.clone())?;
    }
    Ok(())
}
