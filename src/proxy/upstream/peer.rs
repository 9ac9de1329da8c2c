//! Selecting a server, once for each attempt of a request.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::persistence::select::Selection;
use crate::persistence::{RequestSession, Scope, Sessions};
use crate::pool::ServerIndex;
use crate::pool::exhaustion::exhausted;
use crate::pool::health::connect;
use crate::pool::live_state::InFlight;
use crate::pool::server::Server;
use crate::proxy::context::{Refusal, RequestContext, wall_clock};
use crate::proxy::head;
use crate::proxy::hook::{self, HookFuture};
use crate::telemetry::metrics::Retry;

use super::failure::LOCAL_RESOURCES;
use super::{dedicated, upgrade};

/// No server can serve the request now.
const NO_SERVER: Refusal = Refusal::new(503, "no_server");
/// The server of the session closed the connection, and the pool refuses to send its sessions to others.
const BROKE_OFF: Refusal = Refusal::new(502, "broke_off");
/// `retries.attempts` are used up.
const EXHAUSTED: Refusal = Refusal::new(503, "attempts_exhausted");

/// The hook.
pub(crate) fn run<'hook>(
    request: &'hook RequestHeader,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<Box<HttpPeer>>> {
    // The previous attempt is over for its server.
    ctx.attempts.in_flight = None;
    if let Some(same) = ctx.attempts.next.take() {
        let fresh = begin_attempt(ctx, same).map(|mut peer| {
            only_fresh_connections(&mut peer);
            peer
        });
        return hook::now(refuse(ctx, fresh));
    }
    let (sessions, scope, state) = ctx.sessions(head::view(request));
    match sessions.try_select(&scope, state) {
        Some(Selection::Hold(home)) => Box::pin(wait(request, ctx, Some(home))),
        Some(selection) => {
            open_session(selection, sessions, &scope, state);
            let peer = server_of(selection, ctx).and_then(|server| begin_attempt(ctx, server));
            hook::now(refuse(ctx, peer))
        }
        None => Box::pin(wait(request, ctx, None)),
    }
}

async fn wait(request: &RequestHeader, ctx: &mut RequestContext, home: Option<ServerIndex>) -> Result<Box<HttpPeer>> {
    let mut held = home;
    let selection = loop {
        if let Some(home) = held
            && hold(ctx, home).await == Waited::InVain
        {
            return refuse(ctx, Err(LOCAL_RESOURCES));
        }
        let (sessions, scope, state) = ctx.sessions(head::view(request));
        match sessions.select(&scope, state).await {
            Selection::Hold(home) => held = Some(home),
            selection => {
                open_session(selection, sessions, &scope, state);
                break selection;
            }
        }
    };
    let peer = server_of(selection, ctx).and_then(|server| begin_attempt(ctx, server));
    refuse(ctx, peer)
}

/// A first request of an address has bound it with the selection.
fn open_session(selection: Selection, sessions: &Sessions, scope: &Scope<'_, '_>, state: &mut RequestSession) {
    if let Selection::Server(server) = selection {
        sessions.open(Some(server), scope, state);
    }
}

