//! Choose a server: once for each try of a request.

use std::sync::Arc;
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::persistence::Outcome;
use crate::persistence::select::{self, Choice, Spread};
use crate::pool::ServerIndex;
use crate::pool::health::connect;
use crate::pool::server::{InFlight, Server};
use crate::session::key::SessionKey;
use crate::session::source::Source;
use crate::telemetry::metrics::Retry;

use super::upgrade;
use crate::proxy::context::{Refusal, RequestContext};
use crate::proxy::follow::{Followed, bind, hinted};
use crate::proxy::hook::{self, Hook};
use crate::proxy::versions;

/// No server takes the request now: try again in a moment.
const NO_SERVER: Refusal = Refusal::new(503, "no_server");
/// The bound server broke off and the pool wants its sessions nowhere else.
const BROKE_OFF: Refusal = Refusal::new(502, "broke_off");
/// Its tries are used up.
const EXHAUSTED: Refusal = Refusal::new(503, "attempts_exhausted");

/// The hook.
pub(crate) fn run<'hook>(
    request: &'hook RequestHeader,
    ctx: &'hook mut RequestContext,
) -> Hook<'hook, Result<Box<HttpPeer>>> {
    // The former try is over for its server.
    ctx.tries.in_flight = None;
    if let Some(same) = ctx.tries.next.take() {
        let fresh = begin_try(ctx, same).map(|mut peer| {
            only_fresh_connections(&mut peer);
            peer
        });
        return hook::now(told(ctx, fresh));
    }
    match look(request, ctx) {
        Looked::Chosen(server) => {
            let peer = server.and_then(|server| begin_try(ctx, server));
            hook::now(told(ctx, peer))
        }
        unsure => Box::pin(wait(request, ctx, unsure)),
    }
}

async fn wait(request: &RequestHeader, ctx: &mut RequestContext, unsure: Looked) -> Result<Box<HttpPeer>> {
    let peer = choose(request, ctx, unsure).await.and_then(|server| begin_try(ctx, server));
    told(ctx, peer)
}

fn told(ctx: &mut RequestContext, peer: std::result::Result<Box<HttpPeer>, Refusal>) -> Result<Box<HttpPeer>> {
    peer.map_err(|refusal| {
        ctx.refusal = Some(refusal);
        Error::explain(ErrorType::HTTPStatus(refusal.status), refusal.why)
    })
}

/// Pingora pools by group; this try gets a group of its own, which keeps nothing. After a kept connection to the server
/// broke, the others that are kept may be broken too.
fn only_fresh_connections(peer: &mut HttpPeer) {
    peer.group_key = rand::random();
    peer.options.idle_timeout = Some(Duration::ZERO);
}

fn begin_try(ctx: &mut RequestContext, server: ServerIndex) -> std::result::Result<Box<HttpPeer>, Refusal> {
    let Some(plan) = ctx.plan() else { return Err(NO_SERVER) };
    // Tries after the first, not counting the one more at the same server and a server that was waited for.
    let elsewhere = ctx.tries.history.failed.len();
    if elsewhere > plan.pool.retries.attempts as usize {
        plan.metrics.retries.inc(Retry::AttemptsExhausted as usize);
        return Err(EXHAUSTED);
    }
    let Some(target) = plan.pool.servers.get(server) else { return Err(NO_SERVER) };
    let Some(mut peer) = target.peer() else { return Err(NO_SERVER) };
    if ctx.tries.count > 0 {
        plan.metrics.retries.inc(Retry::Sent as usize);
    }
    let in_flight = InFlight::begin(&target.live);
    ctx.tries.in_flight = Some(in_flight);
    ctx.tries.server = Some(server);
    ctx.tries.count += 1;
    // What was read of the body is sent anew from its first byte.
    ctx.body_bytes = 0;
    ctx.tries.began = Some(begins(ctx));
    if ctx.upgrade {
        only_fresh_connections(&mut peer);
        upgrade::prepare(&mut peer);
    }
    Ok(peer)
}

/// When this try begins. The first begins as soon as the request is read, unless the request has waited for something.
fn begins(ctx: &RequestContext) -> std::time::Instant {
    let waited = ctx.tries.count > 1 || ctx.tries.history.held || ctx.app().shared.is_some();
    if waited { std::time::Instant::now() } else { ctx.started }
}

/// What a look at the pool says.
enum Looked {
    /// There, or nowhere.
    Chosen(std::result::Result<ServerIndex, Refusal>),
    /// There, unless a parallel request of the same address was faster.
    First(SessionKey, ServerIndex),
    /// The session's server may come back in a moment.
    Held(ServerIndex),
    /// Another pool of the split has the request now.
    Elsewhere,
}

