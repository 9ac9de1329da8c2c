//! What a server is told of a session that moved to it: `from=<server>; reason=<reason>; epoch=<n>`.

use std::sync::Arc;

use http::HeaderValue;

use crate::app::runtime::PoolRuntime;
use crate::persistence::resolve::Returning;

use crate::proxy::context::RequestContext;

/// The session of a request that does not go to its home, and its pool. A session that had to leave its version comes
/// from the pool that it left.
pub(super) fn leaving(ctx: &RequestContext) -> Option<(&Returning, &PoolRuntime)> {
    let (session, pool) = match &ctx.left {
        Some(left) => (left.session.as_ref(), Some(left.pool)),
        None => (ctx.who.session.as_ref(), ctx.pool),
    };
    session.zip(ctx.runtime.pools.get(pool?))
}

/// The header's value for a session that moves.
pub(super) fn told(session: &Returning, plan: &PoolRuntime, ctx: &RequestContext) -> Option<HeaderValue> {
    let reason = ctx.reason?.label();
    let from = match session.home.and_then(|home| plan.pool.servers.get(home)) {
        Some(server) => Arc::clone(&server.name),
        None => name_of_former(ctx, &plan.pool.name, session),
    };
    let epoch = session.binding.epoch.saturating_add(1);
    // Names of servers are letters, digits and a few signs.
    HeaderValue::try_from(format!("from={from}; reason={reason}; epoch={epoch}")).ok()
}

/// The configuration no longer has the server; the table may remember its name.
fn name_of_former(ctx: &RequestContext, pool: &str, session: &Returning) -> Arc<str> {
    let targets = ctx.app().table.targets();
    let former = targets.iter().find(|place| place.pool() == pool && place.id() == session.binding.server);
    former.map_or_else(|| Arc::from("unknown"), |place| Arc::from(place.server()))
}
