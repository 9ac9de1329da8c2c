//! Free ports that stay ours: a port is found by binding to port 0 and the socket stays bound, without listening, as
//! long as the test runs. Whoever the port is meant for binds it too (both allow re-use) and listens; while nobody
//! listens, connections are refused, and no other test can be given the port.

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

    fn bind(any: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SockAddr::from(any)).expect("a free port");
        let address = socket.local_addr().expect("its address").as_socket().expect("an IP address");
        Self { address, _reservation: socket }
    }

    /// The whole address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
