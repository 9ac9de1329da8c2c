//! Active checks: one task a server probes it with Pingora's health checks and turns results into verdicts.
//!
//! Pingora's own loop has one frequency for all, no jitter, no `drain_status` and starts every server as healthy; its
//! probes are used as they are, the loop is ours.

use std::sync::Arc;
use std::time::Duration;

use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector as HttpConnector;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::{Error, ErrorType, OrErr};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck};
use rand::Rng;
use tokio::net::{TcpStream, UnixStream};

use crate::config;

use super::condition::Health;
use super::server::{Live, Server};

/// What one check found. The order is that of `telemetry::metrics::CHECKS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Well.
    Well,
    /// Alive, and wants no new sessions.
    Drain,
    /// Not well.
    Failed,
}

/// From findings to verdicts: `rise` good ones in a row bring a server up, `fall` bad ones take it down. The first
/// finding is a verdict at once, so that a start need not wait for `rise` rounds.
#[derive(Debug, Clone)]
pub struct Verdicts {
    rise: u32,
    fall: u32,
    verdict: Health,
    against: u32,
}

impl Verdicts {
    /// Starts from what is known.
    pub fn new(check: &config::HealthCheck, known: Health) -> Self {
        Self { rise: check.rise, fall: check.fall, verdict: known, against: 0 }
    }

    /// Takes a finding in; a new verdict comes back when it changes.
    pub fn observe(&mut self, finding: Finding) -> Option<Health> {
        let says = match finding {
            Finding::Well => Health::Up,
            Finding::Drain => Health::Draining,
            Finding::Failed => Health::Down,
        };
        if says == self.verdict {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match (self.verdict, says) {
            (Health::Unknown, _) => 1,
            (_, Health::Down) => self.fall,
            (Health::Down, _) => self.rise,
            // Between up and draining the server's word counts at once: it asks to be spared.
            _ => 1,
        };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = says;
        Some(says)
    }
}

/// A prepared check of one server.
pub struct Checker {
    /// Pingora's HTTP probe; `None` = a connection is all that is asked for.
    http: Option<HttpHealthCheck>,
    drain_status: Vec<u16>,
    timeout: Duration,
}

/// Marks a status in the error that Pingora hands back.
const STATUS: &str = "status";

impl Checker {
    /// Prepares the check of a pool for one server, in the protocol that is spoken to it.
    pub fn new(check: &config::HealthCheck, protocol: config::UpstreamProtocol, host: &str) -> Self {
        let (http, drain_status) = match &check.probe {
            config::Probe::Tcp => (None, Vec::new()),
            config::Probe::Http { path, expect_status, drain_status } => {
                let mut probe = http_probe(check, host, path, expect_status);
                if protocol == config::UpstreamProtocol::H2 {
                    probe.peer_template.options.set_http_version(2, 2);
                    // HTTP/2 wants scheme and authority in the target; a checked path makes a target.
                    if let Ok(target) = format!("http://{host}{path}").parse() {
                        probe.req.set_uri(target);
                        probe.req.remove_header(&http::header::HOST);
                        probe.req.remove_header(&http::header::CONNECTION);
                    }
                }
                (Some(probe), drain_status.clone())
            }
        };
        Self { http, drain_status, timeout: check.timeout }
    }

