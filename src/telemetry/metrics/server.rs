//! Metrics of servers. A proxy may have thousands of servers with some seventy series each, and other ones after each reload, so
//! what is counted of a server is one block of memory ([`ServerMetrics`]), and its series are made at a scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::IntCounterVec;
use strum::VariantNames;

use super::handles::Counters;
use super::labels::{CLASSES, LabelIndex, LocalResource, ProbeResult, ResourceUser, UpstreamError};
use super::timings::Timings;

/// A fifth of a millisecond (a server on a local network) to a minute (the default timeout of a response).
const RESPONSE_BUCKETS: [f64; 17] =
    [0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// To the default `connect_timeout` and above.
const CONNECT_BUCKETS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5];

/// What is counted of one server.
pub struct ServerMetrics {
    /// By [`UpstreamError`].
    pub errors: Counts<{ UpstreamError::VARIANTS.len() }>,
    /// By [`ProbeResult`].
    pub checks: Counts<{ ProbeResult::VARIANTS.len() }>,
    /// Connections for requests, to any server, that failed for lack of a [`LocalResource`].
    pub exhausted_connects: Counters,
    /// The same of health checks.
    pub exhausted_checks: Counters,
    /// Requests that were sent to it after another attempt had failed.
    pub retries: Count,
    /// By [`CLASSES`].
    pub(super) responses: Counts<{ CLASSES.len() }>,
    pub(super) response_time: Timings<{ RESPONSE_BUCKETS.len() }>,
    pub(super) connect_time: Timings<{ CONNECT_BUCKETS.len() }>,
}

/// A count.
#[derive(Default)]
pub struct Count(AtomicU64);

/// Counts by the values of a label.
pub struct Counts<const N: usize>([Count; N]);

impl Count {
    /// Counts one more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

impl<const N: usize> Counts<N> {
    /// Counts one more for a label's value.
    pub fn inc(&self, label: impl LabelIndex) {
        if let Some(count) = self.0.get(label.index()) {
            count.inc();
        }
    }

    /// In the order of the values.
    pub(super) fn values(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(Count::get)
    }
}

impl ServerMetrics {
    /// Counts a response and the time to its first byte, from the start of the attempt.
    pub fn response(&self, status: u16, took: Option<Duration>) {
        self.responses.inc(usize::from(status / 100).wrapping_sub(1));
        if let Some(took) = took {
            self.response_time.observe(took);
        }
    }

    /// Counts a new connection and the time that it took.
    pub fn connected(&self, took: Duration) {
        self.connect_time.observe(took);
    }
}

/// The name of a server: its pool's, and its own.
pub(super) type FullName = (Arc<str>, Arc<str>);

/// All servers that have series.
pub(super) struct AllServers {
    /// Locked by reloads, by the removal of what is gone, and shortly by scrapes.
    servers: RwLock<BTreeMap<FullName, Arc<ServerMetrics>>>,
    exhausted_connects: Counters,
    exhausted_checks: Counters,
}

impl AllServers {
    pub(super) fn new(exhausted: &IntCounterVec) -> Self {
        let of = |user: ResourceUser| Counters::new(exhausted, &[user.into()], LocalResource::VARIANTS);
        Self {
            servers: RwLock::default(),
            exhausted_connects: of(ResourceUser::Connect),
            exhausted_checks: of(ResourceUser::HealthCheck),
        }
    }

    /// The counts of a server; called twice, the same.
    pub(super) fn server(&self, pool: &str, server: &str) -> Arc<ServerMetrics> {
        let mut servers = self.servers.write();
        let made = servers.entry((pool.into(), server.into())).or_insert_with(|| {
            Arc::new(ServerMetrics {
                errors: Counts::default(),
                checks: Counts::default(),
                exhausted_connects: self.exhausted_connects.clone(),
                exhausted_checks: self.exhausted_checks.clone(),
                retries: Count::default(),
                responses: Counts::default(),
                response_time: Timings::new(&RESPONSE_BUCKETS),
                connect_time: Timings::new(&CONNECT_BUCKETS),
            })
        });
        Arc::clone(made)
    }

    /// All, in the order of their names.
    pub(super) fn all(&self) -> Vec<(FullName, Arc<ServerMetrics>)> {
        self.servers.read().iter().map(|(name, server)| (name.clone(), Arc::clone(server))).collect()
    }

    /// Forgets all others.
    pub(super) fn retain(&self, is_known: impl Fn(&str, &str) -> bool) {
        self.servers.write().retain(|(pool, server), _| is_known(pool, server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_of_a_server_takes_less_than_a_kibibyte() {
        assert!(size_of::<ServerMetrics>() < 1024, "{}", size_of::<ServerMetrics>());
    }
}
