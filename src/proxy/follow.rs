//! The first request of a session goes where the first of its parallel sisters went.
//!
//! A client that carries a key already (its address) binds it with its first request: the first of a hundred parallel
//! ones decides, in one step of the table, and the others follow. A client that carries nothing follows the last new
//! client of its address, where the pool asks for that.

use crate::persistence::Outcome;
use crate::pool::ServerIndex;
use crate::pool::server::Server;

use crate::session::key::SessionKey;

use crate::proxy::context::RequestContext;
use crate::proxy::shared;

/// Where a request without a session goes.
pub(crate) enum Followed {
    /// There.
    To(ServerIndex),
    /// It has a session now, since another request bound its key: choose again.
    ItsSession,
}

/// Binds an address. `chosen` is the server that the pool would give to a new session.
pub(crate) async fn bind(address: SessionKey, ctx: &mut RequestContext, chosen: ServerIndex) -> Followed {
    match shared::claim(address, chosen, ctx).await {
        Some(theirs) if theirs.home.is_some_and(|home| ctx.tries.history.failure_of(home).is_none()) => {
            ctx.who.session = Some(theirs);
            Followed::ItsSession
        }
        // Bound to a server that just failed this very request, so nobody has been answered there: no session moves yet.
        // The consistent hash chooses, as it does for those that wait for the same server.
        Some(mut theirs) => {
            let next =
                ctx.plan().and_then(|plan| plan.pool.pick_moved(&address.to_bytes(), &ctx.tries.history.servers()));
            let next = next.unwrap_or(chosen);
            if shared::settle(&mut theirs, next, None, ctx).await {
                return begin(ctx, next);
            }
            // Another request was faster.
            ctx.who.session = Some(theirs);
            Followed::ItsSession
        }
        None => begin(ctx, chosen),
    }
}

fn begin(ctx: &mut RequestContext, chosen: ServerIndex) -> Followed {
    ctx.begun = ctx.who.unknown_address;
    ctx.outcome = Some(Outcome::New);
    Followed::To(chosen)
}

/// Where the hint for the client's address says, if that server may still take it.
pub(crate) fn hinted(ctx: &RequestContext, chosen: ServerIndex) -> Option<ServerIndex> {
    // By consistent hash parallel requests agree without a hint, and other proxies with them.
    let (plan, persistence) = (ctx.plan()?, ctx.persistence().filter(|_| ctx.carried_key().is_none())?);
    let address = persistence.hint.as_ref()?.key_of(ctx.client.address?);
    let (hints, table) = (&ctx.app().first_requests, &ctx.app().table);
    let mine = persistence.targets.get(chosen)?;
    let may = |server: &ServerIndex| {
        let takes = plan.pool.servers.get(*server).is_some_and(Server::takes_new);
        takes && ctx.tries.history.failure_of(*server).is_none()
    };
    let server = |place| plan.pool.find(table.target_at(place)?.id()).filter(may);
    let theirs = hints.claim(address, mine, ctx.now)?;
    server(theirs).or_else(|| server(hints.replace(address, theirs, mine, ctx.now)?))
}
