//! Listening sockets that the service manager opened (systemd's socket activation): descriptors from 3 on, as many as `LISTEN_FDS`
//! says, for the process that `LISTEN_PID` names. So a process without any right serves ports below 1024.

use std::collections::BTreeSet;
use std::io::{self, Error, ErrorKind};
use std::os::fd::{OwnedFd, RawFd};

use socket2::SockRef;

use crate::pool::connections::set_keepalive;
use crate::pool::descriptor_passing::duplicate;

/// The variables that tell of the sockets. A program that this process starts does not have them.
pub(super) const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
const FIRST_DESCRIPTOR: RawFd = 3;

/// Takes the sockets, with the names by which Pingora asks for them. To be called once.
pub(super) fn take_sockets() -> io::Result<Vec<(String, OwnedFd)>> {
    let variable = |name| std::env::var(name).ok();
    let count = passed_sockets(variable("LISTEN_PID"), variable("LISTEN_FDS"), std::process::id())?;
    let mut addresses = BTreeSet::new();
    let mut sockets = Vec::new();
    for descriptor in (FIRST_DESCRIPTOR..).take(count) {
        let socket = duplicate(descriptor).map_err(|error| described(descriptor, &error))?;
        let address = prepare(&socket).map_err(|error| described(descriptor, &error))?;
        // Only now: with a wrong number it may be this process's own descriptor of something else.
        nix::unistd::close(descriptor)?;
        if !addresses.insert(address.clone()) {
            let twice = format!("two sockets listen on {address}; one of them would never be served");
            return Err(Error::new(ErrorKind::InvalidInput, twice));
        }
        sockets.push((address, socket));
    }
    Ok(sockets)
}

/// How many sockets this process was passed: none when they are another one's.
fn passed_sockets(pid: Option<String>, count: Option<String>, own_pid: u32) -> io::Result<usize> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(0) };
    if pid.parse() != Ok(own_pid) {
        return Ok(0);
    }
    count.parse().map_err(|_invalid| Error::new(ErrorKind::InvalidInput, format!("\"{count}\" is no number")))
}

/// Sets what a socket opened by the proxy has, and returns the address.
fn prepare(socket: &OwnedFd) -> io::Result<String> {
    let socket = SockRef::from(socket);
    let address = socket.local_addr()?.as_socket();
    let Some(address) = address.filter(|_| socket.is_listener().unwrap_or(false)) else {
        let why = "it is not a TCP socket that listens; the proxy opens unix sockets itself";
        return Err(Error::new(ErrorKind::InvalidInput, why));
    };
    socket.set_nonblocking(true)?;
    set_keepalive(&socket)?;
    Ok(address.to_string())
}

fn described(descriptor: RawFd, error: &Error) -> Error {
    Error::new(error.kind(), format!("descriptor {descriptor}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn passed(pid: &str, count: &str) -> io::Result<usize> {
        passed_sockets(Some(pid.to_owned()), Some(count.to_owned()), 17)
    }

    #[test]
    fn sockets_of_another_process_are_left_alone() {
        assert_eq!(passed("17", "2").unwrap(), 2);
        assert_eq!(passed("18", "2").unwrap(), 0);
        assert_eq!(passed("", "2").unwrap(), 0);
        assert_eq!(passed_sockets(None, Some("2".to_owned()), 17).unwrap(), 0);
        assert_eq!(passed_sockets(Some("17".to_owned()), None, 17).unwrap(), 0);
        assert!(passed("17", "-1").unwrap_err().to_string().contains("is no number"));
    }

    #[test]
    fn a_socket_is_named_by_its_address_and_does_not_block() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let bound = listener.local_addr().unwrap().to_string();
            let socket = duplicate(listener.as_raw_fd()).unwrap();
            drop(listener);
            assert_eq!(prepare(&socket).unwrap(), bound);
            let listener = TcpListener::from(socket);
            assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn what_is_no_listening_tcp_socket_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let unix = OwnedFd::from(UnixListener::bind(folder.path().join("socket")).unwrap());
        let datagrams = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        for socket in [unix, datagrams] {
            assert!(prepare(&socket).unwrap_err().to_string().contains("not a TCP socket that listens"));
        }
        assert_eq!(duplicate(9999).unwrap_err().raw_os_error(), Some(9), "no such descriptor");
    }
}
