//! Active health checks: a task per server probes it and derives its health from the results.
//!
//! Pingora's loop is not used: it has one interval for all servers, no jitter, no `drain_status`, and starts every server as
//! healthy.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr};
use rand::Rng;
use tokio::net::{TcpStream, UnixStream};

use crate::config;
use crate::telemetry::events::{self, Change, EventKind, cause};
use crate::telemetry::metrics::{LocalResource, ProbeResult};

use super::condition::Health;
use super::exhaustion;
use super::http_probe::HttpProbe;
use super::live_state::LiveState;
use super::server::Server;
use super::tls::PoolTls;
use super::tls_failure::{refused_by_server, tls_failure};

/// Derives a server's health from probe results: `rise` successes in a row bring it up, `fall` failures take it down. The
/// first result counts at once, so that a start need not wait for `rise` rounds.
#[derive(Debug, Clone)]
pub struct HealthTracker {
    rise: u32,
    fall: u32,
    health: Health,
    /// Results in a row that differ from `health`.
    against: u32,
}

impl HealthTracker {
    /// Starts from a known health.
    pub fn new(check: &config::HealthCheck, health: Health) -> Self {
        Self { rise: check.rise, fall: check.fall, health, against: 0 }
    }

    /// Adds a result; returns the health if it changes.
    pub fn observe(&mut self, result: ProbeResult) -> Option<Health> {
        let observed = match result {
            ProbeResult::Success => Health::Up,
            ProbeResult::Drain => Health::Draining,
            ProbeResult::Failure => Health::Down,
            // Nothing was learned of the server.
            ProbeResult::LocalError => return None,
        };
        if observed == self.health {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let threshold = match (self.health, observed) {
            (Health::Unknown, _) => 1,
            (_, Health::Down) => self.fall,
            (Health::Down, _) => self.rise,
            // Between up and draining one result counts: the server itself asks for it.
            _ => 1,
        };
        if self.against < threshold {
            return None;
        }
        self.against = 0;
        self.health = observed;
        Some(observed)
    }
}

/// The health check of one server.
pub struct Checker {
    probe: Probe,
    expected: Vec<u16>,
    drain_status: Vec<u16>,
    timeout: Duration,
}

impl Checker {
    /// Builds the check of a pool for one server, in the pool's protocol and with its TLS; `host` is the value of Host.
    pub fn new(check: &config::HealthCheck, peer: HttpPeer, tls: Option<&Arc<PoolTls>>, host: &str) -> Self {
        let (probe, expected, drain_status) = match (&check.probe, tls) {
            (config::Probe::Tcp, None) => (Probe::Tcp, Vec::new(), Vec::new()),
            (config::Probe::Tcp, Some(tls)) => (Probe::Tls(Box::new(peer), Arc::clone(tls)), Vec::new(), Vec::new()),
            (config::Probe::Http { path, expect_status, drain_status }, _) => {
                let probe = Probe::Http(Box::new(HttpProbe::new(peer, host, path)));
                (probe, expect_status.clone(), drain_status.clone())
            }
        };
        Self { probe, expected, drain_status, timeout: check.timeout }
    }

    /// Probes once.
    async fn check(&self, address: PeerAddr) -> Check {
        match tokio::time::timeout(self.timeout, self.probe(address)).await {
            Ok(Ok(None)) => Check::Success,
            Ok(Ok(Some(status))) if self.expected.contains(&status) => Check::Success,
            Ok(Ok(Some(status))) if self.drain_status.contains(&status) => Check::Drain,
            Ok(Ok(Some(status))) => Check::Failure(format!("status {status}")),
            Ok(Err(error)) => match exhaustion::exhausted_in(&error) {
                Some(resource) => Check::Exhausted(resource),
                None => Check::Failure(short(&error)),
            },
            Err(_) => Check::Failure(format!("no answer within {:?}", self.timeout)),
        }
    }

