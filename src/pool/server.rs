//! One application server: its configuration and its live state.

use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;

use crate::config;
use crate::session::key::ServerId;
use crate::telemetry::metrics::ServerMetrics;

use super::condition::{Condition, Health};
use super::connections::{Connections, ServerConnector};

/// Index of a server within its pool, in one configuration. Never leaves the process, never outlives a reload.
pub type ServerIndex = usize;

/// A server of one configuration.
pub struct Server {
    /// Its identity in tokens, metrics and logs.
    pub name: Arc<str>,
    /// Stable hash of the name, for tokens.
    pub id: ServerId,
    /// Share of new sessions.
    pub weight: u16,
    /// Accepts new sessions only while no other server does.
    pub backup: bool,
    /// Set by the operator.
    pub state: config::ServerState,
    /// Its address, as configured.
    pub address: config::ServerAddress,
    /// Its live state, carried over reloads.
    pub live: Arc<LiveState>,
    template: HttpPeer,
    checked: bool,
}

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

impl Server {
    /// Builds a server around its live state.
    pub fn build(pool: &config::Pool, config: &config::Server, live: Arc<LiveState>) -> Self {
        let checked = pool.health_check.is_some();
        Self {
            name: Arc::from(config.name.as_str()),
            id: ServerId::of(&config.name),
            weight: config.weight,
            backup: config.backup,
            state: config.state,
            address: config.address.clone(),
            template: template(pool, &config.address, &live),
            live,
            checked,
        }
    }

    /// Which requests it accepts now.
    pub fn condition(&self) -> Condition {
        let health = if self.checked { self.live.health() } else { Health::Up };
        Condition::of(self.state, health, self.has_address())
    }

    /// Serves the sessions that are bound to it, as far as is known: the last connection to it was accepted, too. Without
    /// health checks nothing else tells that it is dead.
    pub fn is_up(&self) -> bool {
        self.condition().accepts_bound() && !self.live.is_connect_failing()
    }

    /// Which requests it accepts, asked after a connection to it broke: it may have been removed meanwhile.
    pub fn condition_after_failure(&self) -> Condition {
        if self.live.is_ended() && self.condition().accepts_bound() { Condition::Maint } else { self.condition() }
    }

    /// Accepts a share of new sessions now.
    pub fn accepts_new(&self) -> bool {
        self.weight > 0 && self.condition().accepts_new()
    }

    /// Has a health check.
    pub fn is_checked(&self) -> bool {
        self.checked
    }

    fn has_address(&self) -> bool {
        !matches!(self.address, config::ServerAddress::Name { .. }) || self.live.resolved.load().is_some()
    }

    /// Pingora's peer for it; `None` while its host name has no address.
    pub fn peer(&self) -> Option<Box<HttpPeer>> {
        let mut peer = Box::new(self.template.clone());
        if let config::ServerAddress::Name { .. } = self.address {
            peer._address = PeerAddr::Inet(self.live.resolved()?);
        }
        Some(peer)
    }

    /// Its current address, for health checks.
    pub fn peer_address(&self) -> Option<PeerAddr> {
        match self.address {
            config::ServerAddress::Name { .. } => self.live.resolved().map(PeerAddr::Inet),
            _ => Some(self.template._address.clone()),
        }
    }
}

/// Detects a server or client that vanished without closing its connections (power, network) while nothing is sent: within
/// two minutes.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 6,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::from_secs(0),
};

/// The parts of a peer that are the same for all requests.
fn template(pool: &config::Pool, address: &config::ServerAddress, live: &LiveState) -> HttpPeer {
    // The resolver sets the address of a host name; until then no connection is made.
    let placeholder = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut peer = match address {
        config::ServerAddress::Ip(address) => HttpPeer::new(*address, false, String::new()),
        config::ServerAddress::Name { .. } => HttpPeer::new(placeholder, false, String::new()),
        config::ServerAddress::Unix(path) => {
            let mut peer = HttpPeer::new(placeholder, false, String::new());
            if let Ok(path) = UnixAddr::from_pathname(path) {
                peer._address = PeerAddr::Unix(path);
            }
            peer
        }
    };
    let connection = &pool.connection;
    let options = &mut peer.options;
    options.connection_timeout = Some(connection.connect_timeout);
    options.total_connection_timeout = Some(connection.connect_timeout);
    options.read_timeout = Some(connection.read_timeout);
    options.write_timeout = Some(connection.write_timeout);
    options.idle_timeout = Some(connection.idle_timeout);
    options.custom_l4 = Some(Arc::new(ServerConnector { connections: Arc::clone(&live.connections) }));
    if !matches!(address, config::ServerAddress::Unix(_)) {
        options.tcp_keepalive = Some(KEEPALIVE);
    }
    if connection.protocol == config::UpstreamProtocol::H2 {
        options.set_http_version(2, 2);
        // As many as h2 servers commonly allow; one stream a connection would make h2 pointless.
        options.max_h2_streams = 100;
    }
    peer
}
