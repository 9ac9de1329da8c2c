//! Selecting a server, once for each attempt of a request.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session as Exchange;
use tokio::time::{Instant, sleep, timeout};

use crate::message::RequestView;
use crate::persistence::select::{FailureKind, Selection};
use crate::persistence::{RequestSession, Scope, Sessions};
use crate::pool::ServerIndex;
use crate::pool::exhaustion::exhausted_in;
use crate::pool::server::{NotAdmitted, Server};
use crate::proxy::context::{NextStep, NoAttempt, Refusal, RequestContext, wall_clock};
use crate::proxy::head;
use crate::proxy::hook::{self, HookFuture};
use crate::telemetry::metrics::Retry;
use crate::telemetry::request_record::FailureSource;

use super::failure::{LOCAL_RESOURCES, TLS_FAILURE};
use super::{dedicated, queue, upgrade};

/// No server can serve the request now.
const NO_SERVER: Refusal = Refusal::new(503, "no_server");
/// The server of the session closed the connection, and the pool refuses to send its sessions to others.
const BROKE_OFF: Refusal = Refusal::new(502, "broke_off");
/// A server closed the connection before it responded, and no other is left.
const ALL_BROKE_OFF: Refusal = Refusal::new(502, FailureSource::Server.label());
/// `retries.attempts` are used up.
const EXHAUSTED: Refusal = Refusal::new(503, "attempts_exhausted");

/// An attempt that has begun, or why there is none.
type Attempt = std::result::Result<Box<HttpPeer>, NoAttempt>;

/// The hook.
pub(crate) fn run<'hook>(
    exchange: &'hook mut Exchange,
    ctx: &'hook mut RequestContext,
) -> HookFuture<'hook, Result<Box<HttpPeer>>> {
    if let Some(failure) = ctx.attempts.failure.take() {
        return hook::now(Err(failure));
    }
    match ctx.attempts.none.take() {
        Some(NoAttempt::Wait(step)) => return Box::pin(wait(exchange, ctx, step)),
        Some(refused) => return hook::now(refuse(ctx, Err(refused))),
        None => {}
    }
    if let Some(same) = ctx.attempts.next.take() {
        match begin_attempt(ctx, same) {
            Err(NoAttempt::Wait(_)) => {}
            attempt => {
                return hook::now(refuse(
                    ctx,
                    attempt.map(|mut peer| {
                        only_fresh_connections(&mut peer);
                        peer
                    }),
                ));
            }
        }
    }
    match try_begin(head::view(exchange.req_header()), ctx) {
        Err(NoAttempt::Wait(step)) => Box::pin(wait(exchange, ctx, step)),
        begun => {
            let attempt = begun.and_then(|()| peer(ctx));
            hook::now(refuse(ctx, attempt))
        }
    }
}

/// Selects a server and begins an attempt there, as far as that goes without waiting.
pub(crate) fn try_begin(request: RequestView<'_>, ctx: &mut RequestContext) -> std::result::Result<(), NoAttempt> {
    // The previous attempt is over for its server.
    ctx.attempts.in_flight = None;
    let (sessions, scope, state) = ctx.sessions(request);
    let Some(selection) = sessions.try_select(&scope, state) else { return Err(NoAttempt::Wait(NextStep::Select)) };
    open_session(selection, sessions, &scope, state);
    let server = server_of(selection, ctx)?;
    admit(ctx, server)
}

async fn wait(exchange: &mut Exchange, ctx: &mut RequestContext, mut step: NextStep) -> Result<Box<HttpPeer>> {
    let mut patience = queue::Patience::default();
    loop {
        // The server at which a request without a session has a place now.
        let mut place = None;
        match step {
            NextStep::Select => {}
            NextStep::Hold(home) => {
                ctx.attempts.in_flight = None;
                if hold(ctx, home).await == Waited::InVain {
                    return refuse(ctx, Err(NoAttempt::Refused(LOCAL_RESOURCES)));
                }
            }
            NextStep::Queue(server) => match queue::wait(exchange, ctx, server, &mut patience).await {
                Ok(None) => {}
                Ok(Some((at, slot))) => {
                    ctx.attempts.in_flight = Some(slot);
                    place = Some(at).filter(|_| server.is_none() || !ctx.session.has_key());
                }
                Err(queue::GaveUp::Refused(refusal)) => return refuse(ctx, Err(NoAttempt::Refused(refusal))),
                Err(queue::GaveUp::ClientLeft) => {
                    return Error::e_explain(ErrorType::ConnectionClosed, "while it waited for a server")
                        .map_err(Error::into_down);
                }
            },
        }
        let (sessions, scope, state) = ctx.sessions(head::view(exchange.req_header()));
        let selection = match place {
            Some(server) => sessions.place(server, &scope, state).await,
            None => sessions.select(&scope, state).await,
        };
        open_session(selection, sessions, &scope, state);
        step = match attempt(selection, ctx) {
            Err(NoAttempt::Wait(step)) => step,
            attempt => return refuse(ctx, attempt),
        };
        if step == NextStep::Select {
            // The server's condition has changed since it was selected.
            tokio::task::yield_now().await;
        }
    }
}

/// A first request of an address has bound it with the selection.
fn open_session(selection: Selection, sessions: &Sessions, scope: &Scope<'_, '_>, state: &mut RequestSession) {
    if let Selection::Server(server) = selection {
        sessions.open(Some(server), scope, state);
    }
}

