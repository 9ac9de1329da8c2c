//! One application server of one configuration.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use crate::config::{self, ServerState};
use crate::session::key::ServerId;
use crate::session::token::UnixMillis;

use super::breaker::BreakerState;
use super::condition::{Condition, Health};
use super::connections::{KEEPALIVE, ServerConnector, connect};
use super::drain::DrainSchedule;
use super::live_state::{InFlight, LiveState};
use super::tls::{self, PoolTls};

/// Index of a server within its pool, in one configuration. Never leaves the process, never outlives a reload.
pub type ServerIndex = usize;

/// Why a server does not take a request that was to be sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It has as many in flight as it may have.
    Full,
    /// Its circuit breaker is open now.
    Ejected,
}

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
    /// The file, or discovery, no longer has it, and it drains.
    pub removed: bool,
    /// Sessions that were last seen before belonged to another server at its address. The epoch for one that never left.
    pub since: UnixMillis,
    /// After it, sessions leave when it drains.
    pub drain_deadline: Option<Duration>,
    template: HttpPeer,
    /// `None` = no TLS.
    tls: Option<Arc<PoolTls>>,
    /// Only if it agrees to HTTP/2 it gets a request. Without TLS nothing is agreed on.
    pub must_speak_h2: bool,
    checked: bool,
    /// Its pool has a circuit breaker.
    breaks: bool,
    /// Its pool limits requests in flight.
    limited: bool,
}

impl Server {
    /// Builds a server around its live state.
    pub fn build(
        pool: &config::Pool,
        config: &config::Server,
        tls: Option<Arc<PoolTls>>,
        live: Arc<LiveState>,
    ) -> Self {
        let checked = pool.health_check.is_some();
        Self {
            name: Arc::from(config.name.as_str()),
            id: ServerId::of(&config.name),
            file_weight: config.weight,
            backup: config.backup,
            file_state: config.state,
            address: config.address.clone(),
            template: template(pool, &config.address, tls.as_deref(), &live),
            must_speak_h2: tls.is_some() && pool.connection.protocol == config::UpstreamProtocol::H2,
            tls,
            live,
            removed: config.removed,
            since: UnixMillis(config.since.unwrap_or_default()),
            drain_deadline: pool.drain_deadline,
            checked,
            breaks: pool.circuit_breaker.is_some(),
            limited: pool.limits.max_requests_per_server.is_some(),
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

    /// The same with slow start, in thousandths.
    pub fn weight_in_thousandths(&self) -> u32 {
        u32::from(self.weight()) * self.live.ramp.part()
    }

    /// Which requests it accepts now.
    pub fn condition(&self) -> Condition {
        let health = if self.checked { self.live.health() } else { Health::Up };
        let ejected = self.breaks && self.live.breaker.excludes();
        let full = self.limited && self.live.is_full();
        Condition::of(self.state(), health, ejected, full, self.has_address())
    }

    /// Serves the sessions that are bound to it, as far as is known: the last connection to it was accepted, too. Without
    /// health checks nothing else tells that it is dead.
    pub fn is_up(&self) -> bool {
        let serves = self.breaker().is_none_or(|state| state == BreakerState::Closed);
        serves && self.condition().accepts_bound() && !self.live.is_connect_failing()
    }

    /// Which requests it accepts, asked after a connection to it broke: it may have been removed meanwhile.
    pub fn condition_after_failure(&self) -> Condition {
        if self.live.is_ended() && self.condition().accepts_bound() { Condition::Maint } else { self.condition() }
    }

    /// Which requests it accepts, asked by a request that has waited for it: its configuration may have been replaced.
    pub fn condition_after_wait(&self) -> Condition {
        if self.live.is_withdrawn() { Condition::Maint } else { self.condition() }
    }

    /// The state of its circuit breaker; `None` without one.
    pub fn breaker(&self) -> Option<BreakerState> {
        self.breaks.then(|| self.live.breaker.state())
    }

    /// Begins a request at it, in a slot that the request may have already.
    pub fn admit(&self, slot: Option<InFlight>) -> Result<InFlight, NotAdmitted> {
        let slot = slot.filter(|slot| slot.is_of(&self.live));
        let mut in_flight = match slot {
            Some(slot) => slot,
            None if self.limited && self.live.is_full() => return Err(NotAdmitted::Full),
            None => InFlight::try_begin(&self.live).ok_or(NotAdmitted::Full)?,
        };
        if self.breaks && !in_flight.pass_breaker() {
            return Err(NotAdmitted::Ejected);
        }
        Ok(in_flight)
    }

    /// Accepts a new session now.
    pub fn accepts_new(&self) -> bool {
        self.weight() > 0 && self.condition().accepts_new()
    }

    /// Has a share of new sessions, though the next one may have to wait.
    pub fn takes_new(&self) -> bool {
        self.weight() > 0 && self.condition().takes_new()
    }

    /// Has a health check.
    pub fn is_checked(&self) -> bool {
        self.checked
    }

    /// Its address is known.
    pub fn has_address(&self) -> bool {
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

    /// Its pool's TLS.
    pub fn tls(&self) -> Option<&Arc<PoolTls>> {
        self.tls.as_ref()
    }

    /// Pingora's peer for its health checks, each of which takes at most this long.
    pub fn test_peer(&self, pool: &config::Pool, timeout: Duration) -> HttpPeer {
        tls::test_peer(&self.address, pool.connection.protocol, self.tls.as_deref(), timeout)
    }

    /// Whether it accepts a connection now, with TLS where its pool has that.
    ///
    /// # Errors
    /// Pingora's, by which the failed attempt is judged.
    pub async fn test(&self, timeout: Duration) -> Result<()> {
        let Some(mut peer) = self.peer() else { return Err(Error::new(ErrorType::ConnectNoRoute)) };
        let Some(tls) = &self.tls else { return connect(&peer._address).await.map(drop) };
        peer.options.total_connection_timeout = Some(timeout);
        // Not listed: no request is on it.
        peer.options.custom_l4 = None;
        tls.test(&peer).await
    }

    /// Its current address, for health checks.
    pub fn peer_address(&self) -> Option<PeerAddr> {
        match self.address {
            config::ServerAddress::Name { .. } => self.live.resolved().map(PeerAddr::Inet),
            _ => Some(self.template._address.clone()),
        }
    }
}

/// The parts of a peer that are the same for all requests.
fn template(pool: &config::Pool, address: &config::ServerAddress, tls: Option<&PoolTls>, live: &LiveState) -> HttpPeer {
    // The resolver sets the address of a host name; until then no connection is made.
    let mut peer = tls::peer(address, pool.connection.protocol, tls);
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
    if options.alpn.get_max_http_version() == 2 {
        // As many as h2 servers commonly allow; one stream a connection would make h2 pointless.
        options.max_h2_streams = 100;
    }
    peer
}
