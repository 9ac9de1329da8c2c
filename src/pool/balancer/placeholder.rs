//! Pingora's balancers over placeholders: reserved addresses with the server's index in their IPv6 scope id.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_load_balancing::discovery::Static;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use crate::pool::server::ServerIndex;

/// Selects by one of Pingora's balancers.
pub(super) fn select<S>(
    balancer: &LoadBalancer<S>,
    key: &[u8],
    steps: usize,
    accepts: impl Fn(ServerIndex) -> bool,
) -> Option<ServerIndex>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let chosen = balancer.select_with(key, steps, |backend, _| index_of(backend).is_some_and(&accepts))?;
    index_of(&chosen)
}

pub(super) fn balancer<S>(backends: &BTreeSet<Backend>) -> LoadBalancer<S>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let balancer = LoadBalancer::from_backends(Backends::new(Static::new(backends.clone())));
    // A static list is ready at once; the future never waits.
    let _ = poll_once(balancer.update());
    balancer
}

/// Polls a future that does not wait.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

pub(super) fn placeholder(address: Ipv6Addr, index: ServerIndex, weight: usize) -> Backend {
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