    /// The status of the response, if one was asked for.
    async fn probe(&self, address: PeerAddr) -> pingora::Result<Option<u16>> {
        match &self.probe {
            Probe::Http(probe) => probe.status(address).await.map(Some),
            Probe::Tcp => connect(&address).await.map(|()| None).or_err(ErrorType::ConnectError, "health check"),
            Probe::Tls(peer, tls) => {
                let mut peer = peer.clone();
                peer._address = address;
                tls.test(&peer).await.map(|()| None)
            }
        }
    }
}

/// What a check does.
enum Probe {
    /// A request.
    Http(Box<HttpProbe>),
    /// A connection.
    Tcp,
    /// A connection with its handshake.
    Tls(Box<HttpPeer>, Arc<PoolTls>),
}

/// What a probe found.
enum Check {
    Success,
    Drain,
    /// With the reason.
    Failure(String),
    /// The proxy could not probe.
    Exhausted(LocalResource),
}

impl Check {
    fn result(&self) -> ProbeResult {
        match self {
            Self::Success => ProbeResult::Success,
            Self::Drain => ProbeResult::Drain,
            Self::Failure(_) => ProbeResult::Failure,
            Self::Exhausted(_) => ProbeResult::LocalError,
        }
    }
}

/// Connects and closes the connection.
///
/// Not Pingora's TCP probe: it needs the system's certificates, although it speaks no TLS.
async fn connect(address: &PeerAddr) -> std::io::Result<()> {
    match address {
        PeerAddr::Inet(address) => TcpStream::connect(address).await.map(drop),
        PeerAddr::Unix(address) => match address.as_pathname() {
            Some(path) => UnixStream::connect(path).await.map(drop),
            None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        },
    }
}

/// Pingora's errors carry addresses and call chains; an operator needs the kind, and what is wrong with a certificate.
fn short(error: &Error) -> String {
    match tls_failure(error).or_else(|| refused_by_server(error)) {
        Some(failure) => format!("{}: {}", failure.kind.label(), failure.reason),
        None => error.etype().as_str().to_owned(),
    }
}

/// The Host of a check: the server's address, as curl would send it.
pub fn host_of(address: &config::ServerAddress) -> String {
    match address {
        config::ServerAddress::Ip(address) => address.to_string(),
        config::ServerAddress::Name { host, port } => format!("{host}:{port}"),
        config::ServerAddress::Unix(_) => "localhost".to_owned(),
    }
}

/// Checks one server periodically.
pub struct HealthTask {
    /// Pool and server, for the log.
    pub pool: Arc<str>,
    /// Its name.
    pub server: Arc<str>,
    /// Holds the server's health.
    pub live: Arc<LiveState>,
    /// The check.
    pub checker: Checker,
    /// Its configuration.
    pub config: config::HealthCheck,
    /// The pool's protocol.
    pub protocol: config::UpstreamProtocol,
}

impl HealthTask {
    /// Checks once and updates the server's health. `address` is the server's current address.
    pub async fn round(&self, tracker: &mut HealthTracker, address: Option<PeerAddr>) {
        let check = match address {
            // Boxed, since a task waits most of the time, and a check needs 11 KiB.
            Some(address) => Box::pin(self.checker.check(address)).await,
            None => Check::Failure("its host name has no address".to_owned()),
        };
        self.live.metrics.checks.inc(check.result());
        if let Check::Exhausted(resource) = check {
            self.live.metrics.exhausted_checks.inc(resource);
            let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            exhaustion::warn(resource, "a health check could not be carried out; the server keeps its health", second);
        }
        if matches!(check, Check::Success | Check::Drain) {
            self.live.connected();
        }
        let Some(health) = tracker.observe(check.result()) else { return };
        let why = if let Check::Failure(why) = &check { Some(why.as_str()) } else { None };
        let before = self.live.health();
        self.live.set_health(health);
        let (pool, server) = (&self.pool, &self.server);
        let change = Change::new(EventKind::Health).pool(pool).server(server).who(cause::HEALTH);
        let change = change.values(before.label(), health.label());
        events::record(if let Some(why) = why { change.reason(why) } else { change });
        match health {
            Health::Down => tracing::warn!(%pool, %server, reason = why, "server is down"),
            Health::Draining => tracing::info!(%pool, %server, "server is up and declines new sessions"),
            _ if before == Health::Unknown => tracing::info!(%pool, %server, "server is up"),
            _ => tracing::info!(%pool, %server, "server is up again"),
        }
    }

