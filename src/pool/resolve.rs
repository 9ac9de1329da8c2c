//! Host names of servers, resolved in the background and again and again: never on the way of a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::server::Live;

/// Names are asked for again this often; most zones of application servers live 30 to 60 seconds.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(15);
/// … and this often while a name has no address.
pub const RESOLVE_MISSING_EVERY: Duration = Duration::from_secs(2);
/// One question may take this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The host name of one server.
pub struct Name {
    /// Its pool, for the log.
    pub pool: Arc<str>,
    /// Its name in the configuration, for the log.
    pub server: Arc<str>,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Where the address goes.
    pub live: Arc<Live>,
    /// The last question had no answer: told once, not every two seconds.
    pub failing: AtomicBool,
}

/// Which of the addresses to take: the one in use while it is still among them, so that an answer in another order
/// moves nothing; else the first, IPv4 before IPv6.
pub fn choose(current: Option<SocketAddr>, answers: &[SocketAddr]) -> Option<SocketAddr> {
    current
        .filter(|current| answers.contains(current))
        .or_else(|| answers.iter().min_by_key(|address| (address.is_ipv6(), address.ip())).copied())
}

impl Name {
    /// Asks once and publishes what is found. An answer that cannot be had changes nothing: the last address may well
    /// be right while the name server is out of reach.
    pub async fn resolve(&self) {
        let (pool, server, host) = (&self.pool, &self.server, &self.host);
        let question = tokio::net::lookup_host((self.host.as_str(), self.port));
        let answers: Vec<SocketAddr> = match tokio::time::timeout(ANSWER_WITHIN, question).await {
            Ok(Ok(answers)) => answers.collect(),
            Ok(Err(error)) => return self.not_resolved(&error.to_string()),
            Err(_) => return self.not_resolved(&format!("no answer within {ANSWER_WITHIN:?}")),
        };
        self.failing.store(false, Ordering::Relaxed);
        let before = self.live.resolved();
        let address = choose(before, &answers);
        if let Some(address) = address
            && before != Some(address)
        {
            tracing::info!(%pool, %server, %host, %address, "host name resolved");
            self.live.set_resolved(Some(address));
        }
    }

    fn not_resolved(&self, reason: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            let (pool, server, host) = (&self.pool, &self.server, &self.host);
            tracing::warn!(%pool, %server, %host, reason, "host name not resolved; asking again");
        }
    }

    /// Asks for as long as it is let live.
    pub async fn run(self) {
        loop {
            let pause = if self.live.resolved().is_some() { RESOLVE_EVERY } else { RESOLVE_MISSING_EVERY };
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