fn server_of(selection: Selection, ctx: &RequestContext) -> std::result::Result<ServerIndex, Refusal> {
    match selection {
        Selection::Server(server) if ctx.dedicated.is_some() => Ok(dedicated::preferred(ctx).unwrap_or(server)),
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

/// Pingora pools connections by group; this attempt gets its own group, which keeps none. When one pooled connection to the
/// server was broken, others may be too.
fn only_fresh_connections(peer: &mut HttpPeer) {
    peer.group_key = rand::random();
    peer.options.idle_timeout = Some(Duration::ZERO);
}

fn begin_attempt(ctx: &mut RequestContext, server: ServerIndex) -> std::result::Result<Box<HttpPeer>, Refusal> {
    let Some(pool) = ctx.pool_runtime() else { return Err(NO_SERVER) };
    // Neither an attempt that was repeated at the same server counts, nor one at a server that came back.
    let failed = ctx.session.history.failed.len();
    if failed > pool.pool.retries.attempts as usize {
        pool.metrics.retries.inc(Retry::AttemptsExhausted as usize);
        return Err(EXHAUSTED);
    }
    let Some(target) = pool.pool.servers.get(server) else { return Err(NO_SERVER) };
    let Some(mut peer) = target.peer() else { return Err(NO_SERVER) };
    if ctx.attempts.count > 0 {
        pool.metrics.retries.inc(Retry::Sent as usize);
        target.live.metrics.retries.inc();
    }
    if let Some(dedicated) = &ctx.dedicated {
        peer.group_key = dedicated.group;
    }
    let in_flight = InFlight::begin(&target.live);
    let ends = target.live.connections.ends();
    let upgraded = ctx.upgrade.then(|| Arc::clone(&target.live.connections));
    ctx.attempts.in_flight = Some(in_flight);
    ctx.attempts.ends = ends;
    ctx.attempts.server = Some(server);
    ctx.attempts.count += 1;
    ctx.attempts.unshare = false;
    // The body is sent again from its first byte.
    ctx.body_bytes = 0;
    ctx.attempts.started = Some(start_of_attempt(ctx));
    if let Some(connections) = upgraded {
        only_fresh_connections(&mut peer);
        upgrade::prepare(&mut peer, connections);
    }
    Ok(peer)
}

/// The hook for a connection to the server of an attempt. `reused`: it has carried other requests.
pub(crate) fn connected(reused: bool, socket: RawFd, ctx: &mut RequestContext) {
    ctx.attempts.socket = Some(socket);
    let Some(server) = ctx.server() else { return };
    if let (false, Some(started)) = (reused, ctx.attempts.started) {
        server.live.metrics.connected(started.elapsed());
    }
    if server.live.drain.started().is_some() {
        server.live.connections.note_use(socket, wall_clock());
    }
}

/// The first attempt starts when the request head is read, unless the request has waited.
fn start_of_attempt(ctx: &RequestContext) -> std::time::Instant {
    let waited = ctx.attempts.count > 1 || ctx.session.has_waited();
    if waited { std::time::Instant::now() } else { ctx.started }
}

/// What waiting for a server led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// The server is back.
    CameBack,
    /// It did not come back in time.
    TimedOut,
    /// The proxy lacked the resources to find out.
    InVain,
}

/// Waits for the session's server. When it is back, its earlier failure does not count; either way no request waits twice.
async fn hold(ctx: &mut RequestContext, home: ServerIndex) -> Waited {
    ctx.session.history.held = true;
    let runtime = Arc::clone(&ctx.runtime);
    let pool = ctx.session.pool.and_then(|pool| runtime.pools.get(pool));
    let plan = pool.and_then(|pool| Some((pool.pool.servers.get(home)?, pool.persistence.as_ref()?)));
    let Some((server, persistence)) = plan else { return Waited::TimedOut };
    let refused = ctx.session.history.failure_of(home).is_some();
    let waited = wait_for(server, refused, persistence.policy.hold).await;
    if waited == Waited::CameBack {
        ctx.session.forget_failure_of(home);
    }
    waited
}

/// How often a server is tested while a request waits for it.
const TEST_INTERVAL: Duration = Duration::from_millis(100);
/// How long it has to accept the connection of a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits for a server, at most `hold`: until its health checks succeed, and a connection to it too when a connection had
/// failed or when the server has no health checks.
async fn wait_for(server: &Server, refused: bool, hold: Duration) -> Waited {
    let until = Instant::now() + hold;
    loop {
        let state = match server.condition().accepts_bound() {
            true if server.is_checked() && !refused => Waited::CameBack,
            true => test(server).await,
            false => Waited::TimedOut,
        };
        if state == Waited::CameBack || Instant::now() + TEST_INTERVAL >= until {
            return state;
        }
        sleep(TEST_INTERVAL).await;
    }
}

/// Whether the server accepts connections now.
async fn test(server: &Server) -> Waited {
    let Some(address) = server.peer_address() else { return Waited::TimedOut };
    match timeout(TEST_TIMEOUT, connect(&address)).await {
        Ok(Ok(())) => Waited::CameBack,
        Ok(Err(error)) if exhausted(&error).is_some() => Waited::InVain,
        _ => Waited::TimedOut,
    }
}
