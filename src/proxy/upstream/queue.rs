//! A request waits for a server that has as many in flight as it may have.

use std::sync::Arc;

use pingora_proxy::Session as Exchange;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::persistence::PoolRuntime;
use crate::pool::ServerIndex;
use crate::pool::limits::retry_after;
use crate::pool::live_state::InFlight;
use crate::pool::queue::{QueueFull, QueuedRequest, Suits, WaitEnd};
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::context::{Refusal, RequestContext};

/// No server had room in time.
const QUEUE_TIMEOUT: Refusal = Refusal::new(503, "queue_timeout");
/// Too many requests wait already.
const QUEUE_FULL: Refusal = Refusal::new(503, "queue_full");

/// How long a request waits in all, however often it has to.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
}

/// Why a request waits no longer, without a place.
pub(super) enum GaveUp {
    /// It took too long, or too many wait.
    Refused(Refusal),
    /// The client has gone.
    ClientLeft,
}

/// Waits for a place at this server, or at any that takes new sessions. `None`: the server takes no requests any more, and
/// another selection is due.
pub(super) async fn wait(
    exchange: &mut Exchange,
    ctx: &mut RequestContext,
    server: Option<ServerIndex>,
    patience: &mut Patience,
) -> Result<Option<(ServerIndex, InFlight)>, GaveUp> {
    ctx.session.history.queued = true;
    let runtime = Arc::clone(&ctx.runtime);
    let Some(pool) = ctx.session.pool.and_then(|pool| runtime.pools.get(pool)) else { return Ok(None) };
    let timeout = pool.pool.limits.queue_timeout;
    let since = *patience.since.get_or_insert_with(Instant::now);
    let give_up = |refusal: Refusal, waiting: usize, turns: u64| {
        let seconds = retry_after(waiting, turns, since.elapsed(), timeout);
        GaveUp::Refused(refusal.after(seconds))
    };
    if since.elapsed() >= timeout {
        return Err(give_up(QUEUE_TIMEOUT, 0, 0));
    }
    let mut waiting = enqueue(pool, ctx, server).map_err(|QueueFull| give_up(QUEUE_FULL, 0, 0))?;
    let turn = tokio::select! {
        biased;
        turn = waiting.turn() => turn,
        () = client_left(exchange) => return Err(GaveUp::ClientLeft),
        () = sleep_until(since + timeout) => {
            let (others, turns) = waiting.progress();
            return Err(give_up(QUEUE_TIMEOUT, others, turns));
        }
    };
    let WaitEnd::Slot(slot) = turn else { return Ok(None) };
    let at = server.or_else(|| pool.pool.servers.iter().position(|one| slot.is_of(&one.live)));
    Ok(at.map(|at| (at, slot)))
}

fn enqueue(
    pool: &PoolRuntime,
    ctx: &RequestContext,
    server: Option<ServerIndex>,
) -> Result<QueuedRequest<InFlight>, QueueFull> {
    if let Some(server) = server {
        return pool.pool.wait_for(server).unwrap_or(Err(QueueFull));
    }
    let (runtime, pool_index, tried) = (Arc::clone(&ctx.runtime), ctx.session.pool, ctx.session.history.servers());
    let suits: Suits = Box::new(move |lane| {
        let pool = pool_index.and_then(|index| runtime.pools.get(index));
        pool.is_some_and(|pool| pool.pool.suitable(lane, &tried).is_some())
    });
    pool.pool.wait_for_any(suits)
}

/// How often the connection of a waiting client is looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);
/// States of a connection, from Linux's `tcp_states.h`: the client has reset it, or has closed its side.
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

/// Returns when the client has gone: its connection was reset, or closed where that cancels a request (`on_client_half_close`).
async fn client_left(exchange: &mut Exchange) {
    if let Some(closed) = exchange.as_mut().watch_h2_stream_close() {
        // Reset, or ended with its connection.
        let _ = closed.await;
        return;
    }
    let cancels = DeadlineStream::of(exchange).is_none_or(DeadlineStream::cancels_at_half_close);
    while !has_left(tcp_state(exchange), cancels) {
        sleep(CHECK_INTERVAL).await;
    }
}

fn has_left(state: Option<u8>, cancels_at_half_close: bool) -> bool {
    match state {
        Some(TCP_CLOSE) => true,
        Some(TCP_CLOSE_WAIT) => cancels_at_half_close,
        _ => false,
    }
}

fn tcp_state(exchange: &Exchange) -> Option<u8> {
    let socket = exchange.digest()?.socket_digest.as_ref()?;
    Some(socket.tcp_info()?.tcpi_state)
}
