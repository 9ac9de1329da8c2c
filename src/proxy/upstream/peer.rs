//! Choose a server: once for each try of a request.

use std::sync::Arc;
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::persistence::select::Selection;
use crate::pool::ServerIndex;
use crate::pool::health::connect;
use crate::pool::server::{InFlight, Server};
use crate::proxy::context::{Refusal, RequestContext};
use crate::proxy::head;
use crate::proxy::hook::{self, Hook};
use crate::telemetry::metrics::Retry;

use super::upgrade;

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
    // The former attempt is over for its server.
    ctx.tries.in_flight = None;
    if let Some(same) = ctx.tries.next.take() {
        let fresh = begin_try(ctx, same).map(|mut peer| {
            only_fresh_connections(&mut peer);
            peer
        });
        return hook::now(refuse(ctx, fresh));
    }
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    match sessions.try_select(&scope, state) {
        Some(Selection::Hold(home)) => Box::pin(wait(request, ctx, Some(home))),
        Some(selection) => {
            let peer = server_of(selection).and_then(|server| begin_try(ctx, server));
            hook::now(refuse(ctx, peer))
        }
        None => Box::pin(wait(request, ctx, None)),
    }
}

async fn wait(request: &RequestHeader, ctx: &mut RequestContext, home: Option<ServerIndex>) -> Result<Box<HttpPeer>> {
    let mut held = home;
    let selection = loop {
        if let Some(home) = held {
            hold(ctx, home).await;
        }
        let (sessions, scope, state) = ctx.sessions(head::view(request));
        match sessions.select(&scope, state).await {
            Selection::Hold(home) => held = Some(home),
            selection => break selection,
        }
    };
    let peer = server_of(selection).and_then(|server| begin_try(ctx, server));
    refuse(ctx, peer)
}

fn server_of(selection: Selection) -> std::result::Result<ServerIndex, Refusal> {
    match selection {
        Selection::Server(server) => Ok(server),
        Selection::Refuse { status, reason, clear_token } => Err(Refusal { status, why: reason.label(), clear_token }),
        Selection::Fail => Err(BROKE_OFF),
        // A hold was waited for.
        Selection::NoServer | Selection::Hold(_) => Err(NO_SERVER),
    }
}

fn refuse(ctx: &mut RequestContext, peer: std::result::Result<Box<HttpPeer>, Refusal>) -> Result<Box<HttpPeer>> {
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
    let Some(plan) = ctx.pool_runtime() else { return Err(NO_SERVER) };
    // Tries after the first, not counting the one more at the same server and a server that was waited for.
    let elsewhere = ctx.session.history.failed.len();
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

/// When this attempt begins. The first begins as soon as the request is read, unless the request has waited.
fn begins(ctx: &RequestContext) -> std::time::Instant {
    let waited = ctx.tries.count > 1 || ctx.session.has_waited();
    if waited { std::time::Instant::now() } else { ctx.started }
}

/// Waits for the session's server. When it is back, what it failed before is forgotten; either way nobody waits twice.
async fn hold(ctx: &mut RequestContext, home: ServerIndex) {
    ctx.session.history.held = true;
    let snapshot = Arc::clone(&ctx.runtime);
    let plan = ctx.session.pool.and_then(|pool| snapshot.pools.get(pool));
    let Some((plan, persistence)) = plan.and_then(|plan| Some((plan, plan.persistence.as_ref()?))) else { return };
    let Some(server) = plan.pool.servers.get(home) else { return };
    let refused = ctx.session.history.failure_of(home).is_some();
    if came_back(server, refused, persistence.policy.hold).await {
        ctx.session.forget_failure_of(home);
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