fn server_of(selection: Selection, ctx: &RequestContext) -> std::result::Result<ServerIndex, NoAttempt> {
    let refusal = match selection {
        Selection::Server(server) if ctx.dedicated.is_some() => return Ok(dedicated::preferred(ctx).unwrap_or(server)),
        Selection::Server(server) => return Ok(server),
        Selection::Hold(home) => return Err(NoAttempt::Wait(NextStep::Hold(home))),
        Selection::Full => return Err(NoAttempt::Wait(NextStep::Queue(None))),
        Selection::Refuse { status, reason, clear_token } => {
            Refusal { clear_token, ..Refusal::new(status, reason.label()) }
        }
        Selection::Fail => BROKE_OFF,
        Selection::NoServer => NO_SERVER,
    };
    Err(NoAttempt::Refused(refusal))
}

/// Begins the attempt that was selected.
fn attempt(selection: Selection, ctx: &mut RequestContext) -> Attempt {
    let server = server_of(selection, ctx)?;
    begin_attempt(ctx, server)
}

fn refuse(ctx: &mut RequestContext, attempt: Attempt) -> Result<Box<HttpPeer>> {
    attempt.map_err(|none| {
        let refusal = match none {
            NoAttempt::Refused(refusal) => refusal,
            NoAttempt::Wait(_) => NO_SERVER,
        };
        let unserved = [NO_SERVER.why, EXHAUSTED.why].contains(&refusal.why);
        let refusal = match ctx.session.history.failed.last() {
            _ if unserved && ctx.attempts.tls_failed => TLS_FAILURE,
            Some((_, FailureKind::BrokeOff)) if refusal.why == NO_SERVER.why => ALL_BROKE_OFF,
            _ => refusal,
        };
        ctx.attempts.in_flight = None;
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

fn begin_attempt(ctx: &mut RequestContext, server: ServerIndex) -> Attempt {
    admit(ctx, server)?;
    peer(ctx)
}

/// The server of the attempt that has begun, for Pingora.
fn peer(ctx: &RequestContext) -> Attempt {
    let server = ctx.server().and_then(|server| Some((server, server.peer()?)));
    let Some((server, mut peer)) = server else { return Err(NoAttempt::Refused(NO_SERVER)) };
    if let Some(dedicated) = &ctx.dedicated {
        // Not of one group with another pool, nor with another certificate.
        peer.group_key ^= dedicated.group;
    }
    if ctx.attempts.is_probe() {
        // A connection from before the ejection would say nothing about the server.
        only_fresh_connections(&mut peer);
    }
    if ctx.upgrade {
        only_fresh_connections(&mut peer);
        upgrade::prepare(&mut peer, Arc::clone(&server.live.connections));
    }
    Ok(peer)
}

fn admit(ctx: &mut RequestContext, server: ServerIndex) -> std::result::Result<(), NoAttempt> {
    // An attempt that is repeated at the same server has its place there.
    let admitted = ctx.attempts.in_flight.take();
    let Some(pool) = ctx.pool_runtime() else { return Err(NoAttempt::Refused(NO_SERVER)) };
    // Neither an attempt that was repeated at the same server counts, nor one at a server that came back.
    let failed = ctx.session.history.failed.len();
    if failed > pool.pool.retries.attempts as usize {
        pool.metrics.retries.inc(Retry::AttemptsExhausted as usize);
        return Err(NoAttempt::Refused(EXHAUSTED));
    }
    let Some(target) = pool.pool.servers.get(server) else { return Err(NoAttempt::Refused(NO_SERVER)) };
    if !target.has_address() {
        return Err(NoAttempt::Refused(NO_SERVER));
    }
    let in_flight = match target.admit(admitted) {
        Ok(in_flight) => in_flight,
        Err(NotAdmitted::Ejected) => return Err(NoAttempt::Wait(NextStep::Select)),
        Err(NotAdmitted::Full) => {
            // A session waits for its own server, and so does a client that has authenticated a connection to one.
            let own = ctx.session.has_key() || ctx.dedicated.is_some();
            return Err(NoAttempt::Wait(NextStep::Queue(own.then_some(server))));
        }
    };
    if ctx.attempts.count > 0 {
        pool.metrics.retries.inc(Retry::Sent as usize);
        target.live.metrics.retries.inc();
    }
    let ends = target.live.connections.ends();
    let must_speak_h2 = target.must_speak_h2 && !ctx.upgrade;
    ctx.attempts.in_flight = Some(in_flight);
    ctx.attempts.ends = ends;
    ctx.attempts.server = Some(server);
    ctx.attempts.count += 1;
    ctx.attempts.unshare = false;
    ctx.attempts.must_speak_h2 = must_speak_h2;
    // The body is sent again from its first byte.
    ctx.body_bytes = 0;
    ctx.attempts.started = Some(start_of_attempt(ctx));
    Ok(())
}

/// The hook for a connection to the server of an attempt. `http1`: its protocol; `reused`: it has carried other requests.
pub(crate) fn connected(http1: bool, reused: bool, socket: RawFd, ctx: &mut RequestContext) {
    ctx.attempts.socket = Some(socket);
    let Some(server) = ctx.server() else { return };
    // A connection of HTTP/2 carries other requests, and does not show whether its server takes this one.
    if let Some(progress) = &ctx.body_progress
        && http1
    {
        progress.send_to(socket, &server.live.connections);
    }
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
    match timeout(TEST_TIMEOUT, server.test(TEST_TIMEOUT)).await {
        Ok(Ok(())) => Waited::CameBack,
        Ok(Err(error)) if exhausted_in(&error).is_some() => Waited::InVain,
        _ => Waited::TimedOut,
    }
}
