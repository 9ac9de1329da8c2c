//! The live state of a server: health, requests in flight, resolved address, open connections. It belongs to the server's name
//! and outlives a reload.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

use crate::config::ServerState;
use crate::telemetry::metrics::ServerMetrics;

use super::condition::Health;
use super::connections::Connections;
use super::drain::LiveDrain;
use super::operator::{OperatorSettings, Override};

/// The live state of a server, carried over reloads by pool and server name.
pub struct LiveState {
    /// [`Health`] as a number. Written by the server's health check, read by every request that selects a server.
    health: AtomicU8,
    /// Requests in flight. Written by [`InFlight`].
    in_flight: AtomicUsize,
    /// Upgraded connections that are open. Written by [`OpenStream`].
    streams: AtomicUsize,
    /// Resolved address of a host name. Written by the resolver.
    resolved: ArcSwapOption<SocketAddr>,
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
    /// What is open to it is being ended: also for requests of an earlier configuration, where it is a server as any other.
    /// Relaxed: read after one of its connections broke.
    ended: AtomicBool,
    /// Its counters.
    pub metrics: ServerMetrics,
}

impl LiveState {
    /// The state of a new server.
    pub fn new(generation: Arc<AtomicU64>, metrics: ServerMetrics) -> Self {
        Self {
            health: AtomicU8::new(Health::Unknown as u8),
            in_flight: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            resolved: ArcSwapOption::empty(),
            operator: OperatorSettings::default(),
            drain: LiveDrain::default(),
            generation,
            connect_failing: AtomicBool::new(false),
            connections: Arc::default(),
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

    /// Upgraded connections that are open.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// Counts one open upgraded connection, until it is dropped.
pub struct OpenStream(Arc<LiveState>);

impl OpenStream {
    /// The connection was upgraded.
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
pub struct InFlight(Arc<LiveState>);

impl InFlight {
    /// Begins a request.
    pub fn begin(live: &Arc<LiveState>) -> Self {
        live.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
