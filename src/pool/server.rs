//! One application server of one configuration.

use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;

use crate::config::{self, ServerState};
use crate::session::key::ServerId;
use crate::session::token::UnixMillis;

use super::condition::{Condition, Health};
use super::connections::ServerConnector;
use super::drain::DrainSchedule;
use super::live_state::LiveState;

/// Index of a server within its pool, in one configuration. Never leaves the process, never outlives a reload.
pub type ServerIndex = usize;

/// A server of one configuration.
pub struct Server {
    /// Its identity in tokens, metrics and logs.
    pub name: Arc<str>,
    /// Stable hash of the name, for tokens.
    pub id: ServerId,
    /// Share of new sessions, as configured.
    pub file_weight: u16,
    /// Accepts new sessions only while no other server does.
    pub backup: bool,
    /// Its state, as configured.
    pub file_state: ServerState,
    /// Its address, as configured.
    pub address: config::ServerAddress,
    /// Its live state, carried over reloads.
    pub live: Arc<LiveState>,
    /// The file no longer has it, and it drains.
    pub removed: bool,
    /// After it, sessions leave when it drains.
    pub drain_deadline: Option<Duration>,
    template: HttpPeer,
    checked: bool,
}

impl Server {
    /// Builds a server around its live state.
    pub fn build(pool: &config::Pool, config: &config::Server, live: Arc<LiveState>) -> Self {
        let checked = pool.health_check.is_some();
        Self {
            name: Arc::from(config.name.as_str()),
            id: ServerId::of(&config.name),
            file_weight: config.weight,
            backup: config.backup,
            file_state: config.state,
            address: config.address.clone(),
            template: template(pool, &config.address, &live),
            live,
            removed: config.removed,
            drain_deadline: pool.drain_deadline,
            checked,
        }
    }

    /// Its administrative state: what an operator set, else the file's.
    pub fn state(&self) -> ServerState {
        match self.live.operator_state().unwrap_or(self.file_state) {
            ServerState::Ready if self.removed => ServerState::Drain,
            state => state,
        }
    }

    /// Since when it drains, and when sessions leave; asked of a server that accepts bound sessions only.
    pub fn drain_schedule(&self) -> Option<DrainSchedule> {
        Some(DrainSchedule::new(self.live.drain.started()?, self.drain_deadline?))
    }

    /// Notes whether it drains now, for the clock of `drain_deadline`.
    pub fn observe_drain(&self, now: UnixMillis) {
        let drains = self.state_in_force() == ServerState::Drain;
        let details = if drains { self.live.operator_override() } else { None };
        let set_at = details.filter(|details| details.state == Some(ServerState::Drain));
        self.live.drain.observe(drains, set_at.map(|details| details.state_at), now);
    }

    /// The state in force: also `drain` while its own checks ask for it (`drain_status`).
    pub fn state_in_force(&self) -> ServerState {
        match self.state() {
            ServerState::Ready if self.checked && self.live.health() == Health::Draining => ServerState::Drain,
            state => state,
        }
    }

    /// Its share of new sessions: what an operator set, else the file's.
    pub fn weight(&self) -> u16 {
        self.live.operator_weight().unwrap_or(self.file_weight)
    }

    /// Which requests it accepts now.
    pub fn condition(&self) -> Condition {
        let health = if self.checked { self.live.health() } else { Health::Up };
        Condition::of(self.state(), health, self.has_address())
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
        self.weight() > 0 && self.condition().accepts_new()
    }

    /// Has a health check.
    pub fn is_checked(&self) -> bool {
        self.checked
    }

    fn has_address(&self) -> bool {
        !matches!(self.address, config::ServerAddress::Name { .. }) || self.live.resolved().is_some()
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
