//! File descriptors that are kept back, so that probes, metrics, health checks, stores and files still work when clients and
//! servers have taken all the others.
//!
//! A new descriptor gets the lowest number that is free. So its number says whether the others are in use, without a count:
//! connections of clients and to servers only keep numbers below a ceiling. The ceiling of clients is the lower one, so that
//! the clients that are connected can still be served.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use nix::errno::Errno;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::net::TcpSocket;

// The limit belongs to the process, and so do these. Written once, when the process has started.
static CEILING_OF_SERVERS: AtomicI32 = AtomicI32::new(RawFd::MAX);
static CEILING_OF_CLIENTS: AtomicI32 = AtomicI32::new(RawFd::MAX);
/// How many connections above the ceiling may still be refused in words.
static REFUSALS_LEFT: AtomicUsize = AtomicUsize::new(0);

/// How the descriptors of a process are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Division {
    clients: RawFd,
    servers: RawFd,
    refusals: usize,
}

/// An eighth is kept back, at least 8 and at most 128, and as many again are for servers only; never more than a third of
/// what is free at the start.
fn divide(limit: u64, in_use: u64) -> Division {
    let free = limit.saturating_sub(in_use);
    let reserve = (limit / 8).clamp(8, 128).min(free / 3);
    let number = |number: u64| RawFd::try_from(number).unwrap_or(RawFd::MAX);
    Division {
        clients: number(limit.saturating_sub(2 * reserve)),
        servers: number(limit - reserve.min(limit)),
        refusals: usize::try_from(reserve / 2).unwrap_or(0),
    }
}

/// Keeps descriptors back from now on. `limit`: how many the process may have; `in_use`: how many it has.
pub fn keep_back(limit: u64, in_use: u64) {
    let division = divide(limit, in_use);
    CEILING_OF_CLIENTS.store(division.clients, Ordering::Relaxed);
    CEILING_OF_SERVERS.store(division.servers, Ordering::Relaxed);
    REFUSALS_LEFT.store(division.refusals, Ordering::Relaxed);
}

/// What becomes of a new connection of a client.
pub enum Admission {
    /// It is served.
    Served,
    /// Its descriptor is one of those kept back: its request is refused.
    Refused(RefusalPermit),
    /// The same, and too many are being refused already: it is closed.
    Closed,
}

/// Counts one connection that is being refused, until it is dropped.
pub struct RefusalPermit(());

impl Drop for RefusalPermit {
    fn drop(&mut self) {
        REFUSALS_LEFT.fetch_add(1, Ordering::Relaxed);
    }
}

/// What becomes of a client's connection with this descriptor.
pub fn admit(descriptor: RawFd) -> Admission {
    if descriptor < CEILING_OF_CLIENTS.load(Ordering::Relaxed) {
        return Admission::Served;
    }
    let left = REFUSALS_LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if left.is_ok() { Admission::Refused(RefusalPermit(())) } else { Admission::Closed }
}

/// Fails like the system when the descriptor of a connection to a server is one of those kept back. Asked before the
/// connection is established, since that may take a while.
///
/// # Errors
/// `EMFILE`.
pub fn check_server_socket(socket: &impl AsRawFd) -> std::io::Result<()> {
    let reserved = socket.as_raw_fd() >= CEILING_OF_SERVERS.load(Ordering::Relaxed);
    if reserved { Err(std::io::Error::from_raw_os_error(Errno::EMFILE as i32)) } else { Ok(()) }
}

type SocketHook = dyn Fn(&TcpSocket) -> pingora::Result<()> + Send + Sync;

static CHECK: LazyLock<Arc<SocketHook>> = LazyLock::new(|| {
    Arc::new(|socket: &TcpSocket| {
        check_server_socket(socket)
            .map_err(|error| Error::because(ErrorType::SocketError, "descriptors are kept back", error))
    })
});

/// Makes connections to a peer leave the descriptors that are kept back.
pub fn limit_peer(peer: &mut HttpPeer) {
    peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::clone(&*CHECK) as Arc<SocketHook>);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_eighth_is_kept_back_and_another_eighth_is_for_servers_only() {
        assert_eq!(divide(1024, 40), Division { clients: 768, servers: 896, refusals: 64 });
        assert_eq!(divide(96, 36), Division { clients: 72, servers: 84, refusals: 6 });
        assert_eq!(divide(1 << 20, 40), Division { clients: (1 << 20) - 256, servers: (1 << 20) - 128, refusals: 64 });
        assert_eq!(divide(u64::MAX, 40).clients, RawFd::MAX, "without a limit");
    }

    proptest! {
        #[test]
        fn there_is_room_for_clients_and_servers_whatever_the_limit(limit in 0u64..100_000, in_use in 0u64..1000) {
            let division = divide(limit, in_use);
            prop_assert!(division.clients <= division.servers);
            prop_assert!(u64::try_from(division.servers).unwrap() <= limit);
            prop_assert!(limit < in_use + 3 || u64::try_from(division.clients).unwrap() > in_use);
        }
    }
}
