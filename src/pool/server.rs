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
use super::descriptors;

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
    /// Resolved address of a host name. Written by the resolver.
    resolved: ArcSwapOption<SocketAddr>,
    /// The pool's generation, raised with every change, so that the balancer updates its selection.
    generation: Arc<AtomicU64>,
    /// The last request could not connect. For the log only.
    connect_failing: AtomicBool,
    /// Its counters.
    pub metrics: ServerMetrics,
}

impl LiveState {
    /// The state of a new server.
    pub fn new(generation: Arc<AtomicU64>, metrics: ServerMetrics) -> Self {
        Self {
            health: AtomicU8::new(Health::Unknown as u8),
            in_flight: AtomicUsize::new(0),
            resolved: ArcSwapOption::empty(),
            generation,
            connect_failing: AtomicBool::new(false),
            metrics,
        }
    }

    /// Notes that a request could not connect; true if the one before could.
    pub fn connect_failed(&self) -> bool {
        !self.connect_failing.swap(true, Ordering::Relaxed)
    }

    /// Notes that a request was answered; true if the one before could not connect.
    pub fn connected(&self) -> bool {
        self.connect_failing.load(Ordering::Relaxed) && self.connect_failing.swap(false, Ordering::Relaxed)
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

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
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
            live,
            template: template(pool, &config.address),
            checked,
        }
    }

    /// Which requests it accepts now.
    pub fn condition(&self) -> Condition {
        let health = if self.checked { self.live.health() } else { Health::Up };
        Condition::of(self.state, health, self.has_address())
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

/// Detects a server that vanished without closing its connections (power, network) during a request that lasts for hours.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 6,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::from_secs(0),
};

/// The parts of a peer that are the same for all requests.
fn template(pool: &config::Pool, address: &config::ServerAddress) -> HttpPeer {
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
    if !matches!(address, config::ServerAddress::Unix(_)) {
        options.tcp_keepalive = Some(KEEPALIVE);
    }
    if connection.protocol == config::UpstreamProtocol::H2 {
        options.set_http_version(2, 2);
        // As many as h2 servers commonly allow; one stream a connection would make h2 pointless.
        options.max_h2_streams = 100;
    }
    descriptors::limit_peer(&mut peer);
    peer
}
