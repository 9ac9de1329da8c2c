//! Which server takes a session: Pingora's load balancing behind our rule.
//!
//! Pingora's balancers know servers by address and weight. Ours are known by *name*, so what Pingora balances are
//! stand-ins: addresses that exist nowhere and carry the server's index in their IPv6 scope id. That way sockets and
//! host names balance like addresses, a re-resolved name moves nothing, weight 0 (which panics in Pingora) never gets
//! there, and the ring for moved sessions hashes names: two proxies agree even when they reach a server differently.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_load_balancing::discovery::Static;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, Consistent, Random, RoundRobin};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use crate::config::Balance;
use crate::session::key::{KeyHasher, ServerId};

use super::ServerIndex;
use super::server::Server;

/// Chooses servers for new and for moved sessions.
pub struct Balancer {
    balance: Balance,
    /// For new sessions, over those that take some at one generation of the pool. Built anew by the first request that
    /// sees a later generation, so that weights hold over the servers that are left.
    current: ArcSwapOption<Selection>,
    /// Held by the one request that builds; the others go on with the selection before.
    building: Mutex<()>,
    /// For moved sessions and for `balance: hash`, over all servers with a weight: who is down is stepped over, which
    /// keeps everybody else's place.
    ring: LoadBalancer<Consistent>,
}

struct Selection {
    generation: u64,
    takers: usize,
    kind: Kind,
}

enum Kind {
    RoundRobin(LoadBalancer<RoundRobin>),
    Random(LoadBalancer<Random>),
    LeastRequests,
    Hash,
}

/// Ketama places 160 points a unit of weight. With about two thousand points a server its share is within a few per
/// cent of its weight (the deviation is one by the root of the number of points).
const RING_UNITS_PER_SERVER: usize = 12;
/// A server of little weight needs some points too, for its share to be right within a tenth.
const RING_UNITS_LEAST: usize = 5;
/// 160 points of 8 bytes each: a ring of at most 10 MiB.
const RING_UNITS_MOST: usize = 8_000;
/// Round robin and random lay out one entry a unit of weight.
const UNITS_MOST: usize = 16_384;

impl Balancer {
    /// A balancer over the servers of a pool.
    pub fn build(balance: Balance, servers: &[Server]) -> Self {
        Self { balance, current: ArcSwapOption::empty(), building: Mutex::new(()), ring: ring(servers) }
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
        let may = |index: ServerIndex| may_take(servers, index, backups, tried);
        let selection = self.selection(servers, generation);
        // Enough steps to meet every server many times over; the order is random, so one may be missed, hence the rest.
        let steps = selection.takers.saturating_mul(32) + 64;
        match &selection.kind {
            Kind::RoundRobin(balancer) => select(balancer, key, steps, may),
            Kind::Random(balancer) => select(balancer, key, steps, may),
            Kind::LeastRequests => least_requests(servers, may),
            Kind::Hash => return self.on_ring(servers, key, may),
        }
        // When weights are very uneven, or only backups are left after a failure.
        .or_else(|| by_chance_of(servers, &rand::random::<[u8; 16]>(), may))
    }

    /// A server for a session that moves.
    pub fn pick_moved(&self, servers: &[Server], key: &[u8], tried: &[ServerIndex]) -> Option<ServerIndex> {
        let backups = only_backups_left(servers, tried);
        self.on_ring(servers, key, |index| may_take(servers, index, backups, tried))
    }

    /// The next on the ring after the key that may.
    fn on_ring(&self, servers: &[Server], key: &[u8], may: impl Fn(ServerIndex) -> bool) -> Option<ServerIndex> {
        // Walking the ring while nobody may take the session would be long; asking first is short.
        if !(0..servers.len()).any(&may) {
            return None;
        }
        let steps = servers.len().saturating_mul(128) + 256;
        // A server of nearly all the weight that is down leaves long stretches of the ring to nobody.
        select(&self.ring, key, steps, &may).or_else(|| by_chance_of(servers, key, may))
    }

    fn selection(&self, servers: &[Server], generation: u64) -> Arc<Selection> {
        let current = self.current.load_full();
        if let Some(current) = &current
            && current.generation == generation
        {
            return Arc::clone(current);
        }
        // Whoever comes while another builds goes on with what there was before.
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
        let takes = |server: &Server| server.takes_new() && server.backup == backups;
        let kind = match balance {
            Balance::RoundRobin => Kind::RoundRobin(balancer(&by_weight(servers, takes))),
            Balance::Random => Kind::Random(balancer(&by_weight(servers, takes))),
            Balance::LeastRequests => Kind::LeastRequests,
            Balance::Hash => Kind::Hash,
        };
        Self { generation, takers: servers.iter().filter(|server| takes(server)).count(), kind }
    }
}

fn only_backups_left(servers: &[Server], tried: &[ServerIndex]) -> bool {
    !servers.iter().enumerate().any(|(index, server)| !server.backup && server.takes_new() && !tried.contains(&index))
}

