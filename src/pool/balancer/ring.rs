//! The ring of moved sessions and of `balance: hash`: a consistent hash over the names of all servers with a weight. It is
//! built again only when a weight changes, so that servers that come and go leave the other sessions where they are. A reload that
//! leaves a pool's servers and their weights as they are takes its ring over.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::Consistent;

use super::placeholder::{balancer, placeholder};
use crate::pool::server::Server;
use crate::session::key::ServerId;

/// Ketama places 160 points per unit of weight. With about two thousand points a server's share is within a few per cent of
/// its weight (the deviation is 1/√points).
const UNITS_PER_SERVER: usize = 12;
/// A server of little weight needs this many units for a share within 10 % of its weight.
const UNITS_MIN: usize = 5;
/// 160 points of 8 bytes each: a ring of at most 10 MiB.
const UNITS_MAX: usize = 8_000;
/// The ring of a pool with so many servers is built in a few milliseconds.
const QUICK: usize = 64;
/// The generation of a ring that is not built.
const NEVER: u64 = u64::MAX;

/// The ring of a pool.
pub(super) struct Ring {
    current: ArcSwap<Points>,
    /// Locked by the request that rebuilds; the others use the previous ring, if there is one.
    building: Mutex<()>,
}

struct Points {
    /// The pool's generation at which the weights were last compared.
    generation: AtomicU64,
    servers: Box<[ServerId]>,
    weights: Box<[u16]>,
    balancer: Arc<LoadBalancer<Consistent>>,
}

impl Ring {
    /// The previous one where it is the same. `later`: another is built when it is first needed, unless that takes long.
    pub(super) fn build(servers: &[Server], previous: Option<&Self>, later: bool) -> Self {
        let (ids, weights) = (ids(servers), weights(servers));
        let previous = previous.map(|previous| previous.current.load_full());
        let same = previous.filter(|points| points.is_built() && points.servers == ids && points.weights == weights);
        let points = match same {
            Some(points) => Points::of(ids, weights, Arc::clone(&points.balancer)),
            None if later && servers.len() <= QUICK => Points::none(),
            None => Points::build(servers, weights),
        };
        Self { current: ArcSwap::from_pointee(points), building: Mutex::new(()) }
    }

    /// Drops its points; the next look makes them again.
    pub(super) fn clear(&self) {
        self.current.store(Arc::new(Points::none()));
    }

    /// The ring for the weights of now. They can have changed only when the pool's generation has.
    pub(super) fn at(&self, servers: &[Server], generation: u64) -> Arc<LoadBalancer<Consistent>> {
        let current = self.current.load();
        if current.generation.load(Ordering::Acquire) == generation {
            return Arc::clone(&current.balancer);
        }
        let building = if current.is_built() { self.building.try_lock() } else { Some(self.building.lock()) };
        if building.is_none() {
            return Arc::clone(&current.balancer);
        }
        // Another may have built it meanwhile.
        let current = self.current.load();
        let weights = weights(servers);
        if current.is_built() && current.weights == weights {
            current.generation.store(generation, Ordering::Release);
            return Arc::clone(&current.balancer);
        }
        let built = Points::build(servers, weights);
        built.generation.store(generation, Ordering::Release);
        let balancer = Arc::clone(&built.balancer);
        self.current.store(Arc::new(built));
        balancer
    }
}

fn ids(servers: &[Server]) -> Box<[ServerId]> {
    servers.iter().map(|server| server.id).collect()
}

fn weights(servers: &[Server]) -> Box<[u16]> {
    servers.iter().map(Server::weight).collect()
}

impl Points {
    fn of(servers: Box<[ServerId]>, weights: Box<[u16]>, balancer: Arc<LoadBalancer<Consistent>>) -> Self {
        Self { generation: AtomicU64::new(0), servers, weights, balancer }
    }

    /// Not built.
    fn none() -> Self {
        let none = Self::of(Box::default(), Box::default(), Arc::new(balancer(&BTreeSet::new())));
        none.generation.store(NEVER, Ordering::Release);
        none
    }

    fn is_built(&self) -> bool {
        self.generation.load(Ordering::Acquire) != NEVER
    }

    fn build(servers: &[Server], weights: Box<[u16]>) -> Self {
        let weighted: Vec<(usize, usize, &Server)> = servers
            .iter()
            .zip(&*weights)
            .enumerate()
            .map(|(index, (server, weight))| (index, usize::from(*weight), server))
            .filter(|(_, weight, _)| *weight > 0)
            .collect();
        let total: usize = weighted.iter().map(|(_, weight, _)| weight).sum();
        let least = weighted.iter().map(|(_, weight, _)| *weight).min().unwrap_or(1).max(1);
        let units = (weighted.len() * UNITS_PER_SERVER).max(total * UNITS_MIN / least);
        let units = units.min(UNITS_MAX.max(weighted.len() * UNITS_PER_SERVER));
        let backends = weighted
            .iter()
            .map(|(index, weight, server)| {
                let share = (weight * units + total / 2) / total.max(1);
                placeholder(name_address(server.id), *index, share.max(1))
            })
            .collect();
        Self::of(ids(servers), weights, Arc::new(balancer(&backends)))
    }
}

/// An address from the name's hash, in the prefix for documentation, which is never routed.
fn name_address(id: ServerId) -> Ipv6Addr {
    Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | u128::from(id.0))
}
