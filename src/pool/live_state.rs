//! The live state of a server: health, requests in flight, resolved address, open connections. It belongs to the server's name
//! and outlives a reload.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

use crate::config::ServerState;
use crate::telemetry::metrics::ServerMetrics;

use super::breaker::{LiveBreaker, Ticket};
use super::condition::Health;
use super::connections::Connections;
use super::drain::LiveDrain;
use super::operator::{OperatorSettings, Override};
use super::queue::{Lane, Queue};
use super::ramp::Ramp;
use super::server_connection::IdleConnections;

/// The live state of a server, carried over reloads by pool and server name.
pub struct LiveState {
    /// [`Health`] as a number. Written by the server's health check, read by every request that selects a server.
    health: AtomicU8,
    /// Which part of its weight it has for new sessions.
    pub ramp: Ramp,
    /// Requests in flight. Written by [`InFlight`].
    in_flight: AtomicUsize,
    /// How many there may be; `usize::MAX` = no limit. Of the configuration in effect, also for requests of an earlier one.
    limit: AtomicUsize,
    /// The queue of its pool.
    queue: Arc<Queue<InFlight>>,
    /// Its part of the queue.
    pub lane: Arc<Lane>,
    /// The configuration in effect has it in `maint`. Read by requests of an earlier configuration that have waited.
    withdrawn: AtomicBool,
    /// Streams that are open. Written by [`OpenStream`].
    streams: AtomicUsize,
    /// Resolved address of a host name. Written by the resolver.
    resolved: ArcSwapOption<SocketAddr>,
    /// Its circuit breaker.
    pub breaker: LiveBreaker,
    /// What an operator set over the file's values.
    operator: OperatorSettings,
    /// Since when it drains.
    pub drain: LiveDrain,
    /// The pool's generation, raised with every change, so that the balancer updates its selection.
    generation: Arc<AtomicU64>,
    /// The last connection for a request was not accepted. For the log and the metric only: selections do not read it.
    connect_failing: AtomicBool,
    /// What is open to it, in use or not.
    pub connections: Arc<Connections>,
    /// Those of them that the fast path keeps for the next request.
    pub idle: IdleConnections,
    /// What is open to it is being ended: also for requests of an earlier configuration, where it is a server as any other.
    /// Relaxed: read after one of its connections broke.
    ended: AtomicBool,
    /// Its counters.
    pub metrics: Arc<ServerMetrics>,
}

impl LiveState {
    /// The state of a new server. `slow`: its share of new sessions rises slowly.
    pub fn new(
        generation: Arc<AtomicU64>,
        queue: Arc<Queue<InFlight>>,
        slow: bool,
        metrics: Arc<ServerMetrics>,
    ) -> Self {
        Self {
            health: AtomicU8::new(Health::Unknown as u8),
            ramp: Ramp::new(Arc::clone(&generation), slow),
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            queue,
            lane: Arc::default(),
            withdrawn: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            resolved: ArcSwapOption::empty(),
            breaker: LiveBreaker::new(Arc::clone(&generation)),
            operator: OperatorSettings::default(),
            drain: LiveDrain::default(),
            generation,
            connect_failing: AtomicBool::new(false),
            connections: Arc::default(),
            idle: IdleConnections::default(),
            ended: AtomicBool::new(false),
            metrics,
        }
    }

    /// Notes that a request could not connect; true if the one before could.
    pub fn connect_failed(&self) -> bool {
        !self.connect_failing.swap(true, Ordering::Relaxed)
    }

    /// Notes that it responded, to a request or a check; true if the last connection was not accepted.
    pub fn connected(&self) -> bool {
        self.connect_failing.load(Ordering::Relaxed) && self.connect_failing.swap(false, Ordering::Relaxed)
    }

    /// The last connection for a request was not accepted.
    pub fn is_connect_failing(&self) -> bool {
        self.connect_failing.load(Ordering::Relaxed)
    }

    /// Whether what is open to it is being ended.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Sets whether what is open to it is being ended.
    pub fn set_ended(&self, ended: bool) {
        self.ended.store(ended, Ordering::Relaxed);
    }