    /// Asks once.
    pub async fn check(&self, address: PeerAddr) -> (Finding, Option<String>) {
        match tokio::time::timeout(self.timeout, self.ask(address)).await {
            Ok(Ok(())) => (Finding::Well, None),
            Ok(Err(error)) => match error.etype() {
                ErrorType::CustomCode(STATUS, code) if self.drain_status.contains(code) => (Finding::Drain, None),
                ErrorType::CustomCode(STATUS, code) => (Finding::Failed, Some(format!("status {code}"))),
                _ => (Finding::Failed, Some(short(&error))),
            },
            Err(_) => (Finding::Failed, Some(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn ask(&self, address: PeerAddr) -> pingora::Result<()> {
        match &self.http {
            Some(probe) => probe.check(&Backend { addr: address, weight: 1, ext: http::Extensions::new() }).await,
            None => connect(&address).await.or_err(ErrorType::ConnectError, "health check"),
        }
    }
}

/// Whether somebody takes connections there.
///
/// Not Pingora's TCP probe: it cannot be made without the system's certificates, though it speaks no TLS.
pub async fn connect(address: &PeerAddr) -> std::io::Result<()> {
    match address {
        PeerAddr::Inet(address) => TcpStream::connect(address).await.map(drop),
        PeerAddr::Unix(address) => match address.as_pathname() {
            Some(path) => UnixStream::connect(path).await.map(drop),
            None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        },
    }
}

/// Loads no certificates: Pingora loads the system's for every connector, which takes tens of milliseconds, and ends the
/// process where there are none. Nothing here speaks TLS.
fn connector_options() -> ConnectorOptions {
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some(NO_CERTIFICATES.to_owned());
    options
}

/// An empty list of certificates.
pub const NO_CERTIFICATES: &str = "/dev/null";

fn http_probe(check: &config::HealthCheck, host: &str, path: &str, expect_status: &[u16]) -> HttpHealthCheck {
    let mut probe = HttpHealthCheck::<()>::new_custom(host, false, HttpConnector::new(Some(connector_options())));
    probe.peer_template.options.connection_timeout = Some(check.timeout);
    probe.peer_template.options.read_timeout = Some(check.timeout);
    probe.peer_template.options.write_timeout = Some(check.timeout);
    probe.req.set_raw_path(path.as_bytes()).ok();
    probe.req.insert_header("User-Agent", concat!("homing/", env!("CARGO_PKG_VERSION"))).ok();
    probe.req.insert_header("Connection", "close").ok();
    let expected = expect_status.to_vec();
    probe.validator = Some(Box::new(move |answer| {
        let status = answer.status.as_u16();
        if expected.contains(&status) {
            Ok(())
        } else {
            Error::e_explain(ErrorType::CustomCode(STATUS, status), "health check")
        }
    }));
    probe
}

/// Pingora's errors carry addresses and call chains; an operator needs the kind.
fn short(error: &Error) -> String {
    error.etype().as_str().to_owned()
}

/// The host that a check asks for: the server's address, as curl would send it.
pub fn host_of(address: &config::ServerAddress) -> String {
    match address {
        config::ServerAddress::Ip(address) => address.to_string(),
        config::ServerAddress::Name { host, port } => format!("{host}:{port}"),
        config::ServerAddress::Unix(_) => "localhost".to_owned(),
    }
}

/// All that a server's task needs.
pub struct Watch {
    /// Pool and server, for the log.
    pub pool: Arc<str>,
    /// Its name.
    pub server: Arc<str>,
    /// Where verdicts go.
    pub live: Arc<Live>,
    /// The check.
    pub checker: Checker,
    /// What the configuration says.
    pub config: config::HealthCheck,
}

impl Watch {
    /// Checks once and lets the finding count. `address` is where the server is now.
    pub async fn round(&self, verdicts: &mut Verdicts, address: Option<PeerAddr>) {
        let (finding, why) = match address {
            Some(address) => self.checker.check(address).await,
            None => (Finding::Failed, Some("its name has no address".to_owned())),
        };
        self.live.metrics.checks.inc(finding as usize);
        let Some(verdict) = verdicts.observe(finding) else { return };
        let before = self.live.health();
        self.live.set_health(verdict);
        let (pool, server) = (&self.pool, &self.server);
        match verdict {
            Health::Down => tracing::warn!(%pool, %server, reason = why.as_deref(), "server is down"),
            Health::Draining => tracing::info!(%pool, %server, "server is up and asks for no new sessions"),
            _ if before == Health::Unknown => tracing::info!(%pool, %server, "server is up"),
            _ => tracing::info!(%pool, %server, "server is up again"),
        }
    }

    /// Checks for as long as it is let live, at the interval with ± 10 % jitter.
    pub async fn run(self, address: impl Fn() -> Option<PeerAddr>) {
        let mut verdicts = Verdicts::new(&self.config, self.live.health());
        // Spread the first checks of many servers over an interval; the first verdict was given before traffic.
        let mut pause = self.config.interval.mul_f64(rand::thread_rng().gen_range(0.0..1.0));
        loop {
            tokio::time::sleep(pause).await;
            self.round(&mut verdicts, address()).await;
            pause = self.config.interval.mul_f64(rand::thread_rng().gen_range(0.9..1.1));
        }
    }
}

/// The task of one server, ready to run; `None` when nothing checks it.
pub fn watch(pool: &config::Pool, name: &Arc<str>, server: &Server) -> Option<Watch> {
    let config = pool.health_check.clone()?;
    Some(Watch {
        pool: Arc::clone(name),
        server: Arc::clone(&server.name),
        live: Arc::clone(&server.live),
        checker: Checker::new(&config, pool.connection.protocol, &host_of(&server.address)),
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(known: Health) -> Verdicts {
        let check = config::HealthCheck {
            probe: config::Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        Verdicts::new(&check, known)
    }

    #[test]
    fn a_server_falls_after_three_and_rises_after_two() {
        use Finding::{Failed, Well};
        let mut verdicts = verdicts(Health::Unknown);
        let walk = [
            (Well, Some(Health::Up)),
            (Failed, None),
            (Failed, None),
            (Well, None),
            (Failed, None),
            (Failed, None),
            (Failed, Some(Health::Down)),
            (Failed, None),
            (Well, None),
            (Failed, None),
            (Well, None),
            (Well, Some(Health::Up)),
        ];
        for (step, (finding, expected)) in walk.into_iter().enumerate() {
            assert_eq!(verdicts.observe(finding), expected, "step {step}");
        }
    }

    #[test]
    fn the_first_finding_is_a_verdict() {
        assert_eq!(verdicts(Health::Unknown).observe(Finding::Failed), Some(Health::Down));
        assert_eq!(verdicts(Health::Unknown).observe(Finding::Drain), Some(Health::Draining));
    }

    #[test]
    fn a_server_that_asks_to_be_spared_is_heard_at_once() {
        let mut verdicts = verdicts(Health::Up);
        assert_eq!(verdicts.observe(Finding::Drain), Some(Health::Draining));
        assert_eq!(verdicts.observe(Finding::Well), Some(Health::Up));
        assert_eq!(verdicts.observe(Finding::Failed), None, "one failure is not three");
    }
}
