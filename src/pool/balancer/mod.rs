//! Selects servers for sessions: Pingora's load balancing over the servers that accept sessions.
//!
//! Pingora's balancers identify servers by address, Homing by *name*. So Pingora balances placeholders: reserved addresses
//! with the server's index in their IPv6 scope id. Sockets and host names balance like addresses, a re-resolved name moves
//! nothing, weight 0 (which panics in Pingora) is left out, and the ring for moved sessions hashes names: two proxies agree
//! even when they reach a server by different addresses.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::Ipv6Addr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pingora_load_balancing::selection::{Random, RoundRobin};
use pingora_load_balancing::{Backend, LoadBalancer};

use crate::config::Balance;
use crate::session::key::KeyHasher;

use self::placeholder::{balancer, placeholder, select};
use self::ring::Ring;
use super::server::{Server, ServerIndex};

mod placeholder;
mod ring;

/// Selects servers for new and for moved sessions.
pub struct Balancer {
    balance: Balance,
    /// For new sessions, over the servers that accept them at one generation of the pool. The first request that sees a later
    /// generation rebuilds it, so that the weights hold over the remaining servers.
    current: ArcSwapOption<Selection>,
    /// Locked by the request that rebuilds; the others use the previous selection.
    building: Mutex<()>,
    /// For moved sessions and for `balance: hash`, over all servers with a weight: servers that are down are skipped, so that
    /// the other sessions stay on their servers.
    ring: Ring,
}

struct Selection {
    generation: u64,
    /// How many servers it is over.
    accepting: usize,
    kind: Kind,
}

enum Kind {
    RoundRobin(LoadBalancer<RoundRobin>),
    Random(LoadBalancer<Random>),
    LeastRequests,
    Hash,
}

/// Round robin and random have one entry per unit of weight.
const UNITS_MAX: usize = 16_384;

impl Balancer {
    /// A balancer over the servers of a pool; `previous` is that of the pool before a reload.
    pub fn build(balance: Balance, servers: &[Server], previous: Option<&Self>) -> Self {
        let ring = Ring::build(servers, previous.map(|previous| &previous.ring), balance != Balance::Hash);
        Self { balance, current: ArcSwapOption::empty(), building: Mutex::new(()), ring }
    }

    /// Builds what a request would build otherwise.
    pub fn prepare(&self, servers: &[Server], generation: u64) {
        self.ring.at(servers, generation);
    }

    /// Drops the ring, which may have millions of points, until it is needed again.
    pub fn retire(&self) {
        self.ring.clear();
    }

    /// A server for a new session.
    pub fn pick_new(
        &self,
        servers: &[Server],
        generation: u64,
        key: &[u8],
        tried: &[ServerIndex],
    ) -> Option<ServerIndex> {
        let backups = only_backups_left(servers, tried);
        let accepts = |index: ServerIndex| is_free(servers, index, backups, tried);
        let selection = self.selection(servers, generation);
        // Enough steps to reach every server many times; the order is random, so that one may still be missed (see below).
        let steps = selection.accepting.saturating_mul(32) + 64;
        match &selection.kind {
            Kind::RoundRobin(balancer) => select(balancer, key, steps, accepts),
            Kind::Random(balancer) => select(balancer, key, steps, accepts),
            Kind::LeastRequests => least_requests(servers, accepts),
            Kind::Hash => return self.on_ring(servers, generation, key, accepts),
        }
        // With very uneven weights, or when only backups remain after a failure.
        .or_else(|| rendezvous(servers, &rand::random::<[u8; 16]>(), accepts))
    }

    /// A server for a session that moves.
    pub fn pick_moved(
        &self,
        servers: &[Server],
        generation: u64,
        key: &[u8],
        tried: &[ServerIndex],
    ) -> Option<ServerIndex> {
        let backups = only_backups_left(servers, tried);
        self.on_ring(servers, generation, key, |index| is_candidate(servers, index, backups, tried))
    }

    /// The next accepted server on the ring after the key.
    fn on_ring(
        &self,
        servers: &[Server],
        generation: u64,
        key: &[u8],
        accepts: impl Fn(ServerIndex) -> bool,
    ) -> Option<ServerIndex> {
        // Without any such server the walk along the ring would be long.
        if !(0..servers.len()).any(&accepts) {
            return None;
        }
        let steps = servers.len().saturating_mul(128) + 256;
        // A server with nearly all the weight that is down leaves long gaps in the ring.
        select(&self.ring.at(servers, generation), key, steps, &accepts).or_else(|| rendezvous(servers, key, accepts))
    }