    /// The result of its health checks.
    pub fn health(&self) -> Health {
        Health::from_u8(self.health.load(Ordering::Acquire))
    }

    /// Sets the result of its health checks.
    pub fn set_health(&self, health: Health) {
        if self.health.swap(health as u8, Ordering::AcqRel) != health as u8 {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The resolved address of its host name.
    pub fn resolved(&self) -> Option<SocketAddr> {
        self.resolved.load().as_deref().copied()
    }

    /// Sets the resolved address.
    pub fn set_resolved(&self, address: Option<SocketAddr>) {
        if self.resolved() != address {
            self.resolved.store(address.map(Arc::new));
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The state that an operator set over the file's.
    pub fn operator_state(&self) -> Option<ServerState> {
        self.operator.state()
    }

    /// The weight that an operator set over the file's.
    pub fn operator_weight(&self) -> Option<u16> {
        self.operator.weight()
    }

    /// What an operator set over the file's values.
    pub fn operator_override(&self) -> Option<Arc<Override>> {
        self.operator.details()
    }

    /// Sets what is set over the file's values.
    pub fn set_override(&self, details: Option<Override>) {
        self.operator.set(details);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that wait for it.
    pub fn queued(&self) -> usize {
        self.lane.queued()
    }

    /// Sets how many requests it may have in flight; `None` = no limit.
    pub fn set_limit(&self, limit: Option<u32>) {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// It has as many requests in flight as it may have, or others wait already.
    pub fn is_full(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit != usize::MAX && (self.in_flight() >= limit || self.queued() > 0 || self.queue.has_any())
    }

    /// Gives its free slots to the requests that have waited longest.
    pub fn dispatch(self: &Arc<Self>) {
        self.queue.dispatch(&self.lane, || InFlight::try_begin(self));
    }

    /// Whether the configuration in effect has it in `maint`.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Sets whether the configuration in effect has it in `maint`.
    pub fn set_withdrawn(&self, withdrawn: bool) {
        self.withdrawn.store(withdrawn, Ordering::Relaxed);
    }
}

/// Counts one open stream, an upgraded connection or an event stream, until it is dropped.
pub struct OpenStream(Arc<LiveState>);

impl OpenStream {
    /// It has begun.
    pub fn begin(live: &Arc<LiveState>) -> Self {
        live.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request in flight, until it is dropped.
pub struct InFlight {
    live: Arc<LiveState>,
    /// What the request is to the circuit breaker; `None`: its result is known, or there is no breaker.
    ticket: Option<Ticket>,
}

impl InFlight {
    /// Begins a request; `None`: the server has as many as it may have.
    pub fn try_begin(live: &Arc<LiveState>) -> Option<Self> {
        let limit = live.limit.load(Ordering::Relaxed);
        if limit == usize::MAX {
            live.in_flight.fetch_add(1, Ordering::Relaxed);
        } else {
            let more = |count| if count < limit { Some(count + 1) } else { None };
            live.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        }
        Some(Self { live: Arc::clone(live), ticket: None })
    }

    /// Whether it is a request of this server.
    pub fn is_of(&self, live: &Arc<LiveState>) -> bool {
        Arc::ptr_eq(&self.live, live)
    }

    /// What the request is to the circuit breaker is known; false: the breaker lets no request pass now.
    pub(super) fn pass_breaker(&mut self) -> bool {
        if self.ticket.is_none() {
            self.ticket = self.live.breaker.begin();
        }
        self.ticket.is_some()
    }

    /// The request tests whether the server serves again.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_probe)
    }

    /// The result of the request is known: returns what it is a result of. A request that is no probe may have several.
    pub(super) fn resolve(&mut self) -> Option<Ticket> {
        if self.is_probe() { self.ticket.take() } else { self.ticket }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.live.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.live.limit.load(Ordering::Relaxed) != usize::MAX {
            self.live.dispatch();
        }
        if let Some(probe) = self.ticket.filter(|ticket| ticket.is_probe()) {
            self.live.breaker.change(|breaker| breaker.abandon(probe));
        }
    }
}
