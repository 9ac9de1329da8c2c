//! The limits of a listener: what its clients have open, how often they ask, and how fast their bodies arrive.
//!
//! Open connections are counted exactly, in memory that grows with the open connections. Rates are kept for a fixed number of
//! clients ([`rate`]), so that memory does not grow with the number of addresses.

pub mod body_rate;
pub mod client;
pub mod connections;
pub mod rate;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config;
use crate::telemetry::metrics::{Counters, Limit, Metrics};

use self::client::ClientId;
use self::rate::RateTable;

/// The limits of one listener and what they count.
pub struct ListenerLimits {
    /// What the configuration says.
    pub config: config::ListenerLimits,
    /// By [`Limit`]: what was refused.
    pub limited: Counters,
    requests: Option<Rate>,
    new_sessions: Option<Rate>,
}

/// A rate, and how much of it each client has used.
struct Rate {
    per_second: u32,
    clients: Arc<RateTable>,
}

impl ListenerLimits {
    /// Of a listener. What clients have used of their rates is taken over from `previous`. `seed`: a random number.
    pub fn build(
        listener: &config::Listener,
        previous: Option<&Self>,
        metrics: &Metrics,
        seed: u64,
        now: Instant,
    ) -> Self {
        let config = listener.limits.clone();
        let rate = |per_second: Option<u32>, before: fn(&Self) -> Option<&Rate>| {
            let before = previous.filter(|one| one.config.tracked_clients == config.tracked_clients).and_then(before);
            let clients = || before.map(|rate| Arc::clone(&rate.clients));
            per_second.map(|per_second| Rate {
                per_second,
                clients: clients().unwrap_or_else(|| Arc::new(RateTable::new(config.tracked_clients, seed, now))),
            })
        };
        Self {
            limited: metrics.limited(&listener.address.to_string()),
            requests: rate(config.requests_per_second, |limits| limits.requests.as_ref()),
            new_sessions: rate(config.new_sessions_per_second, |limits| limits.new_sessions.as_ref()),
            config,
        }
    }

    /// Whether sessions that begin are counted.
    pub fn counts_sessions(&self) -> bool {
        self.new_sessions.is_some()
    }

    /// Counts a request. False: it is one too many.
    pub fn admit_request(&self, client: Option<IpAddr>, now: Instant) -> bool {
        self.admit(self.requests.as_ref(), Limit::RequestsPerSecond, client, now)
    }

    /// Counts a session that is about to begin. False: it is one too many.
    pub fn admit_session(&self, client: Option<IpAddr>, now: Instant) -> bool {
        self.admit(self.new_sessions.as_ref(), Limit::NewSessionsPerSecond, client, now)
    }

    /// A request may begin a session, which only its response will show. False: the session would be one too many.
    pub fn may_begin_session(&self, client: Option<IpAddr>, now: Instant) -> bool {
        let (Some(rate), Some(client)) = (&self.new_sessions, client) else { return true };
        let may = rate.clients.has_room(ClientId::of(client), rate.per_second, now);
        if !may {
            self.limited.inc(Limit::NewSessionsPerSecond);
        }
        may
    }

    /// Counts a session that has begun.
    pub fn note_session(&self, client: Option<IpAddr>, now: Instant) {
        if let (Some(rate), Some(client)) = (&self.new_sessions, client) {
            // One too many, of requests that came at once, leaves the bucket as empty as it was.
            rate.clients.take(ClientId::of(client), rate.per_second, now);
        }
    }

    fn admit(&self, rate: Option<&Rate>, limit: Limit, client: Option<IpAddr>, now: Instant) -> bool {
        let (Some(rate), Some(client)) = (rate, client) else { return true };
        let admitted = rate.clients.take(ClientId::of(client), rate.per_second, now);
        if !admitted {
            self.limited.inc(limit);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn listener(limits: &config::ListenerLimits) -> config::Listener {
        config::Listener {
            address: config::ListenAddress::Tcp(([127, 0, 0, 1], 8080).into()),
            http1: true,
            http2: true,
            tls: None,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            max_header_size: 1 << 16,
            max_body_size: None,
            timeouts: config::ListenerTimeouts::default(),
            on_client_half_close: config::OnClientHalfClose::Finish,
            limits: limits.clone(),
        }
    }

    #[test]
    fn what_a_client_has_used_outlives_a_reload_that_changes_its_rate() {
        let (metrics, now) = (Metrics::new().unwrap(), Instant::now());
        let client = IpAddr::from([192, 0, 2, 1]);
        let config = |rate| config::ListenerLimits { requests_per_second: rate, ..config::ListenerLimits::default() };
        let first = ListenerLimits::build(&listener(&config(Some(2))), None, &metrics, 1, now);
        assert!(first.admit_request(Some(client), now) && first.admit_request(Some(client), now));
        assert!(!first.admit_request(Some(client), now));
        assert!(first.admit_request(None, now), "a client without an address");
        let second = ListenerLimits::build(&listener(&config(Some(4))), Some(&first), &metrics, 1, now);
        assert!(!second.admit_request(Some(client), now), "its second is used up");
        let later = now + Duration::from_millis(500);
        assert!(second.admit_request(Some(client), later) && second.admit_request(Some(client), later));
        assert!(!second.admit_request(Some(client), later), "half a second is worth two");
        let off = ListenerLimits::build(&listener(&config(None)), Some(&second), &metrics, 1, later);
        assert!(off.admit_request(Some(client), later));
        assert_eq!(off.limited.get(Limit::RequestsPerSecond), 3, "the same counters");
    }
}
