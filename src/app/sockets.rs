//! The listening sockets by their addresses: opened by this process or the service manager, or taken over from another process.
//!
//! Pingora asks a list for a socket before it opens one, and adds what it has opened. Each of its servers has a list of its
//! own, filled by its own transfer; here all servers get the same one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service;
use socket2::{Domain, SockRef, Socket, Type};

use crate::config::{Config, ListenAddress};
use crate::pool::connections::set_keepalive;

use super::error::RunError;
use super::socket_activation;

/// All listening sockets. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sockets(ListenFds);

/// An address as Pingora names it.
pub(super) fn socket_name(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => path.to_string_lossy().into_owned(),
    }
}

/// All addresses of a configuration.
pub(super) fn addresses(config: &Config) -> impl Iterator<Item = &ListenAddress> {
    let listeners = config.listeners.iter().map(|listener| &listener.address);
    let admin = config.admin.iter().map(|admin| &admin.address);
    listeners.chain(admin).chain(config.metrics.iter().map(|metrics| &metrics.address))
}

impl Sockets {
    /// Those that the service manager opened for this process; usually none.
    pub(super) fn activated(config: &Config) -> Result<Self, RunError> {
        let passed =
            socket_activation::take_sockets().map_err(RunError::system("the sockets of the service manager"))?;
        let (sockets, unclaimed) = Self::inherit(passed, config);
        for (address, _) in sockets.list() {
            tracing::info!(address, "a listener has the socket that the service manager opened");
        }
        for address in unclaimed {
            tracing::warn!(
                address,
                "the service manager opened a socket on which no listener of the configuration listens: its clients wait in vain; \
                 write the address the same in both"
            );
        }
        Ok(sockets)
    }

    /// Takes over the sockets that the configuration listens on. Returned are the names of the others, which are closed.
    pub(super) fn inherit(sockets: Vec<(String, OwnedFd)>, config: &Config) -> (Self, Vec<String>) {
        let mut fds = Fds::new();
        let mut unclaimed = Vec::new();
        for (name, socket) in sockets {
            // A path that is gone cannot be reached any more: it is opened again.
            let reachable = !name.starts_with('/') || Path::new(&name).exists();
            if reachable && addresses(config).any(|address| socket_name(address) == name) {
                fds.add(name, socket.into_raw_fd());
            } else {
                unclaimed.push(name);
            }
        }
        (Self(Arc::new(Mutex::new(fds))), unclaimed)
    }

    /// Whether the socket is open already.
    pub(super) fn has(&self, address: &ListenAddress) -> bool {
        self.0.lock().get(&socket_name(address)).is_some()
    }

    /// Opens a socket, with what the connections that it accepts inherit: Pingora would make five system calls for each of them.
    /// Pingora listens on it later.
    pub(super) fn open(&self, address: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // `[::]` accepts IPv4 clients too, whatever the system's default is.
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        set_keepalive(&SockRef::from(&socket))?;
        socket.bind(&address.into())?;
        self.0.lock().add(address.to_string(), OwnedFd::from(socket).into_raw_fd());
        Ok(())
    }

    /// Names and descriptors, which are valid while the listeners are open.
    pub(super) fn list(&self) -> Vec<(String, RawFd)> {
        let (names, descriptors) = self.0.lock().serialize();
        names.into_iter().zip(descriptors).collect()
    }

    /// The service, listening on these sockets.
    pub(super) fn attach<S>(&self, service: S) -> ServiceOnSockets<S> {
        ServiceOnSockets { service, sockets: Arc::clone(&self.0) }
    }
}

/// A service that gets these sockets instead of its server's.
pub(super) struct ServiceOnSockets<S> {
    service: S,
    sockets: ListenFds,
}

#[async_trait]
impl<S: Service> Service for ServiceOnSockets<S> {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        let sockets = Some(Arc::clone(&self.sockets));
        Service::start_service(&mut self.service, sockets, shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        Service::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        Service::threads(&self.service)
    }
}
