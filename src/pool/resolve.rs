//! Host names of servers, resolved periodically in the background, never by a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::live_state::LiveState;

/// How often a name is resolved; the TTL of most zones of application servers is 30 to 60 seconds.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(15);
/// How often while a name has no address.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long one query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves the host name of one server.
pub struct Resolver {
    /// Its pool, for the log.
    pub pool: Arc<str>,
    /// Its name in the configuration, for the log.
    pub server: Arc<str>,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Where the address goes.
    pub live: Arc<LiveState>,
    /// The last query failed: logged once, not every two seconds.
    pub failing: AtomicBool,
}

/// Chooses an address: the current one while it is still among the answers, so that their order changes nothing; else the
/// first, IPv4 before IPv6.
pub fn choose(current: Option<SocketAddr>, answers: &[SocketAddr]) -> Option<SocketAddr> {
    current
        .filter(|current| answers.contains(current))
        .or_else(|| answers.iter().min_by_key(|address| (address.is_ipv6(), address.ip())).copied())
}

impl Resolver {
    /// Resolves once and stores the address. A failed query changes nothing: the last address may still be right while the name
    /// server is unreachable.
    pub async fn resolve(&self) {
        let (pool, server, host) = (&self.pool, &self.server, &self.host);
        let query = tokio::net::lookup_host((self.host.as_str(), self.port));
        let answers: Vec<SocketAddr> = match tokio::time::timeout(QUERY_TIMEOUT, query).await {
            Ok(Ok(answers)) => answers.collect(),
            Ok(Err(error)) => return self.log_failure(&error.to_string()),
            Err(_) => return self.log_failure(&format!("no answer within {QUERY_TIMEOUT:?}")),
        };
        self.failing.store(false, Ordering::Relaxed);
        let current = self.live.resolved();
        let address = choose(current, &answers);
        if let Some(address) = address
            && current != Some(address)
        {
            tracing::info!(%pool, %server, %host, %address, "host name resolved");
            self.live.set_resolved(Some(address));
        }
    }

    fn log_failure(&self, reason: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            let (pool, server, host) = (&self.pool, &self.server, &self.host);
            tracing::warn!(%pool, %server, %host, reason, "host name not resolved; retrying");
        }
    }

    /// Resolves periodically, until the task is aborted.
    pub async fn run(self) {
        loop {
            let pause = if self.live.resolved().is_some() { RESOLVE_INTERVAL } else { RETRY_INTERVAL };
            tokio::time::sleep(pause).await;
            self.resolve().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_stays_while_it_is_among_the_answers() {
        let (a, b) = (address("10.0.0.1:80"), address("10.0.0.2:80"));
        assert_eq!(choose(Some(b), &[a, b]), Some(b));
        assert_eq!(choose(Some(b), &[a]), Some(a));
    }

    #[test]
    fn ipv4_goes_first_since_many_servers_listen_there_only() {
        let (v6, v4) = (address("[::1]:80"), address("127.0.0.1:80"));
        assert_eq!(choose(None, &[v6, v4]), Some(v4));
        assert_eq!(choose(None, &[v6]), Some(v6));
        assert_eq!(choose(None, &[]), None);
    }
}
