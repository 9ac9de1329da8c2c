//! The ring of moved sessions and of `balance: hash`: a consistent hash over the names of all servers with a weight. It is
//! built again only when a weight changes, so that servers that come and go leave the other sessions where they are.

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

/// The ring of a pool.
pub(super) struct Ring {
    current: ArcSwap<Points>,
    /// Locked by the request that rebuilds; the others use the previous ring.
    building: Mutex<()>,
}

struct Points {
    /// The pool's generation at which the weights were last compared.
    generation: AtomicU64,
    weights: Box<[u16]>,
    balancer: Arc<LoadBalancer<Consistent>>,
}

impl Ring {
    pub(super) fn build(servers: &[Server]) -> Self {
        Self { current: ArcSwap::from_pointee(Points::build(servers, weights(servers))), building: Mutex::new(()) }
    }

    /// Drops its points; the next look makes them again.
    pub(super) fn clear(&self) {
        let none = Points::build(&[], Box::default());
        none.generation.store(u64::MAX, Ordering::Release);
        self.current.store(Arc::new(none));
    }

    /// The ring for the weights of now. They can have changed only when the pool's generation has.
    pub(super) fn at(&self, servers: &[Server], generation: u64) -> Arc<LoadBalancer<Consistent>> {
        let current = self.current.load();
        if current.generation.load(Ordering::Acquire) != generation
            && let Some(_building) = self.building.try_lock()
        {
            let weights = weights(servers);
            if current.weights != weights {
                let built = Points::build(servers, weights);
                built.generation.store(generation, Ordering::Release);
                let balancer = Arc::clone(&built.balancer);
                self.current.store(Arc::new(built));
                return balancer;
            }
            current.generation.store(generation, Ordering::Release);
        }
        Arc::clone(&current.balancer)
    }
}

fn weights(servers: &[Server]) -> Box<[u16]> {
    servers.iter().map(Server::weight).collect()
}

impl Points {
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
        Self { generation: AtomicU64::new(0), weights, balancer: Arc::new(balancer(&backends)) }
    }
}

/// An address from the name's hash, in the prefix for documentation, which is never routed.
fn name_address(id: ServerId) -> Ipv6Addr {
    Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | u128::from(id.0))
}