    /// Checks at the interval with ± 10 % jitter, until the task is aborted.
    pub async fn run(self, address: impl Fn() -> Option<PeerAddr>) {
        let mut tracker = HealthTracker::new(&self.config, self.live.health());
        // Spread the first checks of many servers over an interval; each was checked once before the first request.
        let mut pause = self.config.interval.mul_f64(rand::thread_rng().gen_range(0.0..1.0));
        loop {
            tokio::time::sleep(pause).await;
            self.round(&mut tracker, address()).await;
            pause = self.config.interval.mul_f64(rand::thread_rng().gen_range(0.9..1.1));
        }
    }
}

/// The task of one server; `None` without health checks.
pub fn task(pool: &config::Pool, name: &Arc<str>, server: &Server) -> Option<HealthTask> {
    let config = pool.health_check.clone()?;
    Some(HealthTask {
        pool: Arc::clone(name),
        server: Arc::clone(&server.name),
        live: Arc::clone(&server.live),
        checker: Checker::new(&config, server.test_peer(pool, config.timeout), server.tls(), &host_of(&server.address)),
        protocol: pool.connection.protocol,
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(health: Health) -> HealthTracker {
        let check = config::HealthCheck {
            probe: config::Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        HealthTracker::new(&check, health)
    }

    #[test]
    fn a_server_falls_after_three_and_rises_after_two() {
        use ProbeResult::{Failure, Success};
        let mut tracker = tracker(Health::Unknown);
        let walk = [
            (Success, Some(Health::Up)),
            (Failure, None),
            (Failure, None),
            (Success, None),
            (Failure, None),
            (Failure, None),
            (Failure, Some(Health::Down)),
            (Failure, None),
            (Success, None),
            (Failure, None),
            (Success, None),
            (Success, Some(Health::Up)),
        ];
        for (step, (result, expected)) in walk.into_iter().enumerate() {
            assert_eq!(tracker.observe(result), expected, "step {step}");
        }
    }

    #[test]
    fn a_check_that_could_not_be_carried_out_says_nothing() {
        use ProbeResult::{Failure, LocalError};
        let mut known = tracker(Health::Up);
        for _ in 0..10 {
            assert_eq!(known.observe(LocalError), None);
        }
        let walk = [Failure, LocalError, Failure, LocalError, Failure].map(|result| known.observe(result));
        assert_eq!(
            walk,
            [None, None, None, None, Some(Health::Down)],
            "only failures are counted, and none is forgotten"
        );
        assert_eq!(tracker(Health::Unknown).observe(LocalError), None, "still not checked");
    }

    #[test]
    fn the_first_result_counts_at_once() {
        assert_eq!(tracker(Health::Unknown).observe(ProbeResult::Failure), Some(Health::Down));
        assert_eq!(tracker(Health::Unknown).observe(ProbeResult::Drain), Some(Health::Draining));
    }

    #[test]
    fn a_server_that_declines_new_sessions_drains_at_once() {
        let mut tracker = tracker(Health::Up);
        assert_eq!(tracker.observe(ProbeResult::Drain), Some(Health::Draining));
        assert_eq!(tracker.observe(ProbeResult::Success), Some(Health::Up));
        assert_eq!(tracker.observe(ProbeResult::Failure), None, "one failure is not three");
    }
}