    fn selection(&self, servers: &[Server], generation: u64) -> Arc<Selection> {
        let current = self.current.load_full();
        if let Some(current) = &current
            && current.generation == generation
        {
            return Arc::clone(current);
        }
        // While another request rebuilds, this one uses the previous selection.
        let building = self.building.try_lock();
        if building.is_none()
            && let Some(current) = current
        {
            return current;
        }
        let built = Arc::new(Selection::build(self.balance, servers, generation));
        self.current.store(Some(Arc::clone(&built)));
        built
    }
}

impl Selection {
    fn build(balance: Balance, servers: &[Server], generation: u64) -> Self {
        let backups = only_backups_left(servers, &[]);
        let accepts = |server: &Server| server.takes_new() && server.backup == backups;
        let kind = match balance {
            Balance::RoundRobin => Kind::RoundRobin(balancer(&by_weight(servers, accepts))),
            Balance::Random => Kind::Random(balancer(&by_weight(servers, accepts))),
            Balance::LeastRequests => Kind::LeastRequests,
            Balance::Hash => Kind::Hash,
        };
        Self { generation, accepting: servers.iter().filter(|server| accepts(server)).count(), kind }
    }
}

pub(super) fn only_backups_left(servers: &[Server], tried: &[ServerIndex]) -> bool {
    !servers.iter().enumerate().any(|(index, server)| !server.backup && server.takes_new() && !tried.contains(&index))
}

/// A server that may take the session, though not at once when it is full.
pub(super) fn is_candidate(servers: &[Server], index: ServerIndex, backups: bool, tried: &[ServerIndex]) -> bool {
    !tried.contains(&index) && servers.get(index).is_some_and(|server| server.backup == backups && server.takes_new())
}

/// One that may take it at once.
fn is_free(servers: &[Server], index: ServerIndex, backups: bool, tried: &[ServerIndex]) -> bool {
    !tried.contains(&index) && servers.get(index).is_some_and(|server| server.backup == backups && server.accepts_new())
}

/// Weighted rendezvous hashing: each server has a score from its name and the key, and the best for its weight wins. Servers
/// share by weight what Pingora's selection did not reach, and every proxy chooses the same.
fn rendezvous(servers: &[Server], key: &[u8], accepts: impl Fn(ServerIndex) -> bool) -> Option<ServerIndex> {
    let score = |server: &Server| {
        let mut hasher = KeyHasher::default();
        hasher.write(&server.id.0.to_be_bytes());
        hasher.write(key);
        // In (0, 1]. The least of exponential variables is distributed by their rates, which are the weights.
        let uniform = ((hasher.finish() >> 12) + 1) as f64 / (1_u64 << 52) as f64;
        -uniform.ln() / f64::from(server.weight().max(1))
    };
    servers
        .iter()
        .enumerate()
        .filter(|(index, _)| accepts(*index))
        .min_by(|(_, one), (_, other)| score(one).total_cmp(&score(other)).then(one.id.cmp(&other.id)))
        .map(|(index, _)| index)
}

/// The fewest requests in flight per weight; among equals one at random, so that idle servers share the first requests.
fn least_requests(servers: &[Server], accepts: impl Fn(ServerIndex) -> bool) -> Option<ServerIndex> {
    let mut best: Option<(u64, ServerIndex)> = None;
    let mut equals = 0_u32;
    for (index, server) in servers.iter().enumerate().filter(|(index, _)| accepts(*index)) {
        // In flight after this one, as a fixed-point quotient by weight, in thousandths that all have alike.
        let in_flight = u64::try_from(server.live.in_flight()).unwrap_or(u64::MAX >> 33);
        let load = (in_flight + 1).saturating_mul(1 << 42) / u64::from(server.weight_in_thousandths().max(1));
        match best {
            Some((least, _)) if load > least => {}
            Some((least, _)) if load == least => {
                equals += 1;
                if rand::random::<u32>().is_multiple_of(equals) {
                    best = Some((load, index));
                }
            }
            _ => {
                equals = 1;
                best = Some((load, index));
            }
        }
    }
    best.map(|(_, index)| index)
}

/// Placeholders in the order of the file, with weights in lowest terms.
fn by_weight(servers: &[Server], accepts: impl Fn(&Server) -> bool) -> BTreeSet<Backend> {
    let weight = |server: &Server| usize::try_from(server.weight_in_thousandths()).unwrap_or(usize::MAX);
    let weights: Vec<usize> = servers.iter().map(|server| if accepts(server) { weight(server) } else { 0 }).collect();
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let total = weights.iter().sum::<usize>() / divisor;
    let shrink = total.div_ceil(UNITS_MAX).max(1);
    weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(index, weight)| {
            placeholder(Ipv6Addr::from_bits(index as u128), index, (weight / divisor / shrink).max(1))
        })
        .collect()
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
