//! One application server: what the configuration says of it, and what it has lived through.

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

/// A server as one version of the configuration has it.
pub struct Server {
    /// The identity that tokens, metrics and logs speak in.
    pub name: Arc<str>,
    /// Stable hash of the name, as tokens carry it.
    pub id: ServerId,
    /// Share of new sessions.
    pub weight: u16,
    /// Takes new sessions only while no other server can.
    pub backup: bool,
    /// What the operator wants.
    pub state: config::ServerState,
    /// Where it listens, as written.
    pub address: config::ServerAddress,
    /// What it has lived through; outlives this version.
    pub live: Arc<Live>,
    template: HttpPeer,
    checked: bool,
}

/// What a server has lived through. Carried over reloads by pool and server name.
pub struct Live {
    /// [`Health`] as a number. Written by the server's health task, read by every request that chooses.
    health: AtomicU8,
    /// Requests that it works on. Written by [`InFlight`].
    in_flight: AtomicUsize,
    /// Address of a server that is named by host name. Written by the resolver.
    resolved: ArcSwapOption<SocketAddr>,
    /// The pool's generation, raised with every change, so that the balancer knows when to look again.
    generation: Arc<AtomicU64>,
    /// It takes no connections, as far as requests have seen. Tells the operator once, decides nothing.
    connect_failing: AtomicBool,
    /// Its counters.
    pub metrics: ServerMetrics,
}

impl Live {
    /// A server that nothing is known of.
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

    /// A request could not connect; true when that is news.
    pub fn connect_failed(&self) -> bool {
        !self.connect_failing.swap(true, Ordering::Relaxed)
    }

    /// A request was answered; true when that is news.
    pub fn connected(&self) -> bool {
        self.connect_failing.load(Ordering::Relaxed) && self.connect_failing.swap(false, Ordering::Relaxed)
    }

    /// The last verdict.
    pub fn health(&self) -> Health {
        Health::from_u8(self.health.load(Ordering::Acquire))
    }

    /// A new verdict.
    pub fn set_health(&self, health: Health) {
        if self.health.swap(health as u8, Ordering::AcqRel) != health as u8 {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The address that its host name stands for now.
    pub fn resolved(&self) -> Option<SocketAddr> {
        self.resolved.load().as_deref().copied()
    }

    /// A new address, or none.
    pub fn set_resolved(&self, address: Option<SocketAddr>) {
        if self.resolved() != address {
            self.resolved.store(address.map(Arc::new));
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Requests that it works on.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// Counts one request in flight for as long as it lives, on every way out.
pub struct InFlight(Arc<Live>);

impl InFlight {
    /// Begins a request.
    pub fn begin(live: &Arc<Live>) -> Self {
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
    /// Builds a server of this version around its live state.
    pub fn build(pool: &config::Pool, config: &config::Server, live: Arc<Live>) -> Self {
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

    /// Whom it takes now.
    pub fn condition(&self) -> Condition {
        let health = if self.checked { self.live.health() } else { Health::Up };
        Condition::of(self.state, health, self.has_address())
    }

    /// It takes a share of new sessions now.
    pub fn takes_new(&self) -> bool {
        self.weight > 0 && self.condition().takes_new()
    }

    /// A health check watches it.
    pub fn is_checked(&self) -> bool {
        self.checked
    }

    fn has_address(&self) -> bool {
        !matches!(self.address, config::ServerAddress::Name { .. }) || self.live.resolved.load().is_some()
    }

    /// Pingora's description of how to reach it; `None` while its name has no address.
    pub fn peer(&self) -> Option<Box<HttpPeer>> {
        let mut peer = Box::new(self.template.clone());
        if let config::ServerAddress::Name { .. } = self.address {
            peer._address = PeerAddr::Inet(self.live.resolved()?);
        }
        Some(peer)
    }

    /// Its address now, for probes.
    pub fn peer_address(&self) -> Option<PeerAddr> {
        match self.address {
            config::ServerAddress::Name { .. } => self.live.resolved().map(PeerAddr::Inet),
            _ => Some(self.template._address.clone()),
        }
    }
}

/// Notices a server that vanished without a word (power, network) under a request that waits for hours.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 6,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::from_secs(0),
};

/// Everything about reaching a server that does not change from request to request.
fn template(pool: &config::Pool, address: &config::ServerAddress) -> HttpPeer {
    // A name's address comes with the resolver; until then this place is never connected to.
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
    peer
}