fn may_take(servers: &[Server], index: ServerIndex, backups: bool, tried: &[ServerIndex]) -> bool {
    !tried.contains(&index) && servers.get(index).is_some_and(|server| server.backup == backups && server.takes_new())
}

/// Rendezvous: each server draws a lot from its name and the key, and the longest for its weight wins. So servers share
/// by weight what Pingora's selection could not reach, and every proxy draws the same.
fn by_chance_of(servers: &[Server], key: &[u8], may: impl Fn(ServerIndex) -> bool) -> Option<ServerIndex> {
    let waits = |server: &Server| {
        let mut lot = KeyHasher::default();
        lot.write(&server.id.0.to_be_bytes());
        lot.write(key);
        // In (0, 1]: the exponential distribution's least of many is spread by their rates.
        let lot = ((lot.finish() >> 12) + 1) as f64 / (1_u64 << 52) as f64;
        -lot.ln() / f64::from(server.weight.max(1))
    };
    servers
        .iter()
        .enumerate()
        .filter(|(index, _)| may(*index))
        .min_by(|(_, one), (_, other)| waits(one).total_cmp(&waits(other)).then(one.id.cmp(&other.id)))
        .map(|(index, _)| index)
}

/// Fewest requests in flight for its weight; among equals, one at random, so that idle servers share the first ones.
fn least_requests(servers: &[Server], may: impl Fn(ServerIndex) -> bool) -> Option<ServerIndex> {
    let mut best: Option<(u64, ServerIndex)> = None;
    let mut equals = 0_u32;
    for (index, server) in servers.iter().enumerate().filter(|(index, _)| may(*index)) {
        // In flight after this one, as a fixed-point quotient by weight.
        let in_flight = u64::try_from(server.live.in_flight()).unwrap_or(u64::MAX >> 33);
        let load = (in_flight + 1).saturating_mul(1 << 32) / u64::from(server.weight.max(1));
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

/// Asks one of Pingora's balancers.
fn select<S>(
    balancer: &LoadBalancer<S>,
    key: &[u8],
    steps: usize,
    may: impl Fn(ServerIndex) -> bool,
) -> Option<ServerIndex>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let chosen = balancer.select_with(key, steps, |backend, _| index_of(backend).is_some_and(&may))?;
    index_of(&chosen)
}

fn balancer<S>(backends: &BTreeSet<Backend>) -> LoadBalancer<S>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let balancer = LoadBalancer::from_backends(Backends::new(Static::new(backends.clone())));
    // A static list is there at once; the future never waits.
    let _ = futures_now(balancer.update());
    balancer
}

/// Polls a future that does not wait.
fn futures_now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// Stand-ins in the order of the file, with weights in lowest terms.
fn by_weight(servers: &[Server], takes: impl Fn(&Server) -> bool) -> BTreeSet<Backend> {
    let weights: Vec<usize> =
        servers.iter().map(|server| if takes(server) { usize::from(server.weight) } else { 0 }).collect();
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let total = weights.iter().sum::<usize>() / divisor;
    let shrink = total.div_ceil(UNITS_MOST).max(1);
    weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(index, weight)| stand_in(Ipv6Addr::from_bits(index as u128), index, (weight / divisor / shrink).max(1)))
        .collect()
}

/// A ketama ring over the names of the servers that have a weight.
fn ring(servers: &[Server]) -> LoadBalancer<Consistent> {
    let takers: Vec<(usize, &Server)> = servers.iter().enumerate().filter(|(_, server)| server.weight > 0).collect();
    let total: usize = takers.iter().map(|(_, server)| usize::from(server.weight)).sum();
    let least = takers.iter().map(|(_, server)| usize::from(server.weight)).min().unwrap_or(1).max(1);
    let wanted = (takers.len() * RING_UNITS_PER_SERVER).max(total * RING_UNITS_LEAST / least);
    let units = wanted.min(RING_UNITS_MOST.max(takers.len() * RING_UNITS_PER_SERVER));
    let backends = takers
        .iter()
        .map(|(index, server)| {
            let share = (usize::from(server.weight) * units + total / 2) / total.max(1);
            stand_in(name_address(server.id), *index, share.max(1))
        })
        .collect();
    balancer(&backends)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// An address made of the name's hash, from the prefix for documentation, which nobody routes.
fn name_address(id: ServerId) -> Ipv6Addr {
    Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | u128::from(id.0))
}

fn stand_in(address: Ipv6Addr, index: ServerIndex, weight: usize) -> Backend {
    let scope = u32::try_from(index).unwrap_or(u32::MAX);
    Backend {
        addr: PeerAddr::Inet(SocketAddr::V6(SocketAddrV6::new(address, 1, 0, scope))),
        weight,
        ext: http::Extensions::new(),
    }
}

fn index_of(backend: &Backend) -> Option<ServerIndex> {
    match backend.addr {
        PeerAddr::Inet(SocketAddr::V6(address)) => usize::try_from(address.scope_id()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
