//! A version of the application cannot serve: its pool's policy has had its say, and now the others of the split may.
//!
//! Every pool seals its own tokens, so a session that leaves its pool begins anew in the next one, on the server that the
//! consistent hash of its key says: parallel requests, and other proxies, agree.

use std::sync::Arc;

use pingora::http::RequestHeader;

use crate::persistence::resolve::Named;
use crate::persistence::{Outcome, Reason};
use crate::routing::Target;

use crate::proxy::context::{Left, RequestContext};
use crate::proxy::identify;

/// Goes on to the next pool of the split; false when there is none left, or no split.
pub(crate) fn leave(
    request: &RequestHeader,
    ctx: &mut RequestContext,
    outcome: Outcome,
    reason: Option<Reason>,
) -> bool {
    let snapshot = Arc::clone(&ctx.runtime);
    let Some(Target::Split(split)) = snapshot.router.plan(ctx.route).map(|plan| &plan.target) else { return false };
    let Some(pool) = ctx.pool else { return false };
    let mut left = ctx.left.take().unwrap_or_else(|| {
        let mut others: smallvec::SmallVec<_> = split.others(pool, ctx.point).collect();
        others.reverse();
        Box::new(Left { pool, session: ctx.who.session.take(), outcome, reason, others })
    });
    let next = left.others.pop();
    ctx.left = Some(left);
    let Some(next) = next else { return false };
    // What failed was of the other pool.
    ctx.tries.history.failed.clear();
    ctx.tries.server = None;
    identify::again(request, ctx, next);
    true
}

/// The request goes to a server of another pool than that of its session: what that means to the session was said by the
/// pool that it left.
pub(crate) fn arrive(ctx: &mut RequestContext) {
    if let Some(left) = &ctx.left
        && left.session.is_some()
    {
        (ctx.outcome, ctx.reason) = (Some(left.outcome), left.reason);
    }
}

/// A server of the other pool has answered: the session has left its pool for good.
pub(crate) fn settle(ctx: &RequestContext) {
    let Some(left) = &ctx.left else { return };
    let (Some(session), Some(plan)) = (&left.session, ctx.runtime.pools.get(left.pool)) else { return };
    if let Some(reason) = left.reason {
        plan.metrics.moves.inc(reason as usize);
    }
    // A token is replaced by the other pool's. What only the table knows would lead back.
    if matches!(session.named, Named::Id | Named::Address)
        && let Some(homes) = ctx.homes_in(plan)
    {
        session.end(&homes, ctx.now);
    }
}