async fn choose(
    request: &RequestHeader,
    ctx: &mut RequestContext,
    mut looked: Looked,
) -> std::result::Result<ServerIndex, Refusal> {
    loop {
        match looked {
            Looked::Chosen(server) => return server,
            Looked::First(address, server) => {
                if let Followed::To(server) = bind(address, ctx, server).await {
                    versions::arrive(ctx);
                    return Ok(server);
                }
            }
            Looked::Held(home) => hold(ctx, home).await,
            Looked::Elsewhere => {}
        }
        looked = look(request, ctx);
    }
}

fn look(request: &RequestHeader, ctx: &mut RequestContext) -> Looked {
    let Some(plan) = ctx.plan() else { return Looked::Chosen(Err(NO_SERVER)) };
    let policy = plan.persistence.as_ref().map(|persistence| &persistence.policy);
    let refuse_status = policy.map_or(NO_SERVER.status, |policy| policy.refuse_status);
    let spread = ctx.carried_key().map_or(Spread::Balanced(&ctx.hash_key), Spread::By);
    match select::choose(&plan.pool, policy, ctx.who.session.as_ref(), &ctx.tries.history, spread) {
        Choice::To { server, outcome, reason } => {
            (ctx.outcome, ctx.reason) = (Some(outcome), reason);
            if ctx.who.session.is_some() {
                return Looked::Chosen(Ok(server));
            }
            if let Some(address) = ctx.who.unknown_address {
                return Looked::First(address, server);
            }
            let server = hinted(ctx, server).unwrap_or(server);
            versions::arrive(ctx);
            Looked::Chosen(Ok(server))
        }
        Choice::Hold(home) => Looked::Held(home),
        Choice::Refuse(reason) => {
            (ctx.outcome, ctx.reason) = (Some(Outcome::Refused), Some(reason));
            let clear_token = end_refused(ctx);
            Looked::Chosen(Err(Refusal { status: refuse_status, why: reason.label(), clear_token }))
        }
        Choice::Fail => Looked::Chosen(Err(BROKE_OFF)),
        Choice::Nobody { outcome, reason } => {
            (ctx.outcome, ctx.reason) = (Some(outcome), reason);
            if versions::leave(request, ctx, outcome, reason) {
                Looked::Elsewhere
            } else {
                Looked::Chosen(Err(NO_SERVER))
            }
        }
    }
}

/// A refused session is over, so that its client begins anew with the next request. True when that is done by taking our
/// own cookie away.
fn end_refused(ctx: &RequestContext) -> bool {
    let (Some(persistence), Some(session)) = (ctx.persistence(), &ctx.who.session) else { return false };
    if persistence.owns_cookie() && matches!(ctx.source(), Some(Source::Cookie(_))) {
        ctx.app().data.forget(&session.key);
        return true;
    }
    if let Some(homes) = ctx.homes() {
        session.end(&homes, ctx.now);
    }
    false
}

/// Waits for the session's server. When it is back, what it failed before is forgotten; either way nobody waits twice.
async fn hold(ctx: &mut RequestContext, home: ServerIndex) {
    ctx.tries.history.held = true;
    let snapshot = Arc::clone(&ctx.runtime);
    let plan = ctx.pool.and_then(|pool| snapshot.pools.get(pool));
    let Some((plan, persistence)) = plan.and_then(|plan| Some((plan, plan.persistence.as_ref()?))) else { return };
    let Some(server) = plan.pool.servers.get(home) else { return };
    let refused = ctx.tries.history.failure_of(home).is_some();
    if came_back(server, refused, persistence.policy.hold).await {
        ctx.tries.history.failed.retain(|(failed, _)| *failed != home);
    }
}

/// A server without a verdict of its own is asked this often while its sessions are held.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// … and gets this long to take the connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Waits for a server, at most `hold`: until its checks say that it is back, and a connection to it succeeds when that is
/// what failed, or when nothing checks it.
async fn came_back(server: &Server, refused: bool, hold: Duration) -> bool {
    let until = Instant::now() + hold;
    loop {
        let usable = server.condition().takes_bound();
        if usable && ((server.is_checked() && !refused) || takes_connections(server).await) {
            return true;
        }
        if Instant::now() + ASK_EVERY >= until {
            return false;
        }
        sleep(ASK_EVERY).await;
    }
}

async fn takes_connections(server: &Server) -> bool {
    match server.peer_address() {
        Some(address) => matches!(timeout(ANSWER_WITHIN, connect(&address)).await, Ok(Ok(()))),
        None => false,
    }
}
