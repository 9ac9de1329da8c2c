//! Reserved free ports: a port is found by binding to port 0, and the socket stays bound, without listening, for the whole
//! test. The process that uses the port binds it too (both allow re-use) and listens; until then connections are refused,
//! and no other test can get the port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, SockAddr, Socket, Type};

/// A reserved port on the loopback interface.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _reservation: Socket,
}

impl Port {
    /// A free port of 127.0.0.1.
    pub(crate) fn reserve() -> Self {
        Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// A free port of `::1`.
    pub(crate) fn reserve_v6() -> Self {
        Self::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
    }

    /// A free port of 127.0.0.1 for a node of a Redis cluster, which listens 10000 above it too: that is held by the second.
    pub(crate) fn reserve_with_bus() -> (Self, Self) {
        let mut unfit = Vec::new();
        while unfit.len() < 1000 {
            let port = Self::reserve();
            let bus = port.address.port().checked_add(10_000).map(|bus| SocketAddr::from((Ipv4Addr::LOCALHOST, bus)));
            if let Some(Ok(bus)) = bus.map(Self::try_bind) {
                return (port, bus);
            }
            // Kept, so that it is not found again.
            unfit.push(port);
        }
        panic!("no free port whose number + 10000 is free too");
    }

    fn bind(any: SocketAddr) -> Self {
        Self::try_bind(any).expect("a free port")
    }

    fn try_bind(any: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).expect("a socket");
        // A port requested by number may be reserved by another test, which also allows re-use: so bind without it first.
        socket.set_reuse_address(any.port() == 0).expect("SO_REUSEADDR");
        socket.bind(&SockAddr::from(any))?;
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        let address = socket.local_addr().expect("its address").as_socket().expect("an IP address");
        Ok(Self { address, _reservation: socket })
    }

    /// The whole address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
