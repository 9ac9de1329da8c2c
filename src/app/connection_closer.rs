//! Ends what is open to servers that no longer serve: WebSockets, streams and requests in flight.
//!
//! A server in `maint`, and one that is gone from the configuration, keeps what is open for `proxy.shutdown_grace`, as the
//! process itself does when it stops. To a server that its health checks find down it is ended at once, unless the pool keeps
//! it (`streams_on_down`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{ServerState, StreamsOnDown};
use crate::pool::condition::Health;
use crate::pool::drain::DrainSchedule;
use crate::pool::live_state::LiveState;
use crate::pool::server::Server;
use crate::proxy::context::wall_clock;
use crate::session::token::UnixMillis;

use super::runtime::Runtime;
use super::state::AppState;

/// The pause between two looks at the servers.
const PAUSE: Duration = Duration::from_millis(100);

/// How a server stands towards what is open to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It serves.
    Serving,
    /// It was taken away: the reason, for the log.
    Withdrawn(&'static str),
    /// It is found down, and what is open is ended.
    Down,
    /// It drains, and other servers can take its sessions: streams are ended after the deadline.
    Draining(DrainSchedule),
}

/// A server, in the configuration or not any more.
struct KnownServer {
    pool: Arc<str>,
    name: Arc<str>,
    live: Arc<LiveState>,
    standing: Standing,
    /// When it was taken away.
    since: Option<Instant>,
}

/// All servers that something may be open to.
#[derive(Default)]
struct ConnectionCloser {
    /// By the address of their live state, which they keep alive.
    servers: HashMap<usize, KnownServer>,
}

/// Runs for as long as the process does.
pub(super) async fn run(app: Arc<AppState>) {
    let mut closer = ConnectionCloser::default();
    loop {
        closer.step(&app.current.load_full(), Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
}

impl ConnectionCloser {
    fn step(&mut self, runtime: &Runtime, now: Instant) {
        self.update(runtime);
        for server in self.servers.values_mut() {
            server.step(runtime.config.proxy.shutdown_grace, now);
        }
        self.servers.retain(|_, server| !server.is_forgotten());
    }

    /// Takes over from the configuration which servers there are, and how they stand.
    fn update(&mut self, runtime: &Runtime) {
        for server in self.servers.values_mut() {
            server.standing = Standing::Withdrawn("removed");
        }
        // In the same order.
        for (config, pool) in runtime.config.pools.iter().zip(runtime.pools.iter()) {
            let keeps = config.streams_on_down == StreamsOnDown::Keep;
            for server in &pool.pool.servers {
                // Where sessions cannot go elsewhere, streams stay as well.
                let standing = standing(server, keeps, || pool.pool.servers.iter().any(Server::accepts_new));
                let known = self.servers.entry(Arc::as_ptr(&server.live).addr()).or_insert_with(|| KnownServer {
                    pool: Arc::clone(&pool.pool.name),
                    name: Arc::clone(&server.name),
                    live: Arc::clone(&server.live),
                    standing,
                    since: None,
                });
                known.standing = standing;
            }
        }
    }
}

fn standing(server: &Server, keeps_when_down: bool, has_others: impl Fn() -> bool) -> Standing {
    if server.state() == ServerState::Maint {
        Standing::Withdrawn("maint")
    } else if server.is_checked() && server.live.health() == Health::Down && !keeps_when_down {
        Standing::Down
    } else {
        let schedule = server.drain_schedule().filter(|_| has_others());
        schedule.map_or(Standing::Serving, Standing::Draining)
    }
}

/// An exchange that has lasted this long is a stream, not a request that is about to be answered.
const STREAM: Duration = Duration::from_secs(1);

/// Ends streams on a draining server that are due: those that were open at its deadline, each at its moment, and after the
/// last moment all. Returns how many.
fn end_drained(schedule: DrainSchedule, live: &LiveState, now: UnixMillis) -> usize {
    if now < schedule.deadline {
        return 0;
    }
    live.connections.end_due(|id, last_use| {
        let began = last_use.unwrap_or(UnixMillis(0));
        let lasts = now.since(began) >= STREAM;
        lasts && (schedule.is_over(now) || (began < schedule.deadline && schedule.is_stream_due(id, now)))
    })
}

impl KnownServer {
    fn step(&mut self, grace: Duration, now: Instant) {
        let reason = match self.standing {
            Standing::Serving => {
                self.since = None;
                None
            }
            Standing::Down => {
                self.since = None;
                Some("down")
            }
            Standing::Draining(schedule) => {
                self.since = None;
                self.log_ended("drain", end_drained(schedule, &self.live, wall_clock()));
                None
            }
            Standing::Withdrawn(reason) => {
                let since = *self.since.get_or_insert(now);
                (now.saturating_duration_since(since) >= grace).then_some(reason)
            }
        };
        self.live.set_ended(reason.is_some());
        let Some(reason) = reason else { return };
        self.log_ended(reason, self.live.connections.end_all());
    }

    fn log_ended(&self, reason: &str, connections: usize) {
        if connections > 0 {
            tracing::info!(pool = %self.pool, server = %self.name, reason, connections, "open connections to the server ended");
        }
    }

    /// It is gone, and nothing is open to it any more.
    fn is_forgotten(&self) -> bool {
        self.standing == Standing::Withdrawn("removed")
            && self.live.in_flight() == 0
            && self.live.connections.count() == 0
    }
}
